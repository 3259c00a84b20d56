"""Whether answers are there in time: whole challenges through the local servers under each CHALLENGE_BUDGET_S.

With --busy so many processes compute beside them and never rest, as other work of a host does; they start after the
warm-up, so that what was measured then is wrong.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import demo_clip, fresh, median, parser, report, spread, take_cores
from demo.clip import load_truth
from demo.match import Match
from gateway.pace import LATEST_S
from local.stack import local_stack
from local.validator import Outcome, served_file
from touchline.answer_quality import measure

GRACE_S = 0.5


def main() -> None:
    arguments_of = parser(__doc__, runs=20)
    arguments_of.add_argument("--budgets", nargs="*", default=["auto", "6"])
    arguments_of.add_argument("--busy", type=int, default=0, help="processes that compute beside the servers")
    arguments = arguments_of.parse_args()
    console = Console()
    match = Match()
    clip = demo_clip(console, match)
    truth = load_truth(clip.truth)
    take_cores(arguments.cores)
    table = Table("CHALLENGE_BUDGET_S", "seconds", "p95", "late", "planned stride", "mean stride", "people found")
    numbers: dict[str, dict[str, Any]] = {}
    for budget in arguments.budgets:
        with (
            local_stack(settings={"CHALLENGE_BUDGET_S": budget}) as servers,
            served_file(clip.video.resolve()) as url,
            busy(arguments.busy),
        ):
            outcomes = [servers.challenge(fresh(url)) for _ in range(arguments.runs)]
        found = [measure(one.response, truth, match.width).people_found for one in outcomes]
        numbers[budget] = row = figures(outcomes, found, LATEST_S if budget == "auto" else float(budget))
        table.add_row(
            budget,
            spread(row["seconds"]),
            f"{row['p95_s']:.2f}",
            f"{row['late']} of {len(outcomes)}",
            spread(row["planned_stride"], 0),
            spread(row["stride"], 1),
            f"{median(found):.1%} ({min(found):.1%} - {max(found):.1%})",
        )
    notes = [
        f"{match.frames} frames; late: more than {GRACE_S:g} s after the budget; auto's budget is {LATEST_S:g} s.",
        f"{arguments.runs} challenges each, the first one after the start included; {arguments.busy} busy processes.",
    ]
    report(console, table, notes, numbers, arguments)


def figures(outcomes: list[Outcome], found: list[float], budget_s: float) -> dict[str, Any]:
    seconds = [one.elapsed_s for one in outcomes]
    return {
        "seconds": seconds,
        "p95_s": float(np.percentile(seconds, 95)),
        "late": sum(one > budget_s + GRACE_S for one in seconds),
        "planned_stride": [float(one.notes["planned-stride"]) for one in outcomes],
        "stride": [float(one.notes["stride"]) for one in outcomes],
        "people_found": found,
    }


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
