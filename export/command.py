"""`touchline export`: weights in, model directories for Triton out, with progress and a closing table."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from export import engine_report, first_run, tensorrt_engine, triton_model
from export.engine_stamp import BuildOptions
from export.errors import EngineError, ExportError, MissingPackageError, WeightsError
from export.frames import calibration_frames, parity_frames
from export.input_size import input_size, portrait, training_note
from export.tensorrt_library import tensorrt_rtx
from export.triton_model import PLAN_FILE, CpuPrecision, ServedModel
from export.weights import EXPORT_AGAIN, Weights, class_table, digest, load, quiet_ultralytics
from touchline.contract import KEYPOINTS, MAX_DETECTIONS, PITCH_MODEL

if TYPE_CHECKING:
    from onnx import ModelProto

    from export.graph import Suppression, Thresholds

Target = Literal["tensorrt", "openvino", "onnxruntime", "onnx"]
Precision = Literal["fp32", "fp16", "int8"]

STRIDE = 32
LARGEST_TOP_K = 3840
"""TensorRT's own limit."""
SHOWN_CLASSES = 8
TIMING_CACHE = Path(".cache/tensorrt.timing")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How to export. Sizes are H, W in pixels; `confidence` is what the graph cuts off, not what the gateway shows.

    The gateway applies its own, higher threshold; the tracker between them uses the boxes of low score.
    `size` None is what the weights can look at, else what they were trained at (see input_size); `opt_batch` None is
    `max_batch`: a GPU is sent full batches nearly always, and TensorRT chooses its kernels for this one.
    `classes` names the contract's class of a class of the weights where its own name does not say it. `pitch_size` is
    what the pitch network itself looks at, behind the input of `size` that all models share; None: `size` too.
    `parity_images` is a folder of pictures to compare precisions on; None: views of the synthetic match.
    `check` writes nothing: NVIDIA's builder judges, on a machine without a GPU, what would be written for TensorRT.
    """

    target: Target
    out: Path
    size: tuple[int, int] | None = None
    max_batch: int = 32
    opt_batch: int | None = None
    precision: Precision | None = None
    confidence: float = 0.1
    iou: float = 0.5
    max_detections: int = MAX_DETECTIONS
    candidates: int = 512
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
    pitch_size: tuple[int, int] | None = None
    parity_images: Path | None = None
    cuda_graphs: bool = False
    classes: Mapping[str, str] | None = None
    check: bool = False

    def __post_init__(self) -> None:
        for flag, size in (("--imgsz", self.size), ("--pitch-imgsz", self.pitch_size)):
            if size is None:
                continue
            height, width = size
            if height % STRIDE or width % STRIDE or min(size) < STRIDE:
                raise ExportError(f"{flag} {height}x{width}: height and width must be multiples of {STRIDE}.")
        if self.target not in get_args(Target):
            raise ExportError(f"--target {self.target}: it is one of {', '.join(get_args(Target))}.")
        if self.precision == "int8" and self.calibration is None:
            raise ExportError("--precision int8 needs --calibration, a directory with some hundred frames as images.")
        if self.check and self.target != "tensorrt":
            raise ExportError(f"--check judges what --target tensorrt would write, not {self.target}: leave one out.")
        if not 1 <= self.best_batch <= self.max_batch:
            raise ExportError(f"--opt-batch {self.best_batch} must lie between 1 and --max-batch {self.max_batch}.")
        for flag, value, low, high in (
            ("--confidence", self.confidence, 0, 1),
            ("--iou", self.iou, 0, 1),
            ("--max-detections", self.max_detections, 1, LARGEST_TOP_K),
            ("--candidates", self.candidates, 1, LARGEST_TOP_K),
            ("--rounds", self.rounds, 1, 1000),
            ("--instances", self.instances, 1, 100),
            ("--threads", self.threads, 0, 1024),
            ("--queue-delay-us", self.queue_delay_us or 0, 0, 10_000_000),
            ("--level", self.level, 0, 5),
            ("--workspace-gib", self.workspace_gib, 0.0625, 1024),
        ):
            if not low <= value <= high:
                raise ExportError(f"{flag} {value} must lie between {low} and {high}.")
        if self.out.exists() and not self.out.is_dir():
            raise ExportError(f"--out {self.out}: there is a file of this name. Name a folder.")

    @property
    def best_batch(self) -> int:
        """The batch that TensorRT chooses its kernels for."""
        return self.max_batch if self.opt_batch is None else self.opt_batch

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
    classes: str
    parity: str
    note: str


Done = Exported | engine_report.Judged


def export_models(
    sources: Mapping[str, str | Path], options: ExportOptions, console: Console | None = None
) -> list[Done]:
    """Export the weights of each role (player, pitch, ball) and print a table of what was written, or judged.

    ExportError, with the remedy, if something does not fit.
    """
    if not sources:
        raise ExportError("nothing to export: give weights for the player, the pitch or the ball.")
    if options.pitch_size and PITCH_MODEL not in sources:
        raise ExportError("--pitch-imgsz: there are no weights for the pitch.")
    if options.check:
        tensorrt_rtx()  # says what is missing before the weights are read
    elif options.target == "tensorrt":
        tensorrt_engine.kinds_here()
    console = console or Console(stderr=True)
    weights = {role: load(source, role, options.classes) for role, source in sources.items()}
    options = replace(options, size=input_size(weights.values(), options.size))
    if question := portrait(options.size):
        console.print(question, highlight=False, soft_wrap=True)
    done = list[Done]()
    for role in sources:
        for step in shown(role, export_model(role, weights.pop(role), options), console):
            if not isinstance(step, str):
                done.append(step)
    judged = [entry for entry in done if isinstance(entry, engine_report.Judged)]
    console.print(engine_report.table(judged) if judged else table([e for e in done if isinstance(e, Exported)]))
    return done


def shown(role: str, steps: Iterator[str | Done], console: Console) -> Iterator[str | Done]:
    """The steps of an export, told while they run: a line that changes on a terminal, a line each in a log."""
    began = time.monotonic()
    if not console.is_terminal:
        for step in steps:
            text = step if isinstance(step, str) else "done"
            console.print(f"{role}: {text} ({time.monotonic() - began:.0f} s)", highlight=False, soft_wrap=True)
            yield step
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task(role, total=None)
        for step in steps:
            finished = not isinstance(step, str)
            progress.update(task, description=f"{role}: {'done' if finished else step}", completed=finished, total=1)
            yield step


def export_model(role: str, source: str | Path | Weights, options: ExportOptions) -> Iterator[str | Done]:
    """Export one model: yields what it is doing now, and last what it wrote."""
    if not isinstance(source, Weights):
        yield f"reading {source}"
        source = load(source, role, options.classes)
    weights = source
    size = input_size([weights], options.size)
    options = replace(options, size=size)
    with tempfile.TemporaryDirectory(prefix="touchline-") as folder:
        network = Path(folder) / triton_model.ONNX_FILE
        yield "writing ONNX"
        write_onnx(weights, network, options)
        rows = described(network)
        parity, notes = "as given", list[str]()
        served = ServedModel(
            name=role,
            engine="onnxruntime" if options.target == "onnx" else options.target,
            size=size,
            rows=rows,
            max_batch=options.max_batch,
            preferred=(8, options.best_batch, options.max_batch) if options.target == "tensorrt" else (),
            queue_delay_us=queue_delay(options),
            instances=options.instances,
            cuda_graphs=options.cuda_graphs,
            threads=options.threads,
            cpu_precision=options.cpu_precision,
        )
        whole: ModelProto | None = None
        verdict: engine_report.Judged | None = None
        with about(weights.path):
            if not taken_as_it_is(weights, options):
                yield f"{options.stored_precision.upper()}"
                if options.target == "tensorrt" and make_shapes_static(weights, network, options):
                    notes.append("suppression by rounds instead of NonMaxSuppression")
                whole = lower_precision(network, options, size)
            if options.check:
                yield "asking NVIDIA's builder"
                verdict = judge(role, network, served, weights, options)
            yield "running it once"
            try:
                notes.extend(first_run.run(network, served))
            except EngineError as error:
                remedy = "" if weights.form in ("torch", "exported") else f" {EXPORT_AGAIN}"
                raise EngineError(f"{error}{remedy}") from error
            if whole is not None:
                yield "comparing with FP32"
                parity, note = compared(whole, network, options, size)
                notes.extend([note] if note else [])
            looked_at = options.pitch_size if weights.task == "pose" and options.pitch_size else size
            notes[:0] = filter(None, (portrait(size), training_note(weights, looked_at), ignored_note(weights)))
            for step in [verdict] if verdict else place(role, network, served, weights, options):
                if isinstance(step, str):
                    yield step
                else:
                    yield replace(step, parity=parity, note="; ".join(filter(None, (*notes, step.note))))


@contextlib.contextmanager
def about(path: Path) -> Iterator[None]:
    """Errors inside name the file."""
    try:
        yield
    except MissingPackageError:
        raise
    except ExportError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error


def ignored_note(weights: Weights) -> str:
    """The classes of the weights that are dropped, the first of many."""
    if not weights.ignored:
        return ""
    more = len(weights.ignored) - SHOWN_CLASSES
    return f"ignored classes: {', '.join(weights.ignored[:SHOWN_CLASSES])}{f' and {more} more' if more > 0 else ''}"


def taken_as_it_is(weights: Weights, options: ExportOptions) -> bool:
    """Whether the file is a finished model of the contract already, and neither target nor flag want it otherwise."""
    return weights.form == "exported" and options.target != "tensorrt" and options.precision is None


def place(
    role: str, network: Path, served: ServedModel, weights: Weights, options: ExportOptions
) -> Iterator[str | Exported]:
    """Put a finished ONNX file where the target wants it, building an engine first for TensorRT."""
    note = ""
    batch = f"1 to {options.max_batch}"
    if options.target == "onnx":
        options.out.mkdir(parents=True, exist_ok=True)
        file = options.out / f"{role}.onnx"
        file.write_bytes(network.read_bytes())
        batch = "any"
    elif options.target == "tensorrt":
        kinds = tensorrt_engine.kinds_here()
        names = [triton_model.plan_name(kind.compute_capability) for kind in kinds] if kinds[1:] else [PLAN_FILE]
        notes = []
        for kind, name in zip(kinds, names, strict=True):
            yield f"building the TensorRT engine for {kind} (minutes)"
            file = options.out / role / triton_model.VERSION / name
            build = replace(build_options(options), portable=kind.portable)
            built = tensorrt_engine.build_engine(
                network,
                file,
                build,
                TIMING_CACHE if not kinds[1:] else TIMING_CACHE.with_stem(f"tensorrt-{kind.compute_capability}"),
                device=tensorrt_engine.device_of(kind),
                builder=tensorrt_engine.builder_on(kind) if kinds[1:] else None,
            )
            notes.append(("built" if built else "unchanged, kept") + (f" for {kind}" if kinds[1:] else ""))
        note = ", ".join(notes)
        if kinds[1:]:
            plans = zip((kind.compute_capability for kind in kinds), names, strict=True)
            served = replace(served, plans=tuple(plans))
        triton_model.write_model(served, file, options.out)
    else:
        triton_model.write_model(served, network, options.out)
        file = options.out / role / triton_model.VERSION / triton_model.ONNX_FILE
    precision = "as given" if taken_as_it_is(weights, options) else options.stored_precision
    yield Exported(role, file, precision, batch, served.size, class_table(weights), parity="", note=note)


def build_options(options: ExportOptions) -> BuildOptions:
    """How TensorRT builds; `options` has a size."""
    assert options.size is not None
    return BuildOptions(
        size=options.size,
        opt_batch=options.best_batch,
        max_batch=options.max_batch,
        level=options.level,
        workspace_gib=options.workspace_gib,
    )


def judge(
    role: str, network: Path, served: ServedModel, weights: Weights, options: ExportOptions
) -> engine_report.Judged:
    """What NVIDIA's builder says of a finished ONNX file; EngineError, which names the layer, if that is no."""
    library, build = tensorrt_rtx(), build_options(options)
    return engine_report.Judged(
        role=role,
        built=engine_report.judged(network, served, build, library),
        build=build,
        taken_by=str(library),
        precision=options.stored_precision,
        classes=class_table(weights),
        parity="",
        note="",
    )


