"""What FFmpeg may open, and what is said of a file that it may not."""

from __future__ import annotations

import ctypes
import io
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import av.format
import cv2
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from tests.support.videos import make_audio, make_video, read_number
from tests.support.watch import Watched, watched
from touchline import video_read
from touchline.render import pictures, probe
from touchline.video_rate import frame_rate
from touchline.video_read import FORMATS, UnreadableVideo, frames, open_video, packets, turn, video_stream

CASES: Final = Path(__file__).parents[1] / "cases"


def _inputs(name: str) -> list[str]:
    """Texts that make one demuxer or another open `bait.mp4`, or a socket on {port}."""
    url = "http://127.0.0.1:{port}/bait.mp4"
    sdp = (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    )
    mpd = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
        '<AdaptationSet mimeType="video/mp4">'
        f'<Representation id="0" bandwidth="1"><BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>'
    )
    imf = (
        '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>urn:uuid:'
        "00000000-0000-0000-0000-000000000000</Id><SegmentList/></CompositionPlaylist>"
    )
    return {
        "concat": ["ffconcat version 1.0\nfile bait.mp4\n", f"ffconcat version 1.0\nfile '{url}'\n"],
        "hls": [
            f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n" for target in ("bait.mp4", url)
        ],
        "sdp": [sdp],
        "dash": [mpd],
        "imf": [imf],
        "vobsub": [
            "# VobSub index file, v7\nsize: 160x96\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 000000000\n"
        ],
        "image2": ["bait.mp4"],
        "webm_dash_manifest": [mpd],
    }.get(name, [f"{name} {url}\nfile bait.mp4\n{name}:bait.mp4\n"])


def _everything(name: str, port: int) -> Iterator[bytes]:
    for text in _inputs(name):
        told = text.replace("{port}", str(port)).encode()
        yield told
        yield b"\xef\xbb\xbf" + told
        yield b"\0" + told  # no text any more
        yield told + bytes(range(32)) * 8
        yield told.decode().encode("utf-16")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """The working folder, with a video in it that nobody may open."""
    make_video(tmp_path / "bait.mp4", 5)
    monkeypatch.chdir(tmp_path)
    with watched(tmp_path) as made:
        yield made


@pytest.mark.parametrize("second_fence", [False, True], ids=["as it is", "with texts let through"])
def test_no_file_and_no_socket_is_opened_by_any_demuxer(
    second_fence: bool, folder: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    if second_fence:
        monkeypatch.setattr(video_read, "what_else", lambda head: None)
    for name in sorted(av.format.formats_available):
        for data in _everything(name, folder.port):
            with pytest.raises(UnreadableVideo):
                open_video(io.BytesIO(data)).close()
    assert folder.opened() == set()


def test_the_watch_sees_what_ffmpeg_opens_when_it_may(folder: Watched) -> None:
    av.open(io.BytesIO(_inputs("concat")[0].encode()), options={"safe": "0"}).close()
    assert "bait.mp4" in folder.opened()
    with pytest.raises(av.FFmpegError):
        address = _inputs("hls")[1].replace("{port}", str(folder.port))
        threading.Timer(0.2, folder.tcp.close).start()
        av.open(io.BytesIO(address.encode()), timeout=0.1)


def test_a_reference_inside_a_movie_is_not_followed(folder: Watched, tmp_path: Path) -> None:
    """A track whose pictures lie in another file (dref, ISO/IEC 14496-12, 8.7.2)."""
    data = bytearray((tmp_path / "bait.mp4").read_bytes())
    folder.opened()
    inside = data.index(b"url ")
    data[inside + 4 : inside + 8] = bytes(4)  # not "in this file"
    with open_video(io.BytesIO(bytes(data))) as container:
        assert sum(1 for _ in frames(container)) <= 5
    assert folder.opened() == set()


def test_only_what_videos_come_in_is_allowed() -> None:
    for name in FORMATS:
        assert name in {part for known in av.format.formats_available for part in known.split(",")}, name
    for name in ("sdp", "concat", "hls", "dash", "imf", "image2", "rtsp", "lavfi", "tty", "vobsub", "png_pipe"):
        assert name not in FORMATS


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>" + b" " * 2000, "a web page"),
        (b"\n  <html><head>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b'{"error": "expired"}', "JSON"),
        (b"Not found", "text"),
        (b"#EXTM3U\n", "a playlist"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a picture"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (b"\x1f\x8b\x08" + bytes(100), "compressed"),
        (bytes(5000), "not a video of a known format"),
        (b"\0\0\0\x18ftypisom" + bytes(12), "the index at the end of the file is missing"),
    ],
)
def test_what_is_no_video_is_named(data: bytes, said: str) -> None:
    with pytest.raises(UnreadableVideo, match=said):
        open_video(io.BytesIO(data))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("07_unknown_codec.mkv", "codec V_XXXXX/ISO/AVC is not known"),
        ("07_unknown_codec_fourcc.mp4", "codec abcd is not known"),
        ("07_cut_in_moov_406_bytes.mp4", "cut off inside its index"),
    ],
)
def test_an_unknown_codec_is_named(name: str, said: str) -> None:
    with pytest.raises(UnreadableVideo, match=said):
        open_video(io.BytesIO((CASES / name).read_bytes()))


