"""How many frames a second a video has, where its header says what nobody films at."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import Final

import av
import av.video.stream

LOOKAHEAD: Final = 32
"""Packets whose timestamps are looked at."""
USUAL: Final = (5.0, 120.0)
"""Frames a second; what a header says in between is believed."""
_POSSIBLE: Final = (0.1, 300.0)
"""Frames a second that are believed where the timestamps themselves show them: time lapses, slow motion."""
_DEFAULT: Final = 25


def is_usual(rate: Fraction | float | None) -> bool:
    return rate is not None and USUAL[0] <= rate <= USUAL[1]


def frame_rate(stream: av.video.stream.VideoStream, first: Sequence[av.Packet]) -> Fraction:
    """Frames a second: what the header says, or if that is unusual, what the timestamps of the first packets show.

    Where they show nothing that a camera does, what FFmpeg guesses or the codec says, if that is usual, else 25.
    """
    if is_usual(stream.average_rate):
        return Fraction(stream.average_rate)
    shown = sorted({packet.pts for packet in first if packet.pts is not None})
    if len(shown) > 1 and stream.time_base:
        between = median(later - earlier for earlier, later in pairwise(shown))
        rate = 1 / (Fraction(between) * stream.time_base)
        if _POSSIBLE[0] <= rate <= _POSSIBLE[1]:
            return Fraction(rate)
    usual = filter(is_usual, (stream.guessed_rate, stream.codec_context.framerate))
    return Fraction(next(usual, _DEFAULT))
