"""`touchline export`: weights in, model directories for Triton out, with progress and a closing table."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from export import tensorrt_engine, triton_model
from export.errors import ExportError, MissingPackageError
from export.triton_model import CpuPrecision, ServedModel
from export.weights import Weights, digest, load, quiet_ultralytics
from touchline.contract import DEFAULT_SIZE, KEYPOINTS, MAX_DETECTIONS

if TYPE_CHECKING:
    from export.graph import Suppression, Thresholds

Target = Literal["tensorrt", "openvino", "onnxruntime", "onnx"]
Precision = Literal["fp32", "fp16", "int8"]

STRIDE = 32
TIMING_CACHE = Path(".cache/tensorrt.timing")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How to export. Sizes are H, W in pixels; `confidence` is what the graph cuts off, not what the gateway shows.

    The gateway applies its own, higher threshold; the tracker between them uses the boxes of low score.
    `classes` names the contract's class of a class of the weights where its own name does not say it.
    """

    target: Target
    out: Path
    size: tuple[int, int] = DEFAULT_SIZE
    max_batch: int = 32
    opt_batch: int = 16
    precision: Precision | None = None
    confidence: float = 0.1
    iou: float = 0.5
    max_detections: int = MAX_DETECTIONS
    candidates: int = 300
    rounds: int = 16
    suppression: Suppression | None = None
    nms_free: bool = True
    instances: int = 1
    threads: int = 0
    cpu_precision: CpuPrecision = "auto"
    queue_delay_us: int | None = None
    level: int = 3
    workspace_gib: float = 4.0
    calibration: Path | None = None
    classes: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        height, width = self.size
        if height % STRIDE or width % STRIDE or min(self.size) < STRIDE:
            raise ExportError(f"--imgsz {height}x{width}: height and width must be multiples of {STRIDE}.")
        if self.target not in get_args(Target):
            raise ExportError(f"--target {self.target}: it is one of {', '.join(get_args(Target))}.")
        if self.precision == "int8" and self.calibration is None:
            raise ExportError("--precision int8 needs --calibration, a directory with some hundred frames as images.")
        if not 1 <= self.opt_batch <= self.max_batch:
            raise ExportError(f"--opt-batch {self.opt_batch} must lie between 1 and --max-batch {self.max_batch}.")

    @property
    def stored_precision(self) -> Precision:
        """The precision asked for, FP16 if none was."""
        return self.precision or "fp16"

    @property
    def thresholds(self) -> Thresholds:
        """The graph's thresholds; suppression by the ONNX operator on a CPU, by static shapes elsewhere."""
        from export.graph import Thresholds

        on_cpu = self.target in ("openvino", "onnxruntime")
        return Thresholds(
            confidence=self.confidence,
            iou=self.iou,
            max_detections=self.max_detections,
            suppression=self.suppression or ("operator" if on_cpu else "rounds"),
            candidates=self.candidates,
            rounds=self.rounds,
            nms_free=self.nms_free,
        )


@dataclass(frozen=True, slots=True)
class Exported:
    """One model that was exported: `file` is what is served, `note` what the operator should know about it."""

    role: str
    file: Path
    precision: str
    batch: str
    size: tuple[int, int]
    note: str


def export_models(
    sources: Mapping[str, str | Path], options: ExportOptions, console: Console | None = None
) -> list[Exported]:
    """Export the weights of each role (player, pitch, ball) and print a table of what was written.

    ExportError, with the remedy, if something does not fit.
    """
    if not sources:
        raise ExportError("nothing to export: give weights for the player, the pitch or the ball.")
    if options.target == "tensorrt":
        tensorrt_engine.this_device()  # says what is missing before the weights are read
    console = console or Console(stderr=True)
    done = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for role, source in sources.items():
            task = progress.add_task(role, total=None)
            for step in export_model(role, source, options):
                if isinstance(step, Exported):
                    done.append(step)
                    progress.update(task, description=f"{role}: done", total=1, completed=1)
                else:
                    progress.update(task, description=f"{role}: {step}")
    console.print(table(done))
    return done


def export_model(role: str, source: str | Path, options: ExportOptions) -> Iterator[str | Exported]:
    """Export one model: yields what it is doing now, and last what it wrote."""
    yield f"reading {source}"
    weights = load(source, role, options.classes)
    with tempfile.TemporaryDirectory(prefix="touchline-") as folder:
        network = Path(folder) / triton_model.ONNX_FILE
        yield "writing ONNX"
        write_onnx(weights, network, options)
        size, rows = described(network)
        taken_as_it_is = weights.form == "exported" and options.target != "tensorrt"
        if options.stored_precision != "fp32" and not taken_as_it_is:
            yield f"{options.stored_precision.upper()}"
            lower_precision(network, options, size)
        served = ServedModel(
            name=role,
            engine="onnxruntime" if options.target == "onnx" else options.target,
            size=size,
            rows=rows,
            max_batch=options.max_batch,
            preferred=(8, options.opt_batch, options.max_batch) if options.target == "tensorrt" else (),
            queue_delay_us=queue_delay(options),
            instances=options.instances,
            threads=options.threads,
            cpu_precision=options.cpu_precision,
        )
        yield from place(role, network, served, weights, options)