def write_onnx(weights: Weights, path: Path, options: ExportOptions) -> None:
    """Write the contract graph around the weights, in FP32."""
    pitch_size = options.pitch_size if weights.task == "pose" else None
    if pitch_size and weights.form != "torch":
        raise WeightsError(
            f"{weights.path}: the size that an .onnx file looks at is fixed in it. Give the .pt for --pitch-imgsz "
            f"{pitch_size[0]}x{pitch_size[1]}, or leave that out."
        )
    if weights.form == "exported":
        from export.precision import is_quantized

        if is_quantized(weights.model) and not taken_as_it_is(weights, options):
            raise WeightsError(
                f"{weights.path}: is INT8 already, and nothing else can be made of it. Give what it was made from "
                "(weights/ has that of the bundled models), or leave --precision out to serve it on a CPU as it is."
            )
        path.write_bytes(weights.path.read_bytes())
        return
    try:
        from export import compose
    except ImportError as error:
        raise MissingPackageError(
            f"{weights.path}: this export needs torch and onnx ({error}), see requirements/export.in."
        ) from error
    size = input_size([weights], options.size)
    with quiet_ultralytics():
        try:
            compose.contract_model(weights, path, size, options.thresholds, pitch_size)
        except ExportError:
            raise
        except Exception as error:  # of torch's exporter and of onnx there are many kinds, and more in each release
            height, width = pitch_size or size
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
            raise WeightsError(
                f"{weights.path}: cannot be written as ONNX for {height}x{width} pixels ({reason}). "
                f"{compose.remedy(weights, (height, width))}"
            ) from error


