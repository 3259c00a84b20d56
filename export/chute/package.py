"""`touchline package`: weights of any classes to the folder that the subnet's public track takes."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from export import first_run
from export.class_names import IGNORED
from export.command import ExportOptions, described, lower_precision, write_onnx
from export.errors import ExportError, MissingPackageError, WeightsError
from export.input_size import input_size
from export.triton_model import ServedModel
from export.weights import ANY, load
from touchline.contract import CLASS_NAMES

if TYPE_CHECKING:
    from onnx import ModelProto

MODEL_FILE: Final = "model.onnx"
NAMES_FILE: Final = "class_names.txt"
MINER_FILE: Final = "miner.py"
NOTES: Final = "touchline"
"""Key of the ONNX file's metadata that the miner reads."""
_HERE: Final = Path(__file__).parent


def package(
    source: str | Path,
    out: Path,
    *,
    objects: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    confidence: float = 0.25,
    iou: float = 0.5,
) -> list[str]:
    """Write the folder `out` from a .pt file, Ultralytics' .onnx or a contract model; what cls_id each class has.

    `objects` are the element's, in its order; empty: the weights' own. `size` is the input's H, W; None: that of the
    training. ExportError, with the remedy, if something does not fit; then nothing is written.
    """
    check_empty(out)
    weights = load(source, ANY)
    names = list(weights.names) or names_in(weights.model, objects)
    order = ids_of(names, objects or names, weights.path)
    options = ExportOptions(
        "onnxruntime", out, size=input_size([weights], size), confidence=confidence, iou=iou, precision=None
    )
    with tempfile.TemporaryDirectory(prefix="touchline-") as folder:
        network = Path(folder) / MODEL_FILE
        write_onnx(weights, network, options)
        if weights.form != "exported":
            assert options.size is not None
            lower_precision(network, options, options.size)
        first_run.run(network, served(network, options))
        annotate(network, {"cls_ids": order, "confidence": confidence, "names": names})
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(network, out / MODEL_FILE)
    for name in (MINER_FILE, "chute_config.yml"):
        shutil.copyfile(_HERE / name, out / name)
    (out / NAMES_FILE).write_text("".join(f"{name}\n" for name in objects or names))
    return [f"{cls_id}: {name}" for cls_id, name in enumerate(objects or names)]


def names_in(model: ModelProto, objects: Sequence[str]) -> list[str]:
    """The classes of a contract model: what its package noted, else soccer's, else what the objects say they are."""
    for entry in model.metadata_props:
        if entry.key == NOTES:
            return [str(name) for name in json.loads(entry.value)["names"]]
    is_soccer = not objects or {name.strip().lower() for name in objects} & set(CLASS_NAMES)
    return list(CLASS_NAMES if is_soccer else objects)


def check_empty(out: Path) -> None:
    """ExportError where something lies in `out` that is not of an earlier package."""
    if out.exists() and not out.is_dir():
        raise ExportError(f"--out {out}: there is a file of this name. Name a folder.")
    ours = {MODEL_FILE, NAMES_FILE, MINER_FILE, "chute_config.yml"}
    others = sorted(path.name for path in out.iterdir() if path.name not in ours) if out.is_dir() else []
    if others:
        raise ExportError(f"--out {out}: there is {others[0]} in it. Name a new folder: all in it would be published.")


def ids_of(names: Sequence[str], objects: Sequence[str], path: Path) -> list[int]:
    """The element's cls_id of each class of the weights, IGNORED where it is not asked for; names in any letter case.

    WeightsError where an object has no class in the weights.
    """
    known = [name.strip().lower() for name in names]
    wanted = [name.strip().lower() for name in objects]
    for name, place in zip(objects, wanted, strict=True):
        if place not in known:
            raise WeightsError(
                f"{path}: has no class '{name}', it has {', '.join(names)}. Give --objects with these names, in the "
                "order of the element."
            )
    if len(set(wanted)) < len(wanted):
        raise WeightsError(f"{path}: two objects have one name. Name each once, in the order of the element.")
    return [wanted.index(name) if name in wanted else IGNORED for name in known]


def served(network: Path, options: ExportOptions) -> ServedModel:
    """What first_run has to know of the model."""
    assert options.size is not None
    return ServedModel(
        name="packaged", engine="onnxruntime", size=options.size, rows=described(network), max_batch=1, preferred=(),
        queue_delay_us=0, instances=1, cuda_graphs=False, threads=0, cpu_precision="f32",
    )  # fmt: skip


def annotate(network: Path, notes: dict[str, object]) -> None:
    """Write what the miner has to know into the ONNX file."""
    model = _onnx(network)
    for entry in [entry for entry in model.metadata_props if entry.key == NOTES]:
        model.metadata_props.remove(entry)
    entry = model.metadata_props.add()
    entry.key, entry.value = NOTES, json.dumps(notes)
    network.write_bytes(model.SerializeToString(deterministic=True))


def _onnx(network: Path) -> ModelProto:
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError("packaging needs onnx, see `make .venv-export/.ready`.") from error
    return onnx.load(network)
