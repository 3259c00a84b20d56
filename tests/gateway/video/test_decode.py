"""Real H.264 in, numbered frames in slots out."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from gateway.errors import BadVideo, DownloadFailed, StartupError
from gateway.video import codec
from gateway.video import decode as decode_module
from gateway.video.decode import Decoder, DecodingStopped
from gateway.video.growing_file import GrowingFile
from tests.support.videos import make_video, read_number
from touchline.contract import LETTERBOX_GREY, Letterbox
from touchline.video_read import packets

CASES = Path(__file__).parents[2] / "cases"


def decoder(file: GrowingFile, **values: Any) -> Decoder:
    defaults: dict[str, Any] = {"size": (160, 96), "frame_stride": 2, "pitch_stride": 6, "max_frames": 1000}
    return Decoder(file, **(defaults | values))


def whole_file(path: Path) -> GrowingFile:
    file = GrowingFile()
    file.append(path.read_bytes())
    file.finish()
    return file


def decode_all(path: Path, batch: int, **values: Any) -> list[tuple[list[int], int, list[int]]]:
    """(frame numbers, pitch count, numbers read from the pictures) of every slot."""
    slots = []
    with whole_file(path) as file, decoder(file, **values) as decoding:
        decoding.open()
        last = False
        while not last:
            slot = np.full((batch, 96, 160, 3), 7, np.uint8)
            filled = decoding.fill(slot)
            seen = [read_number(slot[index]) for index in range(len(filled.frame_numbers))]
            slots.append((list(filled.frame_numbers), filled.pitch_count, seen))
            last = filled.last
    return slots


@pytest.mark.parametrize("faststart", [True, False])
@pytest.mark.parametrize(("stride", "pitch_stride", "batch"), [(1, 1, 8), (2, 6, 8), (2, 10, 5), (3, 9, 4), (5, 5, 32)])
def test_each_picture_has_its_number(
    stride: int, pitch_stride: int, batch: int, faststart: bool, tmp_path: Path
) -> None:
    frames = 50
    slots = decode_all(
        make_video(tmp_path / "v.mp4", frames, faststart=faststart),
        batch,
        frame_stride=stride,
        pitch_stride=pitch_stride,
    )
    numbers = sorted(number for slot, _, _ in slots for number in slot)
    assert numbers == sorted({*range(0, frames, stride), frames - 1})
    for slot, pitch_count, seen in slots:
        assert seen == slot
        assert [number % pitch_stride == 0 or number == frames - 1 for number in slot] == [
            index < pitch_count for index in range(len(slot))
        ]


@pytest.mark.parametrize("fps", [25, Fraction(30000, 1001)])
@pytest.mark.parametrize(
    ("encoder", "container"),
    [("libx264", "mp4"), ("libx264", "mkv"), ("libx265", "mp4"), ("mpeg4", "mp4"), ("libvpx-vp9", "webm")],
)
def test_each_picture_has_its_number_in_other_formats_too(
    encoder: str, container: str, fps: Fraction | int, tmp_path: Path
) -> None:
    video = make_video(tmp_path / f"v.{container}", 60, codec=encoder, fps=fps)
    for slot, _, seen in decode_all(video, 8, frame_stride=3):
        assert seen == slot
        assert all(number % 3 == 0 or number == 59 for number in slot)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_no_frame_needs_is_not_decoded(threads: int, tmp_path: Path) -> None:
    with av.open(str(make_video(tmp_path / "v.mp4", 100))) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        frames = list(codec.decode(packets(container, stream), stream, None, lambda number: number % 4 == 0))
    seen = [None if frame is None else read_number(frame.to_ndarray(format="rgb24")) for frame in frames]
    assert [number for number in seen if number is not None] == [n for n, frame in enumerate(frames) if frame]
    assert len(frames) == 100
    assert None not in seen[::4]
    # One of three frames is a B-frame that nothing is predicted from, and three of four of those are not wanted.
    assert seen.count(None) >= 20


def test_the_frame_lies_letterboxed_in_the_input(tmp_path: Path) -> None:
    with whole_file(make_video(tmp_path / "v.mp4", 3, width=320, height=180)) as file, decoder(file) as decoding:
        info = decoding.open()
        assert (info.letterbox, info.fps, info.frames) == (Letterbox(320, 180, 160, 96), 25, 3)
        slot = np.zeros((4, 96, 160, 3), np.uint8)
        decoding.fill(slot)
    assert (slot[0, :3] == LETTERBOX_GREY).all()
    assert (slot[0, 93:] == LETTERBOX_GREY).all()
    assert slot[0, 3:93].max() < 40


def test_reading_goes_along_with_the_download(tmp_path: Path) -> None:
    data = make_video(tmp_path / "v.mp4", 200).read_bytes()
    with GrowingFile() as file, decoder(file) as decoding:
        file.expect(len(data))
        file.append(data[: len(data) // 2])
        decoding.open()
        slot = np.zeros((8, 96, 160, 3), np.uint8)
        filled = decoding.fill(slot)
        assert len(filled.frame_numbers) == 8
        assert file.written < len(data)


def test_a_damaged_packet_costs_frames_not_the_video(tmp_path: Path) -> None:
    data = bytearray(make_video(tmp_path / "v.mp4", 100).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = b"\xff" * 40
    (tmp_path / "v.mp4").write_bytes(data)
    numbers = [number for slot, _, _ in decode_all(tmp_path / "v.mp4", 8) for number in slot]
    assert len(numbers) >= 30


def test_the_downloads_error_is_the_one_that_is_told() -> None:
    with GrowingFile() as file, decoder(file) as decoding:
        file.append(b"\0" * 100)
        file.fail(DownloadFailed("the cable was cut"))
        with pytest.raises(DownloadFailed, match="cable"):
            decoding.open()


def test_stop_ends_a_read_that_waits() -> None:
    with GrowingFile() as file, decoder(file) as decoding:
        threading.Timer(0.1, decoding.stop).start()
        with pytest.raises(DecodingStopped):
            decoding.open()


def test_stop_ends_a_video_of_packets_without_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit list of a few KB makes millions of them, of what was read long ago."""
    seen: list[av.Packet] = []

    def decode(incoming: Iterator[av.Packet], *_: object) -> Iterator[av.VideoFrame]:
        for packet in incoming:
            seen.append(packet)
            if len(seen) == 5:
                decoding.stop()
        yield from ()

    monkeypatch.setattr(decode_module, "decode", decode)
    path = make_video(tmp_path / "v.mp4", 30)
    with whole_file(path) as file, decoder(file) as decoding, pytest.raises(DecodingStopped):
        decoding.open()
    assert len(seen) == 5


