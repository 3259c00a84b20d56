"""Frames to calibrate and to compare models with: pictures of a folder, or views of the synthetic match."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from export.errors import ExportError
from touchline.contract import Frame, Letterbox

COMPARED = 4
"""As many frames show what a precision does; a large network needs a second for each on a CPU."""


def pictures(directory: Path, flag: str) -> list[Path]:
    """The .jpg and .png files under a folder, sorted; ExportError, which names the `flag`, if there are none."""
    files = sorted(file for file in directory.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise ExportError(f"{flag} {directory}: there are no .jpg or .png images in it. Give another folder.")
    return files


def letterboxed(file: Path, size: tuple[int, int]) -> Frame:
    """A picture as a frame uint8 RGB [H, W, 3] of `size` (H, W), letterboxed as the gateway does it."""
    import cv2

    image = cv2.imread(str(file))
    if image is None:
        raise ExportError(f"{file}: not an image that can be read.")
    box = Letterbox(image.shape[1], image.shape[0], size[1], size[0])
    return box.placed(np.asarray(cv2.resize(image, box.content_size)[..., ::-1], np.uint8))


def calibration_frames(directory: Path, size: tuple[int, int]) -> Iterator[Frame]:
    """The pictures of a folder as batches of one, uint8 [1, H, W, 3]."""
    for file in pictures(directory, "--calibration"):
        yield letterboxed(file, size)[None]


def parity_frames(directory: Path | None, size: tuple[int, int], seed: int = 0) -> list[Frame]:
    """Some frames uint8 [H, W, 3] to compare two forms of a model on, the same ones every time.

    Pictures of the folder, evenly chosen, if there is one, else views of the synthetic match; none where that package
    is not installed.
    """
    if directory is not None:
        files = pictures(directory, "--parity-images")
        return [letterboxed(file, size) for file in files[:: max(1, len(files) // COMPARED)][:COMPARED]]
    try:
        from demo.views import random_view
    except ImportError:
        return []
    rng = np.random.default_rng(seed)
    return [random_view(rng, size)[0] for _ in range(COMPARED)]
