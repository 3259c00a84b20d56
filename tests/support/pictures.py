"""Pictures that something wrote, and pictures to send."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np


def read_picture(path: Path) -> np.ndarray:
    """uint8 BGR [H, W, 3]."""
    picture = cv2.imread(str(path))
    assert picture is not None, f"{path} is no picture"
    return np.asarray(picture)


def picture(brightness: int, size: tuple[int, int] = (320, 180), kind: str = ".png") -> str:
    """Base64 of a grey picture of `size` (width, height)."""
    return encoded(np.full((size[1], size[0], 3), brightness, np.uint8), kind)


def encoded(pixels: np.ndarray, kind: str = ".png") -> str:
    return base64.b64encode(cv2.imencode(kind, pixels)[1].tobytes()).decode()


def png_of(width: int, height: int) -> bytes:
    """A whole PNG of black pixels, a thousandth of its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
