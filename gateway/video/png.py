"""The PNG that validators send, 8 bits of red, green and blue, in three fifths of the time that libpng takes.

Most of that time is zlib. libdeflate inflates twice as fast, but knows no PNG; FFmpeg undoes the filters fast, but
inflates with zlib. So the pixels are inflated by the one and handed to the other in blocks that are only stored.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import av
import deflate
import numpy as np

from touchline.contract import Frame

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_KIND: Final = bytes([8, 2, 0, 0, 0])
"""Bits, colours, compression, filters, no interlacing."""
_SAY_NOTHING: Final = frozenset(
    [b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"bKGD"]
)
"""Chunks that do not change what OpenCV reads."""
MOST_PIXELS: Final = 9_000_000
"""4096x2160; they are in memory thrice for a moment, which of larger ones would be much."""
_STORED_BYTES: Final = 65535
"""The most that a stored block has (RFC 1951)."""


def rgb(data: bytes) -> Frame | None:
    """A PNG as uint8 [H, W, 3] RGB; None for one of another kind, size or with any fault, for OpenCV to judge."""
    if len(data) < 45 or data[:16] != _SIGNATURE + b"\0\0\0\rIHDR" or data[24:29] != _KIND:
        return None
    width, height, checksum = struct.unpack(">II5xI", data[16:33])
    packed = _packed(data)
    if packed is None or checksum != zlib.crc32(data[12:29]) or not 0 < width * height <= MOST_PIXELS:
        return None
    expected = height * (1 + 3 * width)
    try:
        lines = deflate.zlib_decompress(packed, expected)
        if len(lines) != expected:
            return None
        (frame,) = _frames(data[:33], lines)
    except (deflate.DeflateError, av.FFmpegError, ValueError):
        return None
    if (frame.format.name, frame.width, frame.height) != ("rgb24", width, height):
        return None
    (plane,) = frame.planes
    return np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)[:, : 3 * width].reshape(height, width, 3)


def _packed(data: bytes) -> bytes | None:
    """What the IDAT chunks hold together; None where others may change the picture, or something is missing."""
    parts, at = list[bytes](), 33
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IEND":
            return b"".join(parts)
        if kind == b"IDAT":
            parts.append(data[at + 8 : at + 8 + length])
        elif kind not in _SAY_NOTHING:
            return None
        at += 12 + length
    return None


def _frames(head: bytes, lines: bytearray) -> list[av.VideoFrame]:
    """What FFmpeg makes of a PNG with this signature and header, whose filtered lines are these."""
    blocks: list[bytes | memoryview] = []
    for first in range(0, len(lines), _STORED_BYTES):
        block = memoryview(lines)[first : first + _STORED_BYTES]
        last = first + _STORED_BYTES >= len(lines)
        blocks += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    length = 2 + sum(map(len, blocks)) + 4
    checksum = struct.pack(">I", deflate.adler32(lines))
    # FFmpeg does not look at the checksums of chunks.
    stored = b"".join(
        [head, struct.pack(">I", length), b"IDAT\x78\x01", *blocks, checksum, bytes(8), b"IEND\xae\x42\x60\x82"]
    )
    decoder = av.CodecContext.create("png", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    return [*decoder.decode(av.Packet(stored)), *decoder.decode(None)]