def make_shapes_static(weights: Weights, path: Path, options: ExportOptions) -> bool:
    """Take the suppression of a model made for CPUs out of an ONNX file, one of fixed shape in; whether it had to.

    CUDA graphs need fixed shapes. WeightsError, with the remedy, if that cannot be done.
    """
    import onnx

    model = onnx.load(path)
    if all(node.op_type != "NonMaxSuppression" for node in model.graph.node):
        return False
    try:
        from export import compose

        model = compose.with_static_suppression(model, options.thresholds)
    except (ImportError, ValueError) as error:
        raise WeightsError(
            f"{weights.path}: exported for a CPU, with ONNX NonMaxSuppression inside, which cannot be replaced here "
            f"({error}). For --target tensorrt give the .pt it was made from, or the .onnx that `touchline export "
            "--target onnx` makes of that."
        ) from error
    path.write_bytes(model.SerializeToString(deterministic=True))
    return True


def lower_precision(path: Path, options: ExportOptions, size: tuple[int, int]) -> ModelProto:
    """Rewrite an ONNX file: FP16 arithmetic for TensorRT, FP16 storage elsewhere, INT8 if asked for; its FP32 form.

    The FP32 form is the same weights in FP32 arithmetic, also where they came as FP16.
    """
    import onnx

    from export import precision
    from export.onnx_file import one_line

    model = onnx.load(path)
    if options.target == "tensorrt":
        model = precision.cast_at_once(model)
        path.write_bytes(model.SerializeToString(deterministic=True))
    if options.stored_precision == "fp32":
        return model
    try:
        if options.precision == "int8":
            assert options.calibration is not None
            frames = calibration_frames(options.calibration, size)
            engine = "tensorrt" if options.target == "onnx" else options.target
            lowered = precision.int8_quantized(model, frames, engine)
        elif options.target == "tensorrt":
            lowered = precision.half_computed(model)
        else:
            lowered = precision.half_stored(model)
    except ExportError:
        raise
    except Exception as error:  # onnx and ONNX Runtime have many kinds, for graphs that break their rules
        raise ExportError(f"cannot be rewritten in {options.stored_precision} ({one_line(error)}).") from error
    path.write_bytes(lowered.SerializeToString(deterministic=True))
    return model


