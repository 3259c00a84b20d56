"""The same pictures under the same numbers as cv2 reads, which is what a validator reads with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
import pytest

from gateway.video.decode import Decoder
from gateway.video.growing_file import GrowingFile
from tests.support.videos import make_video, read_number

CASES: Final = Path(__file__).parents[2] / "cases"
STRIDES: Final = (1, 2, 3, 5, 10)
FRAMES: Final = 48
FRAGMENTED: Final = {"movflags": "frag_keyframe+empty_moov"}


def as_decoded(packet: av.Packet) -> None:
    """As who copies a bare stream into a container writes it: the time of presentation is that of decoding."""
    if packet.dts is not None:
        packet.pts = packet.dts


def trimmed(path: Path, frames: int) -> Path:
    """As an editor writes it who cuts the end off: the edit list hides the last eleven frames, between others."""
    data = bytearray(make_video(path, frames).read_bytes())
    at = data.index(b"elst") + 12
    data[at : at + 4] = (40 * (frames - 11)).to_bytes(4, "big")  # ms
    path.write_bytes(data)
    return path


def _x264(bf: int = 2, **parameters: object) -> dict[str, str]:
    settings = ":".join(f"{name.replace('_', '-')}={value}" for name, value in parameters.items())
    return {"bf": str(bf), "preset": "veryfast", **({"x264-params": settings} if settings else {})}


MADE: Final[dict[str, Callable[[Path, int], Path]]] = {
    **{f"bf {bf}.mp4": partial(make_video, encoding=_x264(bf)) for bf in range(4)},
    "pyramid.mp4": partial(make_video, encoding=_x264(5, b_pyramid="normal", b_adapt=0)),
    "open gop.mp4": partial(make_video, encoding=_x264(2, open_gop=1, keyint=12)),
    "intra refresh.mp4": partial(make_video, encoding=_x264(0, intra_refresh=1, keyint=12)),
    "interlaced.mp4": partial(make_video, encoding=_x264(2, interlaced=1), height=192),
    "slices.mp4": partial(make_video, encoding=_x264(2, slices=4)),
    "no reordering told.mkv": partial(make_video, encoding=_x264(2)),
    "index at the end.mp4": partial(make_video, muxing={}),
    "fragmented.mp4": partial(make_video, muxing=FRAGMENTED),
    "of apple.mov": make_video,
    "h264.ts": make_video,
    "h264.avi": make_video,
    "h264.flv": make_video,
    "h264.mkv": make_video,
    "bare.h264": make_video,
    "variable.mp4": partial(make_video, times=lambda number: number + number // 7 + 3 * (number // 20)),
    "variable.mkv": partial(make_video, times=lambda number: number + number // 7),
    "edit list.mp4": partial(
        make_video, times=lambda number: number - 11, muxing={"avoid_negative_ts": "disabled", "use_editlist": "1"}
    ),
    "trimmed.mp4": trimmed,
    "pts as dts.mp4": partial(make_video, rewrite=as_decoded),
    "pts as dts.mkv": partial(make_video, rewrite=as_decoded),
    "hevc.mp4": partial(make_video, codec="libx265"),
    "hevc.ts": partial(make_video, codec="libx265"),
    "bare.hevc": partial(make_video, codec="libx265"),
    "vp9.webm": partial(make_video, codec="libvpx-vp9"),
    "av1.mp4": partial(make_video, codec="libsvtav1"),
    "av1.mkv": partial(make_video, codec="libsvtav1"),
    "mpeg4.avi": partial(make_video, codec="mpeg4"),
    "mpeg4.mp4": partial(make_video, codec="mpeg4"),
    "mpeg2.mpg": partial(make_video, codec="mpeg2video"),
    "mpeg2.ts": partial(make_video, codec="mpeg2video"),
    "mpeg2.mxf": partial(make_video, codec="mpeg2video"),
}


NO_PICTURES: Final = ("interlaced", "paff", "av1")
"""cv2's wheel has no decoder of AV1, and of interlaced frames it returns other pictures than were decoded."""


def cv2_numbers(path: Path) -> list[int]:
    """The number that each picture shows, in the order in which cv2 reads them."""
    capture, numbers = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        numbers.append(read_number(read[1]))
    if "av1" in path.name:
        return list(range(FRAMES))
    return list(range(len(numbers))) if any(name in path.name for name in NO_PICTURES) else numbers


def sampled(path: Path, stride: int) -> tuple[int, dict[int, np.ndarray]]:
    """How many frames the decoder counts, and by number those it gives."""
    pictures: dict[int, np.ndarray] = {}
    with GrowingFile() as file:
        file.append(path.read_bytes())
        file.finish()
        with Decoder(file, size=(160, 96), frame_stride=stride, pitch_stride=stride, max_frames=10_000) as decoder:
            decoder.open()
            last = False
            while not last:
                slot = np.zeros((16, 96, 160, 3), np.uint8)
                filled = decoder.fill(slot)
                pictures |= dict(zip(filled.frame_numbers, slot, strict=False))
                last = filled.last
            return decoder.frame_count, pictures


@pytest.mark.parametrize("name", MADE)
def test_numbers_are_those_of_cv2(name: str, tmp_path: Path) -> None:
    path = MADE[name](tmp_path / name, FRAMES)
    expected = cv2_numbers(path)
    assert len(expected) >= FRAMES // 2
    for stride in STRIDES:
        count, pictures = sampled(path, stride)
        assert count == len(expected), stride
        assert set(pictures) == {*range(0, count, stride), count - 1}, stride
        assert {number: read_number(picture) for number, picture in pictures.items()} == {
            number: expected[number] for number in pictures
        }, stride


@pytest.mark.parametrize("path", sorted(CASES.iterdir()), ids=lambda path: path.name)
def test_the_cases_have_at_least_cv2s_frames(path: Path) -> None:
    if not (expected := cv2_numbers(path)):
        pytest.skip("cv2 reads no frame of it")
    counts = set()
    for stride in STRIDES:
        count, pictures = sampled(path, stride)
        counts.add(count)
        if "damaged" not in path.name and "cover" not in path.name:
            assert count == len(expected)
            for number, picture in pictures.items():
                assert read_number(picture) == expected[number], (stride, number)
    assert len(counts) == 1, counts
    assert counts.pop() >= len(expected)


def test_interlaced_fields_in_a_packet_each_make_one_frame() -> None:
    count, pictures = sampled(CASES / "27_paff_one_field_a_sample.mp4", 1)
    assert count == 22
    assert [read_number(pictures[number]) for number in range(count)] == list(range(count))