def test_other_files_are_named_too(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "v.mp4", 5, muxing={}).read_bytes()
    assert whole.index(b"moov") > whole.index(b"mdat")
    for data, said in (
        (whole[: whole.index(b"moov") - 4], "index at the end of the file is missing"),
        (whole.replace(b"avc1", b"encv"), "encrypted"),
        (make_audio(tmp_path / "a.mp4").read_bytes(), "no video stream"),
    ):
        with pytest.raises(UnreadableVideo, match=said):
            open_video(io.BytesIO(data))


def test_a_stream_that_is_cut_in_what_its_encoder_says_of_itself_is_no_text(tmp_path: Path) -> None:
    data = make_video(tmp_path / "v.hevc", 40, codec="libx265").read_bytes()
    at = data.index(b"x265 (build")
    assert all(32 <= byte < 127 for byte in data[at : at + 1024])
    with open_video(io.BytesIO(data[at:])) as container:
        assert container.format.name == "hevc"


MATRICES: Final = {
    "upright": (1, 0, 0, 1),
    "90": (0, 1, -1, 0),
    "180": (-1, 0, 0, -1),
    "270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "mirrored 90": (0, 1, 1, 0),
    "mirrored 270": (0, -1, -1, 0),
}


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_render_turns_a_picture_as_cv2_does(matrix: str, container: str, tmp_path: Path) -> None:
    turned = tuple(65536 * value for value in MATRICES[matrix])
    path = make_video(tmp_path / f"v.{container}", 3, width=160, height=96, matrix=turned)
    capture = cv2.VideoCapture(str(path))
    clip = probe(path)
    for number, picture in pictures(clip, clip.width):
        assert number < 3
        np.testing.assert_array_equal(picture, capture.read()[1])


@pytest.mark.parametrize(
    ("name", "expected"), [("28_header_says_606_fps.mp4", 25), ("34_raw_h264_remux_pts_eq_dts.mp4", 25)]
)
def test_a_rate_that_nobody_films_at_is_not_believed(name: str, expected: int) -> None:
    assert _rate(CASES / name) == expected


@pytest.mark.parametrize("fps", [Fraction(1), Fraction(1, 2), Fraction(25), Fraction(30000, 1001), Fraction(240)])
def test_a_rate_that_the_timestamps_show_is_believed(fps: Fraction, tmp_path: Path) -> None:
    assert float(_rate(make_video(tmp_path / "v.mp4", 12, fps=fps))) == pytest.approx(float(fps), rel=0.01)


def _rate(path: Path) -> Fraction:
    with open_video(io.BytesIO(path.read_bytes())) as container:
        stream = video_stream(container)
        return frame_rate(stream, list(packets(container, stream)))


