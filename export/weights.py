"""Finds out what a weights file is: its task, its classes in the contract's terms, its keypoints."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from export.class_names import IGNORED, NONE, PEOPLE, map_classes
from export.errors import MissingPackageError, WeightsError
from touchline.contract import (
    BALL,
    BALL_MODEL,
    CLASS_NAMES,
    DEFAULT_SIZE,
    DETECTIONS,
    INPUT,
    KEYPOINT_COUNT,
    KEYPOINTS,
    PITCH_MODEL,
)

STRIDE = 32
"""Inputs are multiples of this; networks with a coarser map want more."""

HUB_NAME = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[\w./-]+)$")

FAMILIES = "YOLOv8, v10, 11 and 26"

FLOAT, UINT8 = 1, 2
"""Numbers of onnx.TensorProto for these types."""

LARGEST_SHARE = 2.0
"""Boxes whose numbers all stay under this are shares of a picture, not pixels."""

EXPORT_AGAIN = "Give the .pt file, or export it again with `yolo export format=onnx dynamic=True`."

ANY = "any"
"""Role of weights whose classes are an element's own and none of the contract's."""

Task = Literal["detect", "pose"]


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file that has been read.

    `form` is "torch" (`model` is an Ultralytics module), "rows" (`model` is an ONNX ModelProto with Ultralytics' raw
    output [N, C, A]), "listed" (the same with a finished [N, M, C]) or "exported" (an ONNX file that is a contract
    model already). `class_map[i]` is the contract's class of class i, IGNORED for none; `ignored` names those.
    `sha256` is that of the file, `names` the weights' own names of its classes. `fixed_size` is the input (H, W) that
    the file cannot do without, `trained_at` the longer side of the pictures of its training, `stride` what divides a
    size; None where the file does not say.
    """

    path: Path
    sha256: str
    task: Task
    form: Literal["torch", "rows", "listed", "exported"]
    model: Any
    class_map: tuple[int, ...] = ()
    ignored: tuple[str, ...] = ()
    keypoint_dims: int = 3
    names: tuple[str, ...] = ()
    fixed_size: tuple[int, int] | None = None
    trained_at: int | None = None
    stride: int = STRIDE


def load(source: str | os.PathLike[str], role: str, class_names: Mapping[str, str] | None = None) -> Weights:
    """Read weights for a role (player, pitch or ball): a .pt or .onnx file, or a hub name `owner/name:file`.

    The role ANY takes a detect model whatever its classes are, and keeps them.
    `class_names` says which contract class a class of the weights is, where its own name does not.
    WeightsError with the file and the remedy if it cannot be that.
    """
    path = local_file(source)
    suffix = path.suffix.lower()
    if suffix == ".pt":
        weights = load_checkpoint(path, role, class_names or {})
    elif suffix == ".onnx":
        weights = load_onnx(path, role, class_names or {})
    else:
        raise WeightsError(f"{path}: weights are a .pt file of Ultralytics or an .onnx file, this is neither.")
    wanted: Task = "pose" if role == PITCH_MODEL else "detect"
    if weights.task != wanted:
        other = "the pitch model" if weights.task == "pose" else "a player or ball model"
        raise WeightsError(
            f"{path}: a {weights.task} model cannot be the {role} model, which must be a {wanted} model. "
            f"Is this {other}? Then pass it as that."
        )
    return weights


def local_file(source: str | os.PathLike[str]) -> Path:
    """The file itself; a hub name is downloaded first.

    A connection that breaks is taken up where it ended; what is there already is kept in the hub's cache. Both are
    checked against the hub's own checksum.
    """
    path = Path(source)
    if path.is_file():
        return path
    hub = HUB_NAME.match(str(source))
    if not hub:
        raise WeightsError(f"{source}: there is no such file. A file on the hub is written owner/name:file.")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingPackageError(f"{source}: names on the hub need `pip install huggingface-hub`.") from error
    try:
        path = Path(hf_hub_download(hub["repo"], hub["file"]))
    except Exception as error:  # many kinds, by version and by what is below: HTTP, network, disk, a name it refuses
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{source}: the hub does not give this file ({reason}). Check name, network, HF_TOKEN."
        ) from error
    blob = path.resolve()
    if not is_blob(blob):
        blob.unlink()
        raise WeightsError(f"{source}: what was downloaded is not what the hub has. It was removed: try again.")
    return path


