"""What is left out before it is decoded, and that nothing is where it cannot be proven which frame it is."""

from __future__ import annotations

import io
import itertools
from functools import partial
from pathlib import Path

import av
import pytest

from gateway.video import codec
from gateway.video.h264 import Picture, PictureOrder, Sequence, Unordered, read_configuration
from tests.support.videos import make_video, read_number
from touchline.video_read import open_video, packets, video_stream

X264 = {"preset": "veryfast", "bf": "2"}


def spared(path: Path, stride: int = 4) -> int:
    """How many of a video's frames are not decoded when every `stride`-th is wanted; those that are stand rightly."""
    with open_video(io.BytesIO(path.read_bytes())) as container:
        stream = video_stream(container)
        frames = list(codec.decode(packets(container, stream), stream, None, lambda number: number % stride == 0))
    for number, frame in enumerate(frames):
        assert frame is None or read_number(frame.to_ndarray(format="rgb24")) == number
        assert frame is not None or number % stride
    assert frames[-1] is not None
    return sum(frame is None for frame in frames)


@pytest.mark.parametrize(
    "muxing", [{"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}], ids=["mp4", "fragmented"]
)
def test_a_usual_encoders_frames_are_spared_without_a_count_in_the_header_too(
    muxing: dict[str, str], tmp_path: Path
) -> None:
    assert spared(make_video(tmp_path / "v.mp4", 100, encoding=X264, muxing=muxing)) >= 25


def test_matroska_too(tmp_path: Path) -> None:
    assert spared(make_video(tmp_path / "v.mkv", 100, encoding=X264, muxing={})) >= 25


def test_a_variable_rate_too(tmp_path: Path) -> None:
    assert spared(make_video(tmp_path / "v.mp4", 100, encoding=X264, times=lambda number: number + number // 3)) >= 25


def _pts_as_dts(packet: av.Packet) -> None:
    packet.pts = packet.dts


@pytest.mark.parametrize(
    "values",
    [
        {"rewrite": _pts_as_dts},
        {"encoding": X264 | {"x264-params": "interlaced=1"}, "height": 192},
        {"encoding": X264 | {"bsf": "none", "x264-params": "bframes=0"}},
    ],
    ids=["timestamps that are not those of presentation", "interlaced", "no B-frames"],
)
def test_nothing_is_left_out_where_nothing_is_proven(values: dict[str, object], tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", 40, **{"encoding": X264, **values})  # type: ignore[arg-type]
    with open_video(io.BytesIO(path.read_bytes())) as container:
        stream = video_stream(container)
        assert None not in list(codec.decode(packets(container, stream), stream, None, lambda number: number % 4 == 0))


def test_with_the_first_packet_out_of_order_it_ends(tmp_path: Path) -> None:
    """The timestamps of two neighbours are exchanged in the middle: up to there frames are spared, from there none."""
    path = make_video(tmp_path / "v.mp4", 100, encoding=X264)
    with open_video(io.BytesIO(path.read_bytes())) as container:
        stream = video_stream(container)
        incoming = list(packets(container, stream))
        first, second = incoming[51], incoming[52]
        first.pts, second.pts = second.pts, first.pts
        frames = list(codec.decode(iter(incoming), stream, None, lambda number: number % 4 == 0))
    assert None in frames[:40]
    assert None not in frames[60:]
    assert len(frames) == 100


def is_every(step: int, number: int) -> bool:
    return number % step == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_nothing_that_is_missing_changes_what_is_decoded(threads: int, tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", 60, encoding=X264)
    pictures: dict[bool, list[bytes | None]] = {}
    for all_wanted, step in ((True, 1), (False, 5)):
        with open_video(io.BytesIO(path.read_bytes())) as container:
            stream = video_stream(container)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            decoded = codec.decode(packets(container, stream), stream, None, partial(is_every, step))
            pictures[all_wanted] = [None if frame is None else bytes(frame.planes[0]) for frame in decoded]
    assert len(pictures[True]) == len(pictures[False]) == 60
    assert all(one is None or one == other for one, other in zip(pictures[False], pictures[True], strict=True))


def test_the_sequence_header_of_a_real_stream(tmp_path: Path) -> None:
    with open_video(io.BytesIO(make_video(tmp_path / "v.mp4", 10, encoding=X264).read_bytes())) as container:
        configuration = read_configuration(video_stream(container).codec_context.extradata)
        assert configuration.sequence.reorder == video_stream(container).codec_context.reorder_depth
    assert [data[0] & 31 for data in configuration.parameter_sets] == [7, 8]
    assert (configuration.sequence.macroblocks, configuration.length_bytes) == (20 * 12, 4)


@pytest.mark.parametrize("configuration", [b"", b"\1\x64\0\x1f\xff\xe1\0\2\x67\x64", b"\0\0\0\1\x67\x64", bytes(40)])
def test_a_header_that_is_none_proves_nothing(configuration: bytes) -> None:
    with pytest.raises(Unordered):
        read_configuration(configuration)


def test_the_order_goes_on_when_its_counter_wraps() -> None:
    order = PictureOrder(Sequence(frame_num_bits=4, order_bits=4, reorder=1, macroblocks=1, grey=False, least_qp=0))
    places = [
        order.place(Picture(disposable=False, idr=not n, frame_num=n % 16, order_lsb=2 * n % 16)) for n in range(40)
    ]
    assert all(earlier < later for earlier, later in itertools.pairwise(places))
    assert order.place(Picture(disposable=False, idr=True, frame_num=0, order_lsb=0)) > places[-1]
