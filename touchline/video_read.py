"""Opening and reading videos: which formats, no file or address besides the bytes given, damage left out as cv2 does.

The one door to FFmpeg's demuxers. What it reads is what `cv2.VideoCapture` reads, because a validator reads with it:
the first video stream, the frames that decode, their numbers a count of those, the turn that the container asks for.
"""

from __future__ import annotations

import ctypes
import io
import math
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Final, NoReturn, Protocol

import av
import av._core
import av.codec.context
import av.container
import av.video
import av.video.stream
import cv2

FORMATS: Final = (
    # Files that videos come in. FFmpeg's own names; "mov" stands for mp4, m4v, 3gp and mj2 too, "matroska" for webm.
    *("mov", "matroska", "mpegts", "mpeg", "avi", "flv", "live_flv", "ogg", "asf", "mxf", "gif", "dv", "ivf"),
    # A codec's bare stream.
    *("h264", "hevc", "m4v", "mpegvideo", "obu", "av1"),
)
"""Demuxers that may be used. Left out is what is text, what names other files or addresses (playlists, sdp, concat,
imf, image sequences), what is a device, a picture or sound, and what nobody films in."""

MOST_PIXELS: Final = 2**25
"""Of a picture, a little more than 8K: FFmpeg would take a gigabyte of memory and seconds a frame for larger ones."""
_MOST_BYTES: Final = 64 * 2**20
"""In one piece: a plane of an 8K picture of ten bits a pixel. A header of 2 KB may claim two thousand million frames,
and FFmpeg makes room for all at once, and counts them."""
_MOST_STREAMS: Final = 24
"""Of a file, each of which may claim so much."""
_OPTIONS: Final = {
    "format_whitelist": ",".join(FORMATS),
    "protocol_whitelist": "none",
    "max_pixels": str(MOST_PIXELS),
    "max_streams": str(_MOST_STREAMS),
}
_UNSPECIFIED: Final = 2
_CONVERTED: Final = frozenset(range(8)) | {9}
"""AVColorSpace: what swscale knows. A picture of another (YCgCo, ICtCp) it would not even lay out anew."""
_ABORTED: Final = frozenset({"yaf32be", "yaf32le"})
"""Layouts over which swscale ends the whole process instead of refusing them: grey with alpha in floats, out of EXR."""
_HEAD_BYTES: Final = 4096
"""More than encoders write of themselves as text into a stream, which may be cut in there."""
_SEARCHED_BYTES: Final = 2**20
"""Of either end of a file, for the name of a codec that FFmpeg does not know."""
_READ_BYTES: Final = 256 * 1024
_FURTHEST: Final = 2**44
"""Bytes of the largest file of ext4 (4 KB blocks)."""
_ERRORS_IN_A_ROW: Final = 256
"""So often a demuxer may fail without a packet in between before the rest of the file is given up."""

