"""The project's own decoder on a file that is there, by the CPU or NVDEC: numbers, pictures, seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.video.decode import Decoder
from gateway.video.growing_file import GrowingFile

SIZE = (1024, 576)
"""Width and height of the model input."""


@dataclass(slots=True)
class Decoded:
    """What came of one video."""

    numbers: list[int] = field(default_factory=list)
    pictures: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)
    """Every second pixel, uint8 [H / 2, W / 2, 3], by frame number; empty unless asked for."""
    frames: int = 0
    first_s: float = 0.0
    """To the first filled slot."""
    total_s: float = 0.0


def complete(video: Path) -> GrowingFile:
    """A file that has arrived whole."""
    file = GrowingFile()
    data = video.read_bytes()
    file.expect(len(data))
    file.append(data)
    file.finish()
    return file


def decode(video: Path, *, nvdec: bool, stride: int = 1, keep: bool = False, slot_frames: int = 32) -> Decoded:
    """Decode and scale as for a challenge. Raises BadVideo."""
    result = Decoded()
    slot = np.zeros((slot_frames, SIZE[1], SIZE[0], 3), np.uint8)
    began = time.perf_counter()
    with Decoder(
        complete(video), size=SIZE, frame_stride=stride, pitch_stride=stride, max_frames=20_000, nvdec=nvdec
    ) as decoder:
        decoder.open()
        last = False
        while not last:
            filled = decoder.fill(slot)
            result.first_s = result.first_s or time.perf_counter() - began
            result.numbers.extend(filled.frame_numbers)
            if keep:
                result.pictures |= {n: slot[i, ::2, ::2].copy() for i, n in enumerate(filled.frame_numbers)}
            last = filled.last
        result.frames = decoder.frame_count
    result.total_s = time.perf_counter() - began
    result.numbers.sort()
    return result