def test_sound_that_begins_late_does_not_end_a_video(tmp_path: Path) -> None:
    """A stream that appears long after FFmpeg looked for streams, as in a recording of a live FLV."""
    path = tmp_path / "late.flv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"g": "25", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 320, 180, "yuv420p"
        sound = container.add_stream("aac", rate=44100)
        from tests.support.videos import frame_image

        for number in range(250):
            picture = av.VideoFrame.from_ndarray(frame_image(number, 320, 180), format="rgb24")
            picture.pts = number
            container.mux(video.encode(picture))
        container.mux(video.encode())
        for start in range(7 * 44100, 9 * 44100, 1024):
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            noise.sample_rate, noise.pts = 44100, start
            container.mux(sound.encode(noise))
    data = bytearray(path.read_bytes())
    data[4] &= ~4  # the header says that there is no sound
    with open_video(io.BytesIO(bytes(data))) as opened:
        numbers = [read_number(frame.to_ndarray(format="rgb24")) for frame in frames(opened)]
    assert numbers == list(range(250))


def test_a_size_beyond_every_disk_does_not_end_a_header(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.asf", 12, codec="wmv2", muxing={})
    data = bytearray(path.read_bytes())
    at = data.index(bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")) + 16  # of the header extension
    data[at : at + 8] = (2**47).to_bytes(8, "little")
    with open_video(io.BytesIO(bytes(data))) as container:
        assert [read_number(frame.to_ndarray(format="rgb24")) for frame in frames(container)] == list(range(12))


def test_what_has_no_turn_is_upright(tmp_path: Path) -> None:
    with open_video(io.BytesIO(make_video(tmp_path / "v.mp4", 1).read_bytes())) as container:
        assert turn(video_stream(container)) == 0


def oriented_jpegs(path: Path) -> Path:
    """A video of JPEGs whose EXIF wants them turned, as cameras write it; its container does not."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"

    def mark(packet: av.Packet) -> av.Packet:
        marked = av.Packet(
            bytes(packet)[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + bytes(packet)[2:]
        )
        marked.pts, marked.dts, marked.time_base = packet.pts, packet.dts, packet.time_base
        marked.stream, marked.is_keyframe = packet.stream, True
        return marked

    return make_video(path, 5, codec="mjpeg", layout="yuvj420p", rewrite=mark)


def oriented_h264(path: Path) -> Path:
    """A bare stream whose SEI (ITU-T H.264, D.1.27) wants its pictures turned by 90 degrees."""
    data = make_video(path, 5).read_bytes()
    at = data.index(b"\0\0\1\x65")
    path.write_bytes(data[:at] + b"\0\0\1\x06\x2f\x03\x08\x00\x14\x80" + data[at:])
    return path


@pytest.mark.parametrize(
    ("make", "name"), [(oriented_jpegs, "v.mov"), (oriented_jpegs, "v.avi"), (oriented_h264, "v.h264")]
)
def test_what_pictures_say_of_their_own_turn_is_not_heard_as_by_cv2(
    make: Callable[[Path], Path], name: str, tmp_path: Path
) -> None:
    path = make(tmp_path / name)
    capture = cv2.VideoCapture(str(path))
    with open_video(io.BytesIO(path.read_bytes())) as opened:
        assert next(frames(opened)).rotation
    clip = probe(path)
    assert (clip.width, clip.height, clip.turn) == (320, 180, 0)
    for _, picture in pictures(clip, clip.width):
        np.testing.assert_array_equal(picture, capture.read()[1])


def test_a_picture_that_ffmpeg_would_end_the_process_over_is_left_out(tmp_path: Path) -> None:
    """OpenEXR with grey and alpha in floats: an assertion of swscale's fails."""

    def attribute(name: bytes, kind: bytes, value: bytes) -> bytes:
        return name + b"\0" + kind + b"\0" + struct.pack("<I", len(value)) + value

    channels = b"".join(name + b"\0" + struct.pack("<IIII", 2, 0, 1, 1) for name in (b"A", b"Y")) + b"\0"
    window, line = struct.pack("<4i", 0, 0, 15, 15), struct.pack("<32f", *[0.5] * 32)
    header = b"v/1\1\2\0\0\0" + b"".join(
        (
            attribute(b"channels", b"chlist", channels),
            attribute(b"compression", b"compression", b"\0"),
            attribute(b"dataWindow", b"box2i", window),
            attribute(b"displayWindow", b"box2i", window),
            attribute(b"lineOrder", b"lineOrder", b"\0"),
            attribute(b"pixelAspectRatio", b"float", struct.pack("<f", 1)),
            attribute(b"screenWindowCenter", b"v2f", bytes(8)),
            attribute(b"screenWindowWidth", b"float", struct.pack("<f", 1)),
            b"\0",
        )
    )
    first = len(header) + 8 * 16
    places = b"".join(struct.pack("<Q", first + number * (8 + len(line))) for number in range(16))
    packet = av.Packet(header + places + b"".join(struct.pack("<iI", number, len(line)) + line for number in range(16)))
    with av.open(str(tmp_path / "v.mov"), "w") as container:
        packet.stream = container.add_stream("exr", rate=25)
        packet.stream.width, packet.stream.height, packet.stream.pix_fmt = 16, 16, "grayf32le"
        packet.pts = packet.dts = 0
        container.mux(packet)
    with open_video(io.BytesIO((tmp_path / "v.mov").read_bytes())) as opened:
        assert video_stream(opened).codec_context.pix_fmt == "yaf32le"
        assert not list(frames(opened))


@pytest.mark.parametrize("matrix", [8, 10, 14])
def test_colours_that_ffmpeg_cannot_convert_are_taken_as_they_are(matrix: int, tmp_path: Path) -> None:
    """YCgCo, BT.2020 with constant luminance, ICtCp; in a range that has to be converted."""
    path = make_video(tmp_path / "v.h264", 3)
    with av.open(str(path)) as plain, (tmp_path / "odd.h264").open("wb") as file:
        told = f"h264_metadata=matrix_coefficients={matrix}:video_full_range_flag=1"
        filter_ = BitStreamFilterContext(told, plain.streams.video[0])
        for packet in plain.demux():
            for changed in filter_.filter(packet if packet.size else None):
                file.write(bytes(changed))
    clip = probe(tmp_path / "odd.h264")
    assert [read_number(picture) for _, picture in pictures(clip, clip.width)] == [0, 1, 2]


def test_frames_that_a_header_claims_take_no_memory(tmp_path: Path) -> None:
    """A fragment of 64 million frames of a byte each (trun without a size each, ISO/IEC 14496-12, 8.8.8)."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        return struct.pack(">I4s", 8 + sum(map(len, parts)), kind) + b"".join(parts)

    data = make_video(tmp_path / "v.mp4", 5, muxing={"movflags": "frag_keyframe+empty_moov"}).read_bytes()
    header = data[: data.index(b"moof") - 4]
    usual = box(b"tfhd", struct.pack(">6I", 0x020038, 1, 512, 1, 0, 0)[:20])
    claim = box(b"trun", struct.pack(">III", 1, 2**26, 0))
    path = tmp_path / "claims.mp4"
    path.write_bytes(header + box(b"moof", box(b"traf", usual, claim)) + box(b"mdat", bytes(1000)))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is taken now
    before = _peak_mib()
    with suppress(UnreadableVideo), open_video(io.BytesIO(path.read_bytes())) as container:
        assert not list(frames(container))
    assert _peak_mib() - before < 200


def _peak_mib() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


class _Allocated(ctypes.Structure):
    """What glibc's mallinfo2 tells."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "kept",
        )
    )


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="no glibc that tells what is allocated")
def test_what_was_read_is_not_kept(tmp_path: Path) -> None:
    """A camera of 25 frames a second is read for weeks."""
    video = make_video(tmp_path / "video.mp4", 200)
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _Allocated

    def read() -> int:
        with video.open("rb") as file, open_video(file) as container:
            return sum(1 for _ in packets(container, video_stream(container)))

    read()
    before = libc.mallinfo2().uordblks
    read_packets = sum(read() for _ in range(5))
    assert read_packets > 1000
    assert libc.mallinfo2().uordblks - before < 50 * read_packets, "bytes"