def test_too_many_frames(tmp_path: Path) -> None:
    with pytest.raises(BadVideo, match="MAX_VIDEO_FRAMES"):
        decode_all(make_video(tmp_path / "v.mp4", 30), 8, max_frames=20)


def test_a_growing_file_reads_what_was_written_and_waits_for_the_rest() -> None:
    with GrowingFile() as file:

        def write() -> None:
            for start in range(0, 1000, 10):
                time.sleep(0.0005)
                file.append(bytes(range(start % 200, start % 200 + 10)))
            file.finish()

        thread = threading.Thread(target=write)
        thread.start()
        data = b""
        while piece := file.read(64):
            data += piece
        thread.join()
        assert data == b"".join(bytes(range(start % 200, start % 200 + 10)) for start in range(0, 1000, 10))
        assert file.seek(-10, 2) == 990
        assert file.read() == data[-10:]
        assert file.tell() == 1000


def test_the_stride_may_grow_on_the_way(tmp_path: Path) -> None:
    with whole_file(make_video(tmp_path / "v.mp4", 60)) as file, decoder(file) as decoding:
        decoding.open()
        slot = np.zeros((5, 96, 160, 3), np.uint8)
        first = decoding.fill(slot)
        decoding.frame_stride = 10
        second = decoding.fill(slot)
        assert sorted(first.frame_numbers) == [0, 2, 4, 6, 8]
        # One frame was decoded ahead, since the last of a video is always inferred.
        assert sorted(second.frame_numbers) == [10, 20, 30, 40, 50]
        assert [read_number(image) for image in slot] == list(second.frame_numbers)
        assert second.pitch_count == 4