def place(
    role: str, network: Path, served: ServedModel, weights: Weights, options: ExportOptions
) -> Iterator[str | Exported]:
    """Put a finished ONNX file where the target wants it, building an engine first for TensorRT."""
    notes = [f"ignored classes: {', '.join(weights.ignored)}"] if weights.ignored else []
    batch = f"1 to {options.max_batch}"
    if options.target == "onnx":
        options.out.mkdir(parents=True, exist_ok=True)
        file = options.out / f"{role}.onnx"
        file.write_bytes(network.read_bytes())
        batch = "any"
    elif options.target == "tensorrt":
        yield "building the TensorRT engine (minutes)"
        file = options.out / role / triton_model.VERSION / triton_model.PLAN_FILE
        build = tensorrt_engine.BuildOptions(
            size=served.size,
            opt_batch=options.opt_batch,
            max_batch=options.max_batch,
            level=options.level,
            workspace_gib=options.workspace_gib,
        )
        built = tensorrt_engine.build_engine(network, file, build, TIMING_CACHE)
        notes.append("built" if built else "unchanged, kept")
        triton_model.write_model(served, file, options.out)
    else:
        triton_model.write_model(served, network, options.out)
        file = options.out / role / triton_model.VERSION / triton_model.ONNX_FILE
    taken_as_it_is = weights.form == "exported" and options.target != "tensorrt"
    precision = "as given" if taken_as_it_is else options.stored_precision
    yield Exported(role, file, precision, batch, served.size, "; ".join(notes))


def write_onnx(weights: Weights, path: Path, options: ExportOptions) -> None:
    """Write the contract graph around the weights, in FP32."""
    if weights.form == "exported":
        path.write_bytes(weights.path.read_bytes())
        return
    try:
        from export import compose
    except ImportError as error:
        raise MissingPackageError(
            f"{weights.path}: this export needs torch and onnx ({error}), see requirements/export.in."
        ) from error
    with quiet_ultralytics():
        compose.contract_model(weights, path, options.size, options.thresholds)


def lower_precision(path: Path, options: ExportOptions, size: tuple[int, int]) -> None:
    """Rewrite an FP32 ONNX file: FP16 arithmetic for TensorRT, FP16 storage elsewhere, INT8 if asked for."""
    import onnx

    from export import precision

    model = onnx.load(path)
    if options.precision == "int8":
        assert options.calibration is not None
        model = precision.int8_quantized(model, calibration_frames(options.calibration, size))
    elif options.target == "tensorrt":
        model = precision.half_computed(model)
    else:
        model = precision.half_stored(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def calibration_frames(directory: Path, size: tuple[int, int]) -> Iterator[Any]:
    """The images of a directory as frames uint8 [1, H, W, 3], letterboxed as the gateway does it."""
    import cv2
    import numpy as np

    from touchline.contract import LETTERBOX_GREY, Letterbox

    files = sorted(file for file in directory.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise ExportError(f"--calibration {directory}: there are no .jpg or .png images in it.")
    for file in files:
        image = cv2.imread(str(file))
        if image is None:
            raise ExportError(f"{file}: not an image that can be read.")
        box = Letterbox(image.shape[1], image.shape[0], size[1], size[0])
        left, top = box.offset
        width, height = box.content_size
        frame = np.full((1, *size, 3), LETTERBOX_GREY, np.uint8)
        frame[0, top : top + height, left : left + width] = cv2.resize(image, (width, height))[..., ::-1]
        yield frame


def described(path: Path) -> tuple[tuple[int, int], int | None]:
    """H, W of a contract model's input and K of its detections, None for a pitch model."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    dims = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    rows = [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim]
    return (dims[1], dims[2]), None if graph.output[0].name == KEYPOINTS else rows[1]


def queue_delay(options: ExportOptions) -> int:
    """Microseconds a request may wait for others: 2 ms where a batch pays, none on a CPU, if nothing was said."""
    if options.queue_delay_us is not None:
        return options.queue_delay_us
    return 2000 if options.target == "tensorrt" else 0


def table(done: Sequence[Exported]) -> Table:
    """What was exported, for the terminal."""
    result = Table(title="Exported models")
    for heading in ("model", "file", "size", "precision", "batch", "input", "sha256", "note"):
        result.add_column(heading, overflow="fold")
    for entry in done:
        result.add_row(
            entry.role,
            str(entry.file),
            f"{entry.file.stat().st_size / 1e6:.1f} MB",
            entry.precision,
            entry.batch,
            "x".join(map(str, entry.size)),
            digest(entry.file)[:12],
            entry.note,
        )
    return result
