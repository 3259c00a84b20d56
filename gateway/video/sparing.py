"""Which frames a decoder is spared: those that nobody wants or needs and whose number is certain."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import av

from gateway.video.h264 import PictureOrder, Unordered, read_configuration, read_picture

_REMEMBERED: Final = 128
"""Pictures whose order is kept: more than are ever reordered."""


class Sparing:
    """Leaves packets out of one H.264 stream before they are decoded.

    A packet is left out only where it is proven which frame it is: the stream is progressive, each packet so far held
    exactly one frame, timestamps and H.264's own picture order agree on the order of all so far, no picture was
    reordered further than the header allows, and a packet was seen after which none can come before it. With the
    first thing that is not so, nothing is left out any more: a file that is not in order is decoded whole.
    """

    def __init__(self, configuration: bytes) -> None:
        """`configuration` is the stream's avcC record. Raises Unordered for a stream of which nothing can be proven."""
        self._configuration = read_configuration(configuration)
        self._order = PictureOrder(self._configuration.sequence)
        self._shown: list[tuple[int, tuple[int, int]]] = []
        """Timestamp and place of the latest pictures, as they are shown."""
        self._gone = 0
        """Pictures that are no longer among them; all are shown earlier."""
        self._hidden: list[int] = []
        """Timestamps of what an edit list cuts away: it is decoded and has no number."""
        self._dts = -(2**63)
        self._trusted = True
        self._disposable: set[int] = set()
        """Timestamps of the pictures ahead that no other needs."""

    def distrust(self) -> None:
        """Nothing is left out from now on: the decoder met damage."""
        self._trusted = False

    def sift(
        self, packets: Iterator[av.Packet], wanted: Callable[[int], bool], left_out: Callable[[int], None]
    ) -> Iterator[av.Packet]:
        """`packets` less those whose frame `wanted` does not want by its number; `left_out` gets their timestamps."""
        ahead: deque[av.Packet] = deque()
        for first in packets:
            ahead.append(first)
            self._look(first)
            while ahead:
                packet = ahead.popleft()
                pts = packet.pts
                if not self._trusted or pts not in self._disposable:
                    yield packet
                    continue
                # Nothing that comes later in the file can be shown before its own decoding time.
                while self._trusted and self._dts < pts and (following := next(packets, None)) is not None:
                    ahead.append(following)
                    self._look(following)
                self._disposable.discard(pts)
                place = bisect_left(self._shown, (pts,))
                hidden = bisect_left(self._hidden, pts)
                # So far as is seen; what an edit list cuts away at the end does not count.
                is_last = len(self._shown) - 1 - place == len(self._hidden) - hidden
                number = self._gone + place - hidden
                if not self._trusted or is_last or wanted(number):
                    yield packet
                else:
                    left_out(pts)

    def _look(self, packet: av.Packet) -> None:
        """Take a packet in, in file order."""
        if not self._trusted or not packet.size:
            return
        try:
            self._take(packet)
        except Unordered:
            self._trusted = False

    def _take(self, packet: av.Packet) -> None:
        pts = packet.pts
        # Matroska has none for the first packets: then nothing is known that was not before.
        dts = self._dts if packet.dts is None else packet.dts
        if pts is None or pts < dts or dts < self._dts or packet.is_corrupt:
            raise Unordered("timestamps are missing or not in order")
        self._dts = dts
        picture = read_picture(memoryview(packet), self._configuration)
        place = self._order.place(picture)
        if not self._shown and not self._gone and not picture.idr:
            raise Unordered("the video does not begin with a picture that stands alone")
        at = bisect_left(self._shown, (pts,))
        if (
            len(self._shown) - at > self._configuration.sequence.reorder
            or (at == 0 and self._gone)
            or (at > 0 and self._shown[at - 1][1] >= place)
            or (at < len(self._shown) and (self._shown[at][0] == pts or self._shown[at][1] <= place))
        ):
            raise Unordered("timestamps and picture order differ")
        self._shown.insert(at, (pts, place))
        if packet.is_discard:
            insort(self._hidden, pts)
        elif picture.disposable:
            self._disposable.add(pts)
        if len(self._shown) > _REMEMBERED:
            del self._shown[: _REMEMBERED // 2]
            self._gone += _REMEMBERED // 2
