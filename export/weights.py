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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from export.errors import MissingPackageError, WeightsError
from touchline.contract import (
    BALL,
    BALL_MODEL,
    CLASS_NAMES,
    DETECTIONS,
    GOALKEEPER,
    INPUT,
    KEYPOINT_COUNT,
    KEYPOINTS,
    PITCH_MODEL,
    PLAYER,
    REFEREE,
)

IGNORED = -1
"""Stands in a class map for a class of the weights that the contract does not know."""

ALIASES: dict[str, int] = {
    "goalkeeper": GOALKEEPER, "goalkeepers": GOALKEEPER, "keeper": GOALKEEPER, "goalie": GOALKEEPER, "gk": GOALKEEPER,
    "referee": REFEREE, "referees": REFEREE, "ref": REFEREE, "linesman": REFEREE, "umpire": REFEREE,
    "player": PLAYER, "players": PLAYER, "person": PLAYER, "footballer": PLAYER,
    "ball": BALL, "football": BALL, "soccerball": BALL,
}  # fmt: skip
"""Words of a class name, most telling first: "goalkeeper team left" is a goalkeeper, "football player" a player."""

HUB_NAME = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[\w./-]+)$")

EXPORT_AGAIN = "Give the .pt file, or export it again with `yolo export format=onnx dynamic=True`."

Task = Literal["detect", "pose"]


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file that has been read.

    `form` is "torch" (`model` is an Ultralytics module), "rows" (`model` is an ONNX ModelProto with Ultralytics' raw
    output [N, C, A]), "listed" (the same with a finished [N, M, C]) or "exported" (an ONNX file that is a contract
    model already). `class_map[i]` is the contract's class of class i, IGNORED for none; `ignored` names those.
    `sha256` is that of the file.
    """

    path: Path
    sha256: str
    task: Task
    form: Literal["torch", "rows", "listed", "exported"]
    model: Any
    class_map: tuple[int, ...] = ()
    ignored: tuple[str, ...] = ()
    keypoint_dims: int = 3


def load(source: str | os.PathLike[str], role: str, class_names: Mapping[str, str] | None = None) -> Weights:
    """Read weights for a role (player, pitch or ball): a .pt or .onnx file, or a hub name `owner/name:file`.

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
            model, _ = read(path)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise WeightsError(
                f"{path}: not a checkpoint that Ultralytics can load ({reason}). "
                "Give the best.pt that its training wrote, or an .onnx file."
            ) from error
    task = getattr(model, "task", None)
    if task not in ("detect", "pose"):
        raise WeightsError(f"{path}: a {task} model. Touchline serves detect models and, for the pitch, pose models.")
    head = model.model[-1] if hasattr(model, "model") else model
    if not hasattr(head, "end2end") or not hasattr(head, "cv2"):
        raise WeightsError(f"{path}: its head {type(head).__name__} is none of YOLOv8, v10, 11 and 26.")
    check_finite(path, ((name, value.numpy()) for name, value in model.state_dict().items()))
    names = dict(model.names) if isinstance(model.names, Mapping) else dict(enumerate(model.names))
    if len(names) != head.nc:
        raise WeightsError(
            f"{path}: it has {head.nc} classes and names for {len(names)} of them. Give the best.pt that its training "
            "wrote."
        )
    shape = tuple(head.kpt_shape) if task == "pose" else None
    return described(
        path=path,
        task=task,
        form="torch",
        model=model,
        names=names,
        keypoints=shape,
        role=role,
        class_names=class_names,
    )


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
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"{path}: not a valid ONNX file ({reason}). {EXPORT_AGAIN}") from error
    check_finite(path, ((tensor.name, onnx.numpy_helper.to_array(tensor)) for tensor in model.graph.initializer))
    outputs = [value.name for value in model.graph.output]
    if [value.name for value in model.graph.input] == [INPUT] and outputs in ([DETECTIONS], [KEYPOINTS]):
        task: Task = "pose" if outputs == [KEYPOINTS] else "detect"
        return Weights(path, digest(path), task, "exported", model)
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
    dims = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    values = 0 if shape is None else shape[0] * shape[1]
    listed = dims[-1] == 6 + values and dims[1] != 4 + len(names) + values
    form: Literal["rows", "listed"] = "listed" if listed else "rows"
    return described(
        path=path,
        task="pose" if shape else "detect",
        form=form,
        model=model,
        names=names,
        keypoints=shape,
        role=role,
        class_names=class_names,
    )


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
    if role == BALL_MODEL:
        # What is said of the player's classes need not be there.
        known = {name.strip().lower() for name in ordered}
        class_names = {name: label for name, label in class_names.items() if name.strip().lower() in known}
    class_map = map_classes(ordered, class_names)
    if role == BALL_MODEL:
        class_map = (BALL,) if len(ordered) == 1 else tuple(label if label == BALL else IGNORED for label in class_map)
    if set(class_map) == {IGNORED}:
        shown = ", ".join(ordered[:8]) + (", ..." if len(ordered) > 8 else "")
        raise WeightsError(
            f"{path}: none of its classes ({shown}) is one of {', '.join(CLASS_NAMES)}. "
            f"Say which is which: --map-class '{ordered[0]}=player'."
        )
    ignored = tuple(name for name, label in zip(ordered, class_map, strict=True) if label == IGNORED)
    return Weights(path, digest(path), task, form, model, class_map, ignored)


def map_classes(names: list[str], class_names: Mapping[str, str] | None = None) -> tuple[int, ...]:
    """The contract's class of each class name, IGNORED for none: what `class_names` says, else by its words.

    WeightsError for an entry of `class_names` that names a class which neither side has.
    """
    explicit = {name.strip().lower(): label.strip().lower() for name, label in (class_names or {}).items()}
    known = {name.strip().lower() for name in names}
    for name, label in explicit.items():
        if name not in known:
            raise WeightsError(f"there is no class '{name}' in these weights: they have {', '.join(names)}.")
        if label not in CLASS_NAMES:
            raise WeightsError(f"'{label}' is no class of the contract: those are {', '.join(CLASS_NAMES)}.")

    def label_of(name: str) -> int:
        name = name.strip().lower()
        if name in explicit:
            return CLASS_NAMES.index(explicit[name])
        words = set(re.split(r"[^a-z]+", name))
        return next((label for alias, label in ALIASES.items() if alias in words), IGNORED)

    return tuple(label_of(name) for name in names)


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
