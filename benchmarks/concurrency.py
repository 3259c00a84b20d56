"""Several challenges at once against one alone: total frames/s, and how evenly the challenges were served."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import NO_LIMITS, alternate, demo_clip, fresh, median, parser, report, spread, take_cores
from demo.match import Match
from local.stack import LocalStack, local_stack
from local.triton import DEFAULT_REPOSITORY
from local.validator import challenge_body, check_response, post_challenge, served_file, signed_headers


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
    with local_stack(repository=arguments.repository, settings=settings) as stack, served_file(video) as url:
        results = alternate(
            arguments.runs,
            {
                "alone": lambda: together(stack, url, 1),
                "at once": lambda: together(stack, url, arguments.at_once),
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


def together(stack: LocalStack, url: str, count: int) -> dict[str, Any]:
    """`count` challenges sent at the same moment: time until the last answer, and the time of each.

    The answers are checked when all are there, so that checking one takes no cores from the next.
    """
    bodies = [challenge_body(fresh(url), str(index)) for index in range(count)]
    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(lambda body: post(stack, body), bodies))
    checked = [check_response(content, str(index)) for index, (_, content) in enumerate(answers)]
    return {
        "elapsed_s": max(elapsed_s for elapsed_s, _ in answers),
        "each_s": [elapsed_s for elapsed_s, _ in answers],
        "frames": sum(len(response["frames"]) for response in checked),
    }


def post(stack: LocalStack, body: bytes) -> tuple[float, bytes]:
    """Send a signed challenge; seconds from the request to the last byte, and the answer as it came."""
    headers = signed_headers(stack.keys.validator, stack.keys.miner.ss58_address, body)
    began = time.perf_counter()
    answer = post_challenge(stack.gateway.url, body, headers).raise_for_status()
    return time.perf_counter() - began, answer.content


if __name__ == "__main__":
    main()
