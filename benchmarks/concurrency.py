"""Several challenges at once against one alone: total frames/s, and how evenly the challenges were served."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import NO_LIMITS, alternate, demo_clip, fresh, median, parser, report, spread, take_cores
from demo.match import Match
from touchline.local_chain import LocalChain, local_chain
from touchline.local_triton import DEFAULT_REPOSITORY
from touchline.validator import served_file


def main() -> None:
    arguments_of = parser(__doc__, runs=3)
    arguments_of.add_argument("--at-once", type=int, default=3, help="challenges at once, of different URLs")
    arguments_of.add_argument("--video", type=Path, help="instead of the demo clip")
    arguments_of.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY, help="models that Triton serves")
    arguments = arguments_of.parse_args()
    console = Console()
    video = (arguments.video or demo_clip(console, Match()).video).resolve()
    take_cores(arguments.cores)
    settings = {**NO_LIMITS, "MAX_CONCURRENT_CHALLENGES": str(arguments.at_once)}
    with local_chain(repository=arguments.repository, settings=settings) as chain, served_file(video) as url:
        results = alternate(
            arguments.runs,
            {
                "alone": lambda: together(chain, url, 1),
                "at once": lambda: together(chain, url, arguments.at_once),
            },
            console,
        )
    rates = {name: [one["frames"] / one["elapsed_s"] for one in runs] for name, runs in results.items()}
    shares = [max(one["each_s"]) / min(one["each_s"]) for one in results["at once"]]
    ratio = median(rates["at once"]) / median(rates["alone"])
    table = Table(
        "challenges", "frames/s, all together", "seconds, each", title="Challenges at once", title_justify="left"
    )
    for name, count in (("alone", 1), ("at once", arguments.at_once)):
        table.add_row(str(count), spread(rates[name], 1), spread([s for one in results[name] for s in one["each_s"]]))
    table.add_section()
    table.add_row(f"{arguments.at_once} to 1", f"{ratio:.2f}", f"slowest to quickest {spread(shares)}")
    notes = [
        f"{results['alone'][0]['frames']} frames a challenge, default strides, medians of {arguments.runs} runs in "
        "turn, least and most in brackets. Every challenge names another URL, so none is answered from another's work.",
    ]
    numbers: dict[str, Any] = {"ratio": ratio, "slowest_to_quickest": median(shares), "runs": results}
    report(console, table, notes, numbers, arguments)


def together(chain: LocalChain, url: str, count: int) -> dict[str, Any]:
    """`count` challenges sent at the same moment: time until the last answer, and the time of each."""
    with ThreadPoolExecutor(count) as threads:
        outcomes = list(threads.map(chain.challenge, [fresh(url) for _ in range(count)]))
        elapsed_s = max(outcome.elapsed_s for outcome in outcomes)
    return {
        "elapsed_s": elapsed_s,
        "each_s": [outcome.elapsed_s for outcome in outcomes],
        "frames": sum(len(outcome.response["frames"]) for outcome in outcomes),
    }


if __name__ == "__main__":
    main()
