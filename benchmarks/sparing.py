"""What it gains to leave frames out before they are decoded: CPU time of a clip with and without, in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Never
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from benchmarks.common import alternate, decode_and_scale, demo_clip, median, parser, report, served_size, spread
from demo.match import Match
from gateway.video import codec
from gateway.video.h264 import Unordered

STRIDES = (2, 4)


def main() -> None:
    arguments_of = parser(__doc__, runs=3)
    arguments_of.add_argument("--video", type=Path, help="instead of the demo clip")
    arguments = arguments_of.parse_args()
    console = Console()
    video = (arguments.video or demo_clip(console, Match()).video).resolve()
    size = served_size()

    def seconds(stride: int, spared: bool) -> float:
        if spared:
            return decode_and_scale(video, stride, size)[1].cpu_s
        with everything_decoded():
            return decode_and_scale(video, stride, size)[1].cpu_s

    variants = {(stride, spared): (stride, spared) for stride in STRIDES for spared in (True, False)}
    results = alternate(
        arguments.runs,
        {f"{stride} {spared}": partial(seconds, *pair) for (stride, spared), pair in variants.items()},
        console,
    )
    table = Table("every n-th frame", "CPU s, frames left out", "CPU s, all decoded", "ratio")
    numbers = {}
    for stride in STRIDES:
        left_out, whole = results[f"{stride} True"], results[f"{stride} False"]
        ratio = median(left_out) / median(whole)
        table.add_row(str(stride), spread(left_out, 2), spread(whole, 2), f"{ratio:.2f}")
        numbers[stride] = {"left_out_cpu_s": median(left_out), "whole_cpu_s": median(whole), "ratio": ratio}
    report(console, table, [f"Decoding and scaling to {size[1]}x{size[0]} alone."], {"strides": numbers}, arguments)


@contextmanager
def everything_decoded() -> Iterator[None]:
    """No stream is trusted during the block, as one that is out of order from its first packet."""

    def refuse(_: bytes) -> Never:
        raise Unordered

    with patch.object(codec, "Sparing", refuse):
        yield


if __name__ == "__main__":
    main()
