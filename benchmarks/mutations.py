"""Damaged videos of 16 formats: what the gateway's decoder makes of them, and whether cv2 reads more frames."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import decoder, parser, report
from gateway.errors import BadVideo
from local.progress import progress_bar

FRAMES: Final = 50
_WIDTH, _HEIGHT = 176, 144
"""A size that H.263 has."""
_INDEX_FIRST: Final = {"movflags": "faststart"}
_FRAGMENTED: Final = {"movflags": "frag_keyframe+empty_moov"}
FORMATS: Final[dict[str, tuple[str, dict[str, str], dict[str, str]]]] = {
    "h264.mp4": ("libx264", {"preset": "ultrafast", "bf": "2"}, _INDEX_FIRST),
    "h264_fragmented.mp4": ("libx264", {"preset": "ultrafast", "bf": "2"}, _FRAGMENTED),
    "h264.mkv": ("libx264", {"preset": "ultrafast", "bf": "2"}, {}),
    "h264.ts": ("libx264", {"preset": "ultrafast", "bf": "2"}, {}),
    "h264.flv": ("libx264", {"preset": "ultrafast", "bf": "2"}, {}),
    "bare.h264": ("libx264", {"preset": "ultrafast", "bf": "2"}, {}),
    "hevc.mp4": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}, {}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, {}),
    "vp8.mkv": ("libvpx", {"deadline": "realtime", "cpu-used": "8"}, {}),
    "mpeg4.avi": ("mpeg4", {"bf": "2"}, {}),
    "mpeg2.mpg": ("mpeg2video", {"bf": "2"}, {}),
    "mpeg2.mxf": ("mpeg2video", {"bf": "2"}, {}),
    "h263.3gp": ("h263", {}, _INDEX_FIRST),
    "mjpeg.mov": ("mjpeg", {"strict": "unofficial"}, {}),
    "wmv2.asf": ("wmv2", {}, {}),
    "frames.gif": ("gif", {}, {}),
}
"""Encoder, its options and the container's. AV1 is missing because cv2's wheel has no decoder of it."""
_LAYOUTS: Final = {"gif": "rgb8", "mjpeg": "yuvj420p"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one damaged file."""

    name: str
    seed: int
    frames: int
    """Counted at stride 1; 0 where the file was refused."""
    at_stride: int
    """The same at stride 3."""
    by_cv2: int
    said: str
    """Why it was refused."""
    seconds: float


def main() -> None:
    """Mutate, decode, and tell where cv2 reads more, where the stride matters and what raised."""
    arguments_of = parser(__doc__, runs=1)
    arguments_of.add_argument("--count", type=int, default=5000, help="damaged files")
    arguments_of.add_argument("--seed", type=int, default=0)
    arguments = arguments_of.parse_args()
    console = Console()
    outcomes: list[Outcome] = []
    with progress_bar(console, "damaged videos") as advance:
        for outcome in run(arguments.count, arguments.seed):
            outcomes.append(outcome)
            advance(len(outcomes), arguments.count)
    table = Table("", "files", "refused", "fewer than cv2", "depends on the stride", "slowest, s", title="Mutations")
    numbers = {}
    for name in FORMATS:
        of = [outcome for outcome in outcomes if outcome.name == name]
        fewer = [outcome for outcome in of if outcome.frames < outcome.by_cv2]
        uneven = [outcome for outcome in of if outcome.frames != outcome.at_stride]
        numbers[name] = {
            "files": len(of),
            "refused": sum(not outcome.frames for outcome in of),
            "fewer": [(outcome.seed, outcome.frames, outcome.by_cv2) for outcome in fewer],
            "uneven": [(outcome.seed, outcome.frames, outcome.at_stride) for outcome in uneven],
            "slowest_s": max((outcome.seconds for outcome in of), default=0.0),
        }
        row = numbers[name]
        table.add_row(
            name, f"{len(of)}", f"{row['refused']}", f"{len(fewer)}", f"{len(uneven)}", f"{row['slowest_s']:.2f}"
        )
    said = Counter(outcome.said for outcome in outcomes if outcome.said)
    notes = [f"{count} times: {text}" for text, count in said.most_common(12)]
    report(console, table, notes, numbers, arguments)


def run(count: int, seed: int) -> Iterator[Outcome]:
    """`count` damaged files, the formats in turn, number n with seed `seed` + n. An error that is not told raises."""
    av.logging.set_level(None)
    with tempfile.TemporaryDirectory(prefix="touchline-") as scratch:
        wholes = {name: _made(Path(scratch) / name, *how) for name, how in FORMATS.items()}
        for index in range(count):
            name = list(FORMATS)[index % len(FORMATS)]
            path = Path(scratch) / f"damaged_{name}"
            path.write_bytes(mutated(wholes[name], random.Random(seed + index)))  # noqa: S311  no secret
            began = time.perf_counter()
            frames, said = _counted(path, 1)
            seconds = time.perf_counter() - began
            yield Outcome(name, seed + index, frames, _counted(path, 3)[0], by_cv2(path), said, seconds)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """`data` with bytes changed, a piece overwritten, lost, repeated or put in, or its end cut off."""
    damaged = bytearray(data)
    at = chance.randrange(len(data))
    length = min(chance.choice((1, 4, 40, 400)), len(data) - at)
    kind = chance.randrange(6)
    if kind == 0:
        for _ in range(chance.choice((1, 5, 50))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    elif kind == 1:
        damaged[at : at + length] = bytes(length)
    elif kind == 2:
        damaged[at : at + length] = chance.randbytes(length)
    elif kind == 3:
        del damaged[at : at + length]
    elif kind == 4:
        damaged[at:at] = damaged[at : at + length]
    else:
        del damaged[at:]
    return bytes(damaged)


def by_cv2(path: Path) -> int:
    """Frames that cv2 reads."""
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.grab():
        count += 1
    capture.release()
    return count


def _counted(path: Path, stride: int) -> tuple[int, str]:
    slot = np.empty((16, 96, 160, 3), np.uint8)
    with decoder(path, stride, (96, 160)) as decoding:
        try:
            decoding.open()
            while not decoding.fill(slot).last:
                pass
        except BadVideo as error:
            return 0, str(error)
        return decoding.frame_count, ""


def _made(path: Path, encoder: str, encoding: dict[str, str], muxing: dict[str, str]) -> bytes:
    pictures = np.random.default_rng(0)
    still = pictures.integers(0, 255, (_HEIGHT // 8, _WIDTH // 8, 3), np.uint8)
    with av.open(str(path), "w", options=muxing) as container:
        stream = container.add_stream(encoder, rate=25, options={"g": "12", **encoding})
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, _LAYOUTS.get(encoder, "yuv420p")
        for number in range(FRAMES):
            image = np.kron(np.roll(still, number, axis=1), np.ones((8, 8, 1), np.uint8))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


if __name__ == "__main__":
    main()
