"""Checks of the weights that the export will take, by what is in the files; none of them is loaded."""

from __future__ import annotations

import codecs
import re
import zipfile
import zlib
from pathlib import Path
from typing import Final

from gateway.doctor.finding import Finding, bad, good, warning

ROLES: Final = ("player", "pitch", "ball")
SUFFIXES: Final = (".pt", ".onnx", ".engine", ".plan", ".pth", ".safetensors", ".zip")
"""What weights are called by those who bring them; the export takes the first two."""
NOT_SERVED: Final = ("Classification", "Segmentation", "OBB", "RTDETR", "Seg", "Semantic")
"""How the names of Ultralytics' model classes begin or go on that the exporter refuses."""
_LARGEST_PICKLE: Final = 64 * 2**20
_MODEL_CLASS: Final = re.compile(rb"ultralytics\.nn\.tasks\W{1,8}?(\w+Model)")
_ONNX_VERSION_FIELD: Final = b"\x08"
"""ONNX files begin with their ir_version, the first field of a ModelProto."""


def weights(folder: Path) -> list[Finding]:
    """player, pitch and ball, as .pt or .onnx; what is not there is the bundled model."""
    about, found, taken = "weights", list[Finding](), set[str]()
    for role in ROLES:
        for file in (folder / f"{role}.pt", folder / f"{role}.onnx"):
            if not (file.is_symlink() or file.exists()):
                continue
            taken.add(file.name)
            if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
                remedy = "put the file itself there: the container sees this folder and nothing that a link leads to"
                found.append(bad(f"weights {file.name}", "is a folder, or a link out of this one", remedy))
            else:
                found.append(one(file, role))
            break
    files = folder.glob("*.*") if folder.is_dir() else ()
    unused = sorted(file.name for file in files if file.suffix.lower() in SUFFIXES and file.name not in taken)
    if unused:
        found.append(
            warning(
                about,
                f"{', '.join(unused)} in {folder}: not used",
                "player.pt, pitch.pt and ball.pt are, or .onnx where there is no .pt; engines are built here of those",
            )
        )
    return found or [good(about, f"none in {folder}: the bundled models; own ones go there as player.pt and pitch.pt")]


def one(file: Path, role: str) -> Finding:
    """What one file is, and whether it fits its role."""
    about = f"weights {file.name}"
    try:
        with file.open("rb") as opened:
            start = opened.read(512)
    except OSError as error:
        return bad(about, (error.strerror or str(error)).lower(), "make it readable for this user")
    if (what := _no_weights(start)) is not None:
        return bad(about, f"is {what}", "give the .pt or .onnx file itself")
    size = f"{file.stat().st_size / 2**20:.1f} MiB"
    if file.suffix == ".onnx":
        if not start.startswith(_ONNX_VERSION_FIELD):
            return bad(about, "is no ONNX file", "give what `yolo export format=onnx dynamic=True` writes, or the .pt")
        return good(about, f"ONNX, {size}")
    return _checkpoint(about, file, role, size)


def _checkpoint(about: str, file: Path, role: str, size: str) -> Finding:
    """The same for a .pt file, by the class of its model."""
    kind = torch_model(file)
    if not kind:
        what = "is no PyTorch checkpoint" if kind is None else "holds no model of Ultralytics'"
        return bad(about, what, "give the best.pt of an Ultralytics training, or an .onnx")
    if any(word in kind for word in NOT_SERVED):
        return bad(about, f"is a {kind}", "give a detection model, for the pitch a pose model, of YOLOv8 or newer")
    if (kind == "PoseModel") is not (role == "pitch"):
        wanted = "a pose model (keypoints)" if role == "pitch" else "a detection model"
        return bad(about, f"is a {kind}, and {role} wants {wanted}", "have the files changed places?")
    return good(about, f"{kind}, {size}")


def _no_weights(start: bytes) -> str | None:
    """What a download that went wrong left in place of the file."""
    if not start:
        return "empty"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    if b"ftrt" in start[:8]:
        return "an engine of TensorRT, which runs on one kind of GPU and one release"
    return "a web page or JSON" if start.removeprefix(codecs.BOM_UTF8).lstrip().startswith((b"<", b"{")) else None


def torch_model(file: Path) -> str | None:
    """The model class that a checkpoint's pickle names; empty for none known, None where it is no checkpoint."""
    try:
        with zipfile.ZipFile(file) as archive:
            inside = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            if inside is None or archive.getinfo(inside).file_size > _LARGEST_PICKLE:
                return None
            found = _MODEL_CLASS.search(archive.read(inside))
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error):
        return None
    return found[1].decode() if found else ""