def compared(whole: ModelProto, path: Path, options: ExportOptions, size: tuple[int, int]) -> tuple[str, str]:
    """How far what is served lies from its FP32 form on some frames, for the table, and what to know about that."""
    import onnx

    from export.half_emulation import half_emulated
    from export.parity import SEEN, compare

    if options.stored_precision == "fp32":
        return "is FP32", ""
    frames = parity_frames(options.parity_images, size)
    if not frames:
        return "not compared", "no frames to compare on: give --parity-images"
    other, note = onnx.load(path), ""
    if options.target == "tensorrt" and options.stored_precision == "fp16":
        other = half_emulated(other)
        note = "parity: of the ONNX file with FP16's rounding, not of the engine"
    elif options.target == "tensorrt":
        note = "parity: of the ONNX file, not of the engine"
    # What the graph's own threshold cuts off in one form only is no difference.
    return str(compare(whole, other, frames, over=max(SEEN, options.confidence + 0.02))), note


def described(path: Path) -> int | None:
    """K of a contract model's detections, None for a pitch model."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    rows = [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim]
    return None if graph.output[0].name == KEYPOINTS else rows[1]


def queue_delay(options: ExportOptions) -> int:
    """Microseconds a request may wait for others: 2 ms where a batch pays, none on a CPU, if nothing was said."""
    if options.queue_delay_us is not None:
        return options.queue_delay_us
    return 2000 if options.target == "tensorrt" else 0


def table(done: Sequence[Exported]) -> Table:
    """What was exported, for the terminal: a column a model, so that paths and notes have room."""
    result = Table("", *(entry.role for entry in done), title="Exported models", title_justify="left")
    for column in result.columns[1:]:
        column.overflow = "fold"
    rows: dict[str, Callable[[Exported], str]] = {
        "file": lambda entry: str(entry.file),
        "size": lambda entry: f"{entry.file.stat().st_size / 1e6:.1f} MB",
        "precision": lambda entry: entry.precision,
        "batch": lambda entry: entry.batch,
        "input": lambda entry: "x".join(map(str, entry.size)),
        "classes": lambda entry: entry.classes,
        "parity": lambda entry: entry.parity,
        "sha256": lambda entry: digest(entry.file)[:12],
        "note": lambda entry: entry.note,
    }
    for heading, value in rows.items():
        result.add_row(heading, *map(value, done))
    return result
