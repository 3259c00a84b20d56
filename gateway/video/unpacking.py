"""Takes the compression off a body as it comes: a little at a time, all parts of it, and knowing whether it ended."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

_MOST: Final = 2**20
"""Bytes that come out at once: what is compressed may be a thousand times as long."""
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Unpacker:
    """One content coding, gzip or deflate (RFC 9110, 8.4.1)."""

    def __init__(self, coding: str) -> None:
        self._is_gzip = coding == "gzip"
        self._decoder = zlib.decompressobj(_GZIP) if self._is_gzip else None
        self._kept = b""
        """Of what is not known yet: deflate's first byte, or what may be the next member's (RFC 1952, 2.2)."""

    @property
    def ended(self) -> bool:
        """What is compressed says that it is whole."""
        return self._decoder is not None and self._decoder.eof

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What `data`, the body's next bytes, holds. Raises zlib.error for what is damaged."""
        is_full = False
        while data or is_full:
            if self._decoder is None or self._decoder.eof:
                data = self._begin(data)
                if not data:
                    return
            assert self._decoder is not None
            piece = self._decoder.decompress(data, _MOST)
            if piece:
                yield piece
            # It may hold more although it has taken all.
            is_full = len(piece) == _MOST and not self._decoder.eof
            data = self._decoder.unconsumed_tail or self._decoder.unused_data

    def _begin(self, data: bytes) -> bytes:
        """Make the decoder of what begins with `data`, or say with nothing that none begins there."""
        data = self._kept + data
        self._kept = b""
        if self._decoder is None:
            if len(data) > 1:
                self._decoder = zlib.decompressobj(_ZLIB if _has_header(data) else _RAW)
                return data
        elif not self._is_gzip:
            return b""
        else:
            # Behind a member there may be zeros, and another member.
            data = data.lstrip(b"\0")
            if data.startswith(b"\x1f\x8b"):
                self._decoder = zlib.decompressobj(_GZIP)
                return data
            # What else follows is no part of it.
            self._is_gzip = len(data) < 2
        self._kept = data[:1]
        return b""


def _has_header(data: bytes) -> bool:
    """Whether deflate comes as zlib writes it (RFC 1950, 2.2); many servers leave that out."""
    return data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