def is_blob(file: Path) -> bool:
    """Whether a file of the hub's cache is what its name says: the SHA-256 of a large file, git's SHA-1 of a small one.

    True where the cache does not name files so (it needs symbolic links for that).
    """
    if re.fullmatch(r"[0-9a-f]{64}", file.name):
        return digest(file) == file.name
    if re.fullmatch(r"[0-9a-f]{40}", file.name):
        git = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, lambda: git).hexdigest() == file.name
    return True


def load_checkpoint(path: Path, role: str, class_names: Mapping[str, str]) -> Weights:
    """Read an Ultralytics checkpoint. Like every checkpoint of theirs it is a pickle: only load what you trust."""
    with quiet_ultralytics():
        try:
            from ultralytics.nn.tasks import load_checkpoint as read
        except ImportError as error:
            raise MissingPackageError(
                f"{path}: .pt weights need torch, torchvision and ultralytics ({error}), see requirements/export.in."
            ) from error
        check_archive(path)
        try:
            model, saved = read(path)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise WeightsError(f"{path}: {not_of_ultralytics(path, reason)}") from error
    task = getattr(model, "task", None)
    if task not in ("detect", "pose"):
        raise WeightsError(f"{path}: a {task} model. Touchline serves detect models and, for the pitch, pose models.")
    head = model.model[-1] if hasattr(model, "model") else model
    if not hasattr(head, "end2end") or not hasattr(head, "cv2"):
        raise WeightsError(f"{path}: its head {type(head).__name__} is none of {FAMILIES}.")
    check_finite(path, ((name, value.numpy()) for name, value in model.state_dict().items()))
    names = dict(model.names) if isinstance(model.names, Mapping) else dict(enumerate(model.names))
    if len(names) != head.nc:
        raise WeightsError(
            f"{path}: it has {head.nc} classes and names for {len(names)} of them. Give the best.pt that its training "
            "wrote."
        )
    shape = tuple(head.kpt_shape) if task == "pose" else None
    weights = described(
        path=path,
        task=task,
        form="torch",
        model=model,
        names=names,
        keypoints=shape,
        role=role,
        class_names=class_names,
    )
    arguments = saved.get("train_args") if isinstance(saved, Mapping) else None
    trained_at = longer_side(arguments.get("imgsz")) if isinstance(arguments, Mapping) else None
    return replace(weights, trained_at=trained_at, stride=max(STRIDE, int(max(model.stride))))


def not_of_ultralytics(path: Path, reason: str) -> str:
    """What to say of a .pt file that Ultralytics cannot load: what it is, and what to give instead."""
    import torch

    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever it is, it is nothing of ours
        saved = None
    if not (isinstance(saved, Mapping) and {"width", "state"} <= saved.keys()):
        return (
            f"not a checkpoint that Ultralytics can load ({reason}). "
            "Give the best.pt that its training wrote, or an .onnx file."
        )
    exported = path.with_suffix(".onnx")
    if exported.is_file():
        return f"what the pitch model was trained to, not what can be exported. Give {exported}, which was made of it."
    return (
        "what the pitch model was trained to, not what can be exported. Make an .onnx file of it: "
        f"`python -m training.export_pitch --weights {path} --out {exported}`."
    )


def longer_side(size: object) -> int | None:
    """The longer side of Ultralytics' imgsz, which is a number or a pair; None where it is neither."""
    sides = size if isinstance(size, list | tuple) else [size]
    numbers = [side for side in sides if isinstance(side, int) and side > 0]
    return max(numbers, default=None)