_NOT_VIDEOS: Final = (
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"\xff\xd8\xff", "a picture (JPEG)"),
    (0, b"\x89PNG", "a picture (PNG)"),
    (0, b"BM", "a picture (BMP)"),
    (0, b"II*\0", "a picture (TIFF)"),
    (0, b"MM\0*", "a picture (TIFF)"),
    (8, b"WEBP", "a picture (WebP)"),
    *((4, b"ftyp" + brand, "a picture (HEIF or AVIF)") for brand in (b"avif", b"heic", b"heix", b"mif1")),
    (0, b"ID3", "sound (MP3)"),
    (0, b"fLaC", "sound (FLAC)"),
    (8, b"WAVE", "sound (WAV)"),
    (0, b"\x7fELF", "a program"),
)
"""Offset, what stands there, and what such a file is."""
_TEXTS: Final = (
    ((b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--"), "a web page"),
    ((b"#extm3u", b"ffconcat", b"v=0", b"[playlist]", b"<asx", b"<mpd"), "a playlist, which names other files"),
    ((b"<",), "XML"),
    ((b"{", b"["), "JSON"),
)
"""How a text begins, in small letters, and what it is."""


TURNS: Final = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
"""What cv2.rotate takes, by degrees clockwise."""


def _limit_memory() -> None:
    """Let FFmpeg refuse larger pieces of memory in this process: PyAV leaves that call out."""
    limit = ctypes.CDLL(av._core.__file__).av_max_alloc
    limit.argtypes, limit.restype = [ctypes.c_size_t], None
    limit(_MOST_BYTES)


_limit_memory()


class UnreadableVideo(Exception):
    """A file cannot be read as a video; the message says why, in words of who sent it."""


class VideoFile(Protocol):
    """What is read from: bytes, and nothing that has a name."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class _Nameless:
    """Passes on what PyAV needs of a file, so that no name tells a format."""

    def __init__(self, file: VideoFile) -> None:
        self.read, self.tell = file.read, file.tell
        self._seek = file.seek

    def seek(self, offset: int, whence: int = 0) -> int:
        # FFmpeg stays where it is when a file on a disk cannot go so far, and goes on there.
        return -1 if offset > _FURTHEST else self._seek(offset, whence)


def open_video(file: VideoFile) -> av.container.InputContainer:
    """Open `file` with one of FORMATS, its first stream of pictures known to have a decoder and a size.

    FFmpeg gets no other file, socket or device from it, whatever the file says. Raises UnreadableVideo, or the error
    that `file` raises when it is read.
    """
    head = _head(file)
    if not head:
        raise UnreadableVideo("the file is empty")
    if (found := what_else(head)) is not None:
        raise UnreadableVideo(f"the file is {found}, not a video")
    try:
        container = av.open(
            _Nameless(file),
            mode="r",
            options=dict(_OPTIONS),
            metadata_errors="ignore",
            buffer_size=_READ_BYTES,
            io_open=_deny,
        )
    except av.FFmpegError as error:
        raise UnreadableVideo(_why_not(file, head)) from error
    try:
        _check_stream(container, file, head)
    except BaseException:
        container.close()
        raise
    return container


def video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    """The first stream of pictures; a cover where a file begins with one, since cv2, so a validator, takes it too."""
    return container.streams.video[0]


def next_packet(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> av.Packet:
    """The stream's next packet in file order. Raises StopIteration after the last, and what PyAV raises.

    One at a time: PyAV knows only the streams that were there when its generator was made, and a generator that raised
    has ended. Closed at once: what is only dropped keeps what it allocated, 170 bytes a packet.
    """
    with closing(container.demux(stream)) as demuxing:
        return next(demuxing)


def packets(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[av.Packet]:
    """The stream's packets in file order, what is damaged left out; the last is empty and flushes a decoder.

    None come any more once `stopped` says so: FFmpeg may make millions of what it has read already.
    """
    failed = 0
    while failed < _ERRORS_IN_A_ROW:
        if stopped():
            return
        try:
            packet = next_packet(container, stream)
        except (av.FFmpegError, IndexError):
            failed += 1
            continue
        if not packet.size:
            # The end; or a packet without content, which a decoder would take for it.
            if packet.dts is not None or packet.pts is not None:
                continue
            break
        failed = 0
        yield packet
    end = av.Packet()
    end.stream = stream
    yield end


def decoded(context: av.codec.context.CodecContext, packet: av.Packet) -> list[av.VideoFrame]:
    """The frames that come out of a decoder for `packet`; all that it still holds for the empty one.

    Raises av.FFmpegError for a damaged packet.
    """
    frames: list[av.VideoFrame] = context.decode(packet if packet.size else None)
    for frame in frames:
        if frame.colorspace not in _CONVERTED:
            frame.colorspace = _UNSPECIFIED
    return [frame for frame in frames if frame.format.name not in _ABORTED]


def frames(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    """All frames of a video in presentation order, as cv2 reads and numbers them: damage costs its own frames."""
    stream = video_stream(container)
    for packet in packets(container, stream):
        with suppress(av.FFmpegError):
            yield from decoded(stream.codec_context, packet)


def turn(stream: av.video.stream.VideoStream) -> int | None:
    """Degrees clockwise, 0, 90, 180 or 270, by which the container wants the pictures turned to be upright.

    As cv2 turns them: of the display matrix (ISO/IEC 14496-12, 6.2.2) it knows the rotation alone, so that a mirrored
    picture is turned or left as it is (av_display_rotation_get in FFmpeg's libavutil/display.c); and it does not know
    what the pictures themselves say, H.264's SEI or a JPEG's EXIF, which frames have as well.
    None where only a frame tells (`turn_of`). To be asked before the container is closed.
    """
    # PyAV shows the matrix to nobody but writers: it stands in the header that one would write, after 0.3 ms.
    for name in ("mp4", "mov"):
        with suppress(av.FFmpegError, ValueError):
            header = io.BytesIO()
            options = {"movflags": "empty_moov+frag_keyframe", "strict": "experimental"}
            with av.open(header, "w", format=name, options=options) as writer:
                writer.add_stream_from_template(stream, opaque=True)
                writer.start_encoding()
            written = header.getvalue()
            at = written.index(b"tkhd") + 4
            at += 52 if written[at] else 40  # the times of its version 1 are twice as long
            return _rotation(struct.unpack_from(">9i", written, at))
    return None


def turn_of(frame: av.VideoFrame) -> int:
    """The same as a frame tells it, of codecs whose pictures say nothing themselves."""
    degrees = -frame.rotation % 360
    return degrees if degrees in TURNS else 0


def _rotation(matrix: Sequence[int]) -> int:
    scales = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not all(scales):
        return 0
    degrees = round(math.degrees(math.atan2(matrix[1] / scales[1], matrix[0] / scales[0]))) % 360
    return degrees if degrees in TURNS else 0


def what_else(head: bytes) -> str | None:
    """What a file that begins with `head` is instead of a video; None when it may be one."""
    if _is_text(head):
        start = head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").lower().replace(b"\0", b"")
        return next((name for beginnings, name in _TEXTS if start.startswith(beginnings)), "text")
    return next((name for at, magic, name in _NOT_VIDEOS if head.startswith(magic, at)), None)


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True  # UTF-16
    return not any(byte < 32 and byte not in b"\t\n\f\r\x1b" for byte in head)


def _deny(url: str, _flags: int, _options: object) -> NoReturn:
    raise UnreadableVideo(f"the file wants another one to be opened ({url[:80]!r}); a video must be whole in itself")


def _head(file: VideoFile) -> bytes:
    head = _bytes_at(file, 0, _HEAD_BYTES)
    file.seek(0)
    return head


def _bytes_at(file: VideoFile, offset: int, count: int = _SEARCHED_BYTES) -> bytes:
    file.seek(offset)
    data = b""
    while len(data) < count and (piece := file.read(count - len(data))):
        data += piece
    return data


def _check_stream(container: av.container.InputContainer, file: VideoFile, head: bytes) -> None:
    if not container.streams.video:
        missing = _missing_index(file, head)
        raise UnreadableVideo(missing or "the file has no video stream")
    context = video_stream(container).codec_context
    if context is None:
        raise UnreadableVideo(_missing_index(file, head) or _unknown_codec(file))
    if context.width * context.height > MOST_PIXELS:
        raise UnreadableVideo(f"the video's pictures are larger than 8K ({context.width}x{context.height})")
    context.options = {"max_pixels": str(MOST_PIXELS)}


def no_frame(file: VideoFile) -> UnreadableVideo:
    """Why nothing of `file`, which was read to its end, came out of the decoder."""
    file.seek(0)
    with suppress(UnreadableVideo), open_video(file) as container:
        if next(packets(container, video_stream(container))).has_sidedata("encryption_info"):
            return UnreadableVideo("the video is encrypted")
    return UnreadableVideo(_missing_index(file, _head(file)) or "the video has no frame that can be decoded")


def _why_not(file: VideoFile, head: bytes) -> str:
    return _missing_index(file, head) or "the file is not a video of a known format, or its header is damaged"


def _missing_index(file: VideoFile, head: bytes) -> str | None:
    """What is said of an MP4 whose index is not there; None for other files. Reads to the end of the file."""
    if head[4:8] not in (b"ftyp", b"mdat", b"wide", b"free", b"skip", b"moov"):
        return None
    end = file.seek(0, io.SEEK_END)
    at = 0
    while at + 8 <= end:
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if kind == b"moov":
            return "the file is cut off inside its index" if at + size > end else None
        if size < 8:
            break
        at += size
    return "the index at the end of the file is missing: it was cut off, or never finished"


def _unknown_codec(file: VideoFile) -> str:
    """A sentence that names the codec where the container's header does."""
    end = file.seek(0, io.SEEK_END)
    data = _bytes_at(file, 0) + (_bytes_at(file, end - _SEARCHED_BYTES) if end > _SEARCHED_BYTES else b"")
    name = b""
    if (at := data.find(b"stsd")) >= 0:
        name = data[at + 16 : at + 20]
    elif (found := re.search(rb"\x86([\x81-\xc0])(?=V_)", data)) is not None:
        name = data[found.end() : found.end() + found[1][0] - 128]
    elif (at := data.find(b"strh")) >= 0:
        name = data[at + 12 : at + 16]
    if name in (b"encv", b"drmi"):
        return "the video is encrypted"
    told = name.decode("ascii", "ignore")
    told = "".join(letter for letter in told if letter.isprintable()).strip()
    return f"the video's codec {told} is not known" if told else "the video's codec is not known"