def test_a_decoder_of_its_own_gives_the_same_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way NVDEC goes, with a CPU decoder behind the seam."""

    def cpu_context(stream: av.video.stream.VideoStream, width: int, height: int, gpu: int) -> av.CodecContext:
        context = av.CodecContext.create("h264", "r")
        context.extradata = stream.codec_context.extradata
        return context

    path = make_video(tmp_path / "v.mp4", 31)
    expected = decode_all(path, 8)
    monkeypatch.setattr(decode_module, "nvdec_context", cpu_context)
    assert decode_all(path, 8, nvdec=True) == expected


def test_nvdec_is_chosen_only_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "nvdec_works", lambda: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    assert (codec.choose_decoder("auto"), codec.choose_decoder("cpu")) == ("nvdec", "cpu")
    monkeypatch.setattr(codec, "nvdec_works", lambda: False)
    assert codec.choose_decoder("auto") == "cpu"
    with pytest.raises(StartupError, match="VIDEO_DECODER"):
        codec.choose_decoder("nvdec")


def test_every_nvdec_decoder_is_in_this_ffmpeg() -> None:
    assert set(codec.NVDEC.values()) <= av.codecs_available


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    "matrix",
    [
        *((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)),
        *((-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)),
    ],
)
def test_the_slot_holds_the_picture_as_cv2_turns_it(matrix: tuple[int, ...], container: str, tmp_path: Path) -> None:
    turned = [65536 * value for value in matrix]
    path = make_video(tmp_path / f"v.{container}", 3, width=160, height=96, matrix=turned, muxing={})
    expected = cv2.VideoCapture(str(path)).read()[1]
    slot = np.zeros((4, 96, 160, 3), np.uint8)
    with whole_file(path) as file, decoder(file) as decoding:
        info = decoding.open()
        decoding.fill(slot)
    assert info.letterbox.source_size == expected.shape[1::-1]
    width, height = info.letterbox.content_size
    left, top = info.letterbox.offset
    seen = slot[0, top : top + height, left : left + width, ::-1].astype(int)
    assert np.abs(seen - cv2.resize(expected, (width, height), interpolation=cv2.INTER_AREA)).mean() < 6


def test_the_header_is_a_hint() -> None:
    """What an edit list hides is not counted, and a rate that nobody films at is not told."""
    for name, fps, frames, duration_s in (
        ("21_edit_list_1200_hidden_of_1500.mp4", 25, 300, 12),
        ("28_header_says_606_fps.mp4", 25, 60, 0.099),
        ("06_600_frames_no_count.mkv", 25, 0, 24),
    ):
        with whole_file(CASES / name) as file, decoder(file) as decoding:
            info = decoding.open()
            assert (info.fps, info.frames) == (fps, frames), name
            assert info.duration_s == pytest.approx(duration_s), name


class Nvdec:
    """A CPU decoder behind the seam of NVDEC's, which keeps hidden frames and fails where it is told to."""

    def __init__(self, stream: av.video.stream.VideoStream, fails_at: int | None) -> None:
        self._context = av.CodecContext.create("h264", "r")
        self._context.extradata = stream.codec_context.extradata
        self._left = fails_at

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise av.error.ExternalError(542398533, "Generic error in an external library")
        if packet is not None and packet.is_discard:
            copy = av.Packet(bytes(packet))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            packet = copy
        return list(self._context.decode(packet))


@pytest.mark.parametrize("fails_at", [0, 1, 20, 45])
def test_when_nvdec_fails_the_cpu_takes_over_and_nothing_else_changes(
    fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "v.mp4", 50)
    expected = decode_all(path, 8)
    monkeypatch.setattr(decode_module, "nvdec_context", lambda stream, *size: Nvdec(stream, fails_at))
    assert decode_all(path, 8, nvdec=True) == expected


def test_nvdec_shows_no_frame_that_an_edit_list_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    path = CASES / "21_edit_list_1200_hidden_of_1500.mp4"
    expected = decode_all(path, 8, frame_stride=10)
    monkeypatch.setattr(decode_module, "nvdec_context", lambda stream, *size: Nvdec(stream, None))
    assert decode_all(path, 8, frame_stride=10, nvdec=True) == expected


@pytest.mark.parametrize(("matrix", "asked"), [((0, 1, -1, 0), (96, 54)), ((-1, 0, 0, -1), (160, 90))])
def test_nvdec_scales_what_lies_on_its_side_as_it_lies(
    matrix: tuple[int, ...], asked: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames say nothing of the container's turn."""
    path = make_video(tmp_path / "v.mp4", 9, matrix=[65536 * value for value in matrix])
    expected = whole_slot(path)
    sizes = []

    def nvdec(stream: av.video.stream.VideoStream, width: int, height: int, gpu: int) -> Nvdec:
        sizes.append((width, height))
        return Nvdec(stream, None)

    monkeypatch.setattr(decode_module, "nvdec_context", nvdec)
    np.testing.assert_array_equal(whole_slot(path, nvdec=True), expected)
    assert sizes == [asked]


def whole_slot(path: Path, **values: Any) -> np.ndarray:
    slot = np.zeros((8, 96, 160, 3), np.uint8)
    with whole_file(path) as file, decoder(file, **values) as decoding:
        decoding.open()
        decoding.fill(slot)
    return slot


def test_nvdec_decodes_on_the_gpu_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(decode_module, "nvdec_context", lambda stream, width, height, gpu: asked.append(gpu))
    path = make_video(tmp_path / "v.mp4", 3)
    for gpu in (0, 1):
        assert decode_all(path, 8, nvdec=True, gpu=gpu)[0][0] == [0, 2]
    assert asked == [0, 1]


def test_auto_takes_nvdec_only_where_cores_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "nvdec_works", lambda: True)
    for cores, chosen in ((2, "nvdec"), (16, "cpu")):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cores=cores: set(range(cores)))
        assert codec.choose_decoder("auto") == chosen
        assert codec.choose_decoder("nvdec") == "nvdec"


@pytest.mark.parametrize("layout", ["yuv420p10le", "yuv422p", "yuv444p"])
def test_nvdec_is_not_asked_for_what_no_card_decodes(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, layout
        container.mux(stream.encode(av.VideoFrame(160, 96, layout)))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert codec.nvdec_context(container.streams.video[0], 160, 96) is None
