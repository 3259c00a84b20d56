"""Checks of the weights that the export will take, by what is in the files; none of them is loaded."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Final

from gateway.doctor.finding import Finding, bad, good, warning

ROLES: Final = ("player", "pitch", "ball")
_LARGEST_PICKLE: Final = 64 * 2**20


def weights(folder: Path) -> list[Finding]:
    """player, pitch and ball, as .pt or .onnx; what is not there is the bundled model."""
    about, found = "weights", list[Finding]()
    for role in ROLES:
        file = next((file for suffix in ("pt", "onnx") if (file := folder / f"{role}.{suffix}").is_file()), None)
        if file is not None:
            found.append(one(file, role))
    others = sorted(file.name for file in folder.glob("*.*") if file.suffix in (".pt", ".onnx", ".engine", ".plan"))
    unused = [name for name in others if name.partition(".")[0] not in ROLES]
    if unused:
        found.append(
            warning(
                about,
                f"{', '.join(unused)} in {folder}: not used",
                "rename to player.pt, pitch.pt, ball.pt",
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
        return bad(about, f"is {what}", "download the file itself")
    size = f"{file.stat().st_size / 2**20:.1f} MiB"
    kind = "ONNX" if file.suffix == ".onnx" else torch_model(file)
    if kind is None:
        return bad(about, "is no PyTorch checkpoint", "give the best.pt of an Ultralytics training, or an .onnx")
    pose = kind == "PoseModel"
    if kind in ("PoseModel", "DetectionModel") and pose is not (role == "pitch"):
        wanted = "a pose model (keypoints)" if role == "pitch" else "a detection model"
        return bad(about, f"is a {kind}, and {role} wants {wanted}", "have the files changed places?")
    return good(about, f"{kind or 'PyTorch checkpoint'}, {size}")


def _no_weights(start: bytes) -> str | None:
    """What a download that went wrong left in place of the file."""
    if not start:
        return "empty"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    return "a web page or JSON" if start.lstrip().startswith((b"<", b"{")) else None


def torch_model(file: Path) -> str | None:
    """The model class that a checkpoint's pickle names; empty for none known, None where it is no checkpoint."""
    try:
        with zipfile.ZipFile(file) as archive:
            inside = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            if inside is None or archive.getinfo(inside).file_size > _LARGEST_PICKLE:
                return None
            names = [str(value) for code, value, _ in pickletools.genops(archive.read(inside)) if code.name == "GLOBAL"]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return None
    models = [name.split()[-1] for name in names if name.startswith("ultralytics.nn.tasks ")]
    return models[0] if models else ""
