"""Whole challenges on the demo clip through the local chain: medians of the stage times and frames/s."""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.common import fresh
from demo.clip import load_truth, make_clip
from demo.match import Match
from touchline.answer_quality import measure
from touchline.local_chain import local_chain
from touchline.progress import progress_bar
from touchline.validator import Outcome, served_file

VARIANTS = {
    "defaults": {},
    "every frame, both models": {"FRAME_STRIDE": "1", "PITCH_STRIDE": "1"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="challenges a variant, after one that warms up")
    parser.add_argument("--cores", type=int, default=2, help="cores for Triton, gateway and client together")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: arguments.cores]
    console = Console()
    match = Match()
    with progress_bar(console, "synthetic match") as advance:
        clip = make_clip(Path("out/clip"), match, advance)
    os.sched_setaffinity(0, cores)
    table = Table("variant", "seconds", "frames/s", "decode", "infer", "track", "first frame", "people", "keypoints")
    for variant, settings in VARIANTS.items():
        with local_chain(settings=settings) as chain, served_file(clip.video.resolve()) as url:
            chain.challenge(fresh(url))
            outcomes = [chain.challenge(fresh(url)) for _ in range(arguments.runs)]
        quality = measure(outcomes[0].response, load_truth(clip.truth), match.width)
        elapsed = statistics.median(outcome.elapsed_s for outcome in outcomes)
        table.add_row(
            variant,
            f"{elapsed:.2f}",
            f"{match.frames / elapsed:.0f}",
            *(f"{_median(outcomes, stage):.2f}" for stage in ("decode", "infer", "track", "first_frame")),
            f"{quality.people_found:.1%}",
            f"{quality.keypoints_found:.1%}",
        )
    console.print(
        f"{match.frames} frames of {match.width}x{match.height}, {len(cores)} cores, median of {arguments.runs}"
    )
    console.print(table)


def _median(outcomes: list[Outcome], stage: str) -> float:
    return statistics.median(outcome.stage_seconds[stage] for outcome in outcomes)


if __name__ == "__main__":
    main()