def check_archive(path: Path) -> None:
    """WeightsError if a checkpoint's checksums say that it was damaged, which torch does not look at."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        damaged = str(error)
    if damaged:
        raise WeightsError(f"{path}: the file is damaged ({damaged}). Copy or download it again.")


def check_finite(path: Path, weights: Iterable[tuple[str, npt.NDArray[Any]]]) -> None:
    """WeightsError if a weight is no number, as after a training that diverged."""
    for name, values in weights:
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise WeightsError(
                f"{path}: its weight {name} is not finite: the training diverged, or the file is damaged. "
                "Give another checkpoint of it."
            )


def load_onnx(path: Path, role: str, class_names: Mapping[str, str]) -> Weights:
    """Read an .onnx file: one that Ultralytics exported, or one that this exporter wrote."""
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError(f"{path}: .onnx weights need onnx, see `make .venv-export/.ready`.") from error
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:
        raise not_valid(path, error) from error
    check_finite(path, ((tensor.name, onnx.numpy_helper.to_array(tensor)) for tensor in model.graph.initializer))
    outputs = [value.name for value in model.graph.output]
    if [value.name for value in model.graph.input] == [INPUT] and outputs in ([DETECTIONS], [KEYPOINTS]):
        task: Task = "pose" if outputs == [KEYPOINTS] else "detect"
        size = contract_size(path, model)
        check_types(path, model)
        return Weights(path, digest(path), task, "exported", model, fixed_size=size)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    if not {"task", "names"} <= notes.keys():
        raise WeightsError(
            f"{path}: neither exported by Touchline nor by Ultralytics (no task and names in its metadata). "
            f"{EXPORT_AGAIN}"
        )
    if notes["task"] not in ("detect", "pose"):
        raise WeightsError(
            f"{path}: a {notes['task']} model. Touchline serves detect models and, for the pitch, pose models."
        )
    if ast.literal_eval(notes.get("args", "{}")).get("nms"):
        raise WeightsError(
            f"{path}: exported with nms=True, which Touchline does itself. Export it again with nms=False."
        )
    shape = tuple(ast.literal_eval(notes["kpt_shape"])) if notes["task"] == "pose" else None
    names = ast.literal_eval(notes["names"])
    values = 0 if shape is None else shape[0] * shape[1]
    asked = ast.literal_eval(notes.get("imgsz", "None"))
    fixed = check_input(path, model)
    check_types(path, model)
    weights = described(
        path=path,
        task="pose" if shape else "detect",
        form=layout(path, model, classes=len(names), values=values, size=asked, head=notes.get("head", "")),
        model=model,
        names=names,
        keypoints=shape,
        role=role,
        class_names=class_names,
    )
    stride = max(STRIDE, int(float(notes.get("stride", STRIDE))))
    return replace(weights, fixed_size=fixed, trained_at=longer_side(asked), stride=stride)


def not_valid(path: Path, error: Exception) -> WeightsError:
    """What to say of a file that onnx does not take."""
    from export.onnx_file import one_line

    return WeightsError(f"{path}: not a valid ONNX file ({one_line(error)}). {EXPORT_AGAIN}")


def check_types(path: Path, model: Any) -> None:
    """WeightsError, which names the layer, where types or shapes of a file do not fit together."""
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise not_valid(path, error) from error


def check_input(path: Path, model: Any) -> tuple[int, int] | None:
    """H, W that a file of Ultralytics is made for, None for any; WeightsError where its input cannot be used."""
    kind = model.graph.input[0].type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    if kind.elem_type != FLOAT:
        raise WeightsError(f"{path}: its input is not FP32. Export it again with half=False, int8=False.")
    if dims[0]:
        raise WeightsError(
            f"{path}: its batch is fixed to {dims[0]}. Export it again with `dynamic=True`, or give the .pt."
        )
    return (dims[2], dims[3]) if len(dims) == 4 and dims[2] and dims[3] else None


def contract_size(path: Path, model: Any) -> tuple[int, int]:
    """H, W of a contract model's input; WeightsError if its input is not the contract's."""
    kind = model.graph.input[0].type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    if kind.elem_type != UINT8 or len(dims) != 4 or dims[0] or not all(dims[1:]) or dims[3] != 3:
        raise WeightsError(
            f"{path}: its input {INPUT} is not UINT8 [N, H, W, 3] with N free and the others fixed. {EXPORT_AGAIN}"
        )
    return dims[1], dims[2]


def layout(
    path: Path, model: Any, *, classes: int, values: int, size: object, head: str = ""
) -> Literal["rows", "listed"]:
    """How a file of Ultralytics answers: with a column an anchor ("rows") or a row a box ("listed").

    `values` are the numbers of a pose beside its box. What the file does not say of its shape a run with an empty
    picture does. WeightsError for any other answer, such as RT-DETR's, whose boxes are no pixels.
    """
    columns = 4 + classes + values
    dims = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    if not head.startswith("RTDETR") and len(dims) == 3:
        if dims[1] == columns:
            return "rows"
        answer = answered(path, model, size)
        dims = list(answer.shape)
        if len(dims) == 3 and dims[1] == columns:
            return "rows"
        if len(dims) == 3 and dims[2] == 6 + values and np.abs(answer[..., :4]).max(initial=0) > LARGEST_SHARE:
            return "listed"
    raise WeightsError(
        f"{path}: answers with {head or 'boxes'} {dims}, where {FAMILIES} answer with [N, {columns}, anchors] or "
        f"[N, boxes, {6 + values}] for {classes} class{'es' if classes != 1 else ''}, in pixels. "
        "RT-DETR and others are not served."
    )


def answered(path: Path, model: Any, size: object) -> npt.NDArray[Any]:
    """A file's answer to one empty picture of `size` (H, W); WeightsError where ONNX Runtime cannot give it."""
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    asked = size if isinstance(size, list | tuple) and len(size) == 2 else DEFAULT_SIZE
    shape = [1, 3, *(fixed or wanted for fixed, wanted in zip(dims[2:], asked, strict=False))]
    from export.parity import session

    try:
        run = session(model)
        return np.asarray(run.run(None, {run.get_inputs()[0].name: np.zeros(shape, np.float32)})[0])
    except MissingPackageError:
        raise
    except Exception as error:  # ONNX Runtime has many kinds
        from export.onnx_file import one_line

        raise WeightsError(f"{path}: ONNX Runtime cannot run it ({one_line(error)}). {EXPORT_AGAIN}") from error


