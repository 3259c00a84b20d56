"""Whole challenges on the demo clip through the local stack: stage times, frames/s and quality."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import EVERY_FRAME, NO_LIMITS, demo_clip, fresh, median, parser, report, spread, take_cores
from demo.clip import load_truth
from demo.match import Match
from local.stack import local_stack
from local.validator import served_file
from touchline.answer_quality import measure

VARIANTS = {"defaults": NO_LIMITS, "every frame, both models": EVERY_FRAME}
STAGES = ("decode", "infer", "track", "first_frame")


def main() -> None:
    arguments = parser(__doc__).parse_args()
    console = Console()
    match = Match()
    clip = demo_clip(console, match)
    take_cores(arguments.cores)
    table = Table(
        "variant", "seconds", "frames/s", *(stage.replace("_", " ") for stage in STAGES), "people", "keypoints"
    )
    numbers: dict[str, Any] = {}
    for variant, settings in VARIANTS.items():
        with local_stack(settings=settings) as stack, served_file(clip.video.resolve()) as url:
            stack.challenge(fresh(url))
            outcomes = [stack.challenge(fresh(url)) for _ in range(arguments.runs)]
        quality = measure(outcomes[0].response, load_truth(clip.truth), match.width)
        elapsed = [outcome.elapsed_s for outcome in outcomes]
        stages = {stage: [outcome.stage_seconds[stage] for outcome in outcomes] for stage in STAGES}
        table.add_row(
            variant,
            spread(elapsed),
            f"{match.frames / median(elapsed):.0f}",
            *(spread(seconds) for seconds in stages.values()),
            f"{quality.people_found:.1%}",
            f"{quality.keypoints_found:.1%}",
        )
        numbers[variant] = {"elapsed_s": elapsed, "stage_seconds": stages}
    notes = [
        f"{match.frames} frames of {match.width}x{match.height}, medians of {arguments.runs} challenges after one that "
        "warms up, least and most in brackets.",
    ]
    report(console, table, notes, numbers, arguments)


if __name__ == "__main__":
    main()