def described(
    *,
    path: Path,
    task: Task,
    form: Literal["torch", "rows", "listed"],
    model: Any,
    names: Mapping[int, str],
    keypoints: tuple[int, ...] | None,
    role: str,
    class_names: Mapping[str, str],
) -> Weights:
    """Weights with their classes mapped, or their keypoints checked, for the role."""
    if task == "pose":
        if keypoints is None or keypoints[0] != KEYPOINT_COUNT or keypoints[1] not in (2, 3):
            found = "an unknown number of" if keypoints is None else keypoints[0]
            raise WeightsError(
                f"{path}: a pose model with {found} keypoints. The pitch has {KEYPOINT_COUNT}: "
                f"train with kpt_shape: [{KEYPOINT_COUNT}, 3] in the order of the subnet."
            )
        return Weights(path, digest(path), task, form, model, (0,) * len(names), keypoint_dims=keypoints[1])
    ordered = [names[index] for index in sorted(names)]
    if role == ANY:
        own = tuple(range(len(ordered)))
        return Weights(path, digest(path), task, form, model, own, names=tuple(ordered))
    if role == BALL_MODEL:
        # What is said of the player's classes need not be there.
        known = {name.strip().lower() for name in ordered}
        class_names = {name: label for name, label in class_names.items() if name.strip().lower() in known}
    class_map = map_classes(ordered, class_names)
    if role == BALL_MODEL:
        class_map = (BALL,) if len(ordered) == 1 else tuple(label if label == BALL else IGNORED for label in class_map)
    wanted = (CLASS_NAMES[BALL],) if role == BALL_MODEL else PEOPLE
    if not {CLASS_NAMES.index(name) for name in wanted} & set(class_map):
        shown = ", ".join(ordered[:8]) + (", ..." if len(ordered) > 8 else "")
        unknown = next((name for name, label in zip(ordered, class_map, strict=True) if label == IGNORED), ordered[0])
        raise WeightsError(
            f"{path}: none of its classes ({shown}) is one of {', '.join(wanted)}. "
            f"Say which is which: --map-class '{unknown}={'ball' if role == BALL_MODEL else 'player'}'."
        )
    ignored = tuple(name for name, label in zip(ordered, class_map, strict=True) if label == IGNORED)
    return Weights(path, digest(path), task, form, model, class_map, ignored, names=tuple(ordered))


def class_table(weights: Weights) -> str:
    """Which classes of the weights became which of the contract, for the operator to look over."""
    found: dict[str, list[str]] = {}
    for name, label in zip(weights.names, weights.class_map, strict=False):
        found.setdefault(NONE if label == IGNORED else CLASS_NAMES[label], []).append(name)
    order = [name for name in (*CLASS_NAMES, NONE) if name in found]
    return "; ".join(
        f"{name}: {', '.join(found[name][:8])}{f' and {len(found[name]) - 8} more' if len(found[name]) > 8 else ''}"
        for name in order
    )


def digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def quiet_ultralytics() -> Iterator[None]:
    """Import and use Ultralytics without its settings file in the home directory, its downloads and its talk."""
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    if "YOLO_CONFIG_DIR" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="touchline-") as folder:
        os.environ["YOLO_CONFIG_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["YOLO_CONFIG_DIR"]
