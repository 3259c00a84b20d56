"""More challenges than there are places for: who is answered at once, who after a wait, and who is told to come again.

Those come again once, after as many seconds as they were told.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import demo_clip, fresh, median, parser, report, scratch, served_size, spread, take_cores
from benchmarks.quick_engine import write_quick_engine
from demo.match import Match
from local.progress import progress_bar
from local.scraped import scraped
from local.stack import LocalStack, local_stack
from local.validator import challenge_body, check_response, post_challenge, served_file, signed_headers

IN_VAIN_S = 4.0
"""A refusal that takes longer came after a wait in the queue, which is 8 s long."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request and what came of it."""

    number: int
    """0, or 1 where it came again."""
    seconds: float
    answered: bool
    stride: float = 0.0
    retry_after_s: float = 0.0


def main() -> None:
    arguments_of = parser(__doc__, runs=5)
    arguments_of.add_argument("--loads", type=float, nargs="*", default=[0.5, 1.0, 2.0, 4.0], help="times the capacity")
    arguments_of.add_argument("--seconds", type=float, default=30.0, help="of each load")
    arguments_of.add_argument("--delay-ms", type=float, default=5.0, help="of each model a frame")
    arguments_of.add_argument("--seed", type=int, default=44)
    arguments_of.add_argument("--video", type=Path, help="instead of the demo clip")
    arguments = arguments_of.parse_args()
    console = Console()
    video = (arguments.video or demo_clip(console, Match()).video).resolve()
    take_cores(arguments.cores)
    chance = np.random.default_rng(arguments.seed)
    rows: dict[str, dict[str, Any]] = {}
    with (
        scratch() as directory,
        local_stack(
            repository=write_quick_engine(directory / "models", served_size(), delay_s=arguments.delay_ms / 1000)
        ) as stack,
        served_file(video) as url,
        progress_bar(console, "loads", "loads") as advance,
    ):
        (places,) = scraped(stack.gateway.metrics_url, "touchline_challenges_limit")
        steps = len(arguments.loads) + 2
        for _ in range(2):  # warms up
            ask(stack, url)
        rows["one alone"] = figures(stack, lambda: [ask(stack, url) for _ in range(arguments.runs)])
        advance(1, steps)
        rows["all places taken"] = full = figures(stack, lambda: closed(stack, url, int(places.value), arguments.runs))
        advance(2, steps)
        capacity = full["answered"] / full["elapsed_s"]
        for done, load in enumerate(arguments.loads, start=3):
            arrivals = np.cumsum(chance.exponential(1 / (load * capacity), size=10_000))
            times = arrivals[arrivals < arguments.seconds].tolist()
            name = f"{load:g} times as many as can be answered"
            rows[name] = figures(stack, lambda times=times: open_loop(stack, url, times))  # type: ignore[misc]
            advance(done, steps)
    table = Table(
        "challenges", "asked", "at once", "after a wait", "refused", "seconds of those answered", "mean stride",
        "told to come again in", "came again, answered", title="Overload", title_justify="left",
    )  # fmt: skip
    for name, row in rows.items():
        table.add_row(
            name,
            str(row["asked"]),
            str(row["at_once"]),
            f"{row['waited']}, {row['wait_s']:.1f} s" if row["waited"] else "0",
            f"{row['refused']}, {row['refused_late']} of them after a wait in vain" if row["refused"] else "0",
            spread(row["seconds"], 1),
            f"{median(row['strides']):.1f}",
            f"{spread(row['retry_after_s'], 0)} s" if row["retry_after_s"] else "",
            f"{row['again_answered']} of {row['again']}" if row["again"] else "",
        )
    notes = [
        f"{int(places.value)} places, {capacity:.2f} challenges a second when all are taken. Challenges come at random "
        f"moments for {arguments.seconds:g} s; medians, least and most in brackets; the wait is the mean of those that "
        "waited. Default settings but for the models, which rest for "
        f"{arguments.delay_ms:g} ms a frame.",
    ]
    report(console, table, notes, {"rows": rows, "capacity": capacity}, arguments)


def figures(stack: LocalStack, work: Callable[[], list[Attempt]]) -> dict[str, Any]:
    """What came of all attempts of `work`, and what the queue's own metrics say of them."""
    before, began = queue(stack), time.perf_counter()
    attempts = work()
    elapsed_s = time.perf_counter() - began
    count, at_once, waited_s = (now - then for now, then in zip(queue(stack), before, strict=True))
    answered = [one for one in attempts if one.answered]
    refused = [one for one in attempts if not one.answered and one.number == 0]
    again = [one for one in attempts if one.number]
    return {
        "asked": len(attempts) - len(again),
        "answered": len(answered),
        "elapsed_s": elapsed_s,
        "at_once": int(at_once),
        "waited": int(count - at_once),
        "wait_s": waited_s / max(1, count - at_once),
        "refused": len(refused),
        "refused_late": sum(one.seconds > IN_VAIN_S for one in refused),
        "seconds": [one.seconds for one in answered],
        "strides": [one.stride for one in answered],
        "retry_after_s": [one.retry_after_s for one in refused],
        "again": len(again),
        "again_answered": sum(one.answered for one in again),
    }


def queue(stack: LocalStack) -> tuple[float, float, float]:
    """Challenges that were given a place so far, those of them that had not waited, and the seconds all have waited."""
    metrics = stack.gateway.metrics_url
    (count,) = scraped(metrics, "touchline_queue_seconds_count")
    (total,) = scraped(metrics, "touchline_queue_seconds_sum")
    buckets = scraped(metrics, "touchline_queue_seconds_bucket")
    at_once = min(buckets, key=lambda bucket: float(bucket.labels["le"]))
    return count.value, at_once.value, total.value


def closed(stack: LocalStack, url: str, callers: int, each: int) -> list[Attempt]:
    """So many callers, who ask again as soon as they are answered."""
    with ThreadPoolExecutor(callers) as threads:
        asked = threads.map(lambda _: [ask(stack, url) for _ in range(each)], range(callers))
        return [one for some in asked for one in some]


def open_loop(stack: LocalStack, url: str, times: list[float]) -> list[Attempt]:
    """A challenge at each of `times`, whatever became of those before; who is refused comes again once."""
    attempts: list[Attempt] = []

    def come() -> None:
        first = ask(stack, url)
        attempts.append(first)
        if not first.answered:
            time.sleep(first.retry_after_s)
            attempts.append(ask(stack, url, number=1))

    began, threads = time.perf_counter(), []
    for at in times:
        time.sleep(max(0.0, began + at - time.perf_counter()))
        threads.append(threading.Thread(target=come))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return attempts


def ask(stack: LocalStack, url: str, number: int = 0) -> Attempt:
    """One challenge; an answer is checked."""
    body = challenge_body(fresh(url), "1")
    headers = signed_headers(stack.keys.validator, stack.keys.miner.ss58_address, body)
    began = time.perf_counter()
    answer = post_challenge(stack.gateway.url, body, headers)
    seconds = time.perf_counter() - began
    if answer.status_code == httpx.codes.OK:
        response = check_response(answer.content, "1")
        inferred = json.loads(answer.headers["server-timing"].partition('inferred;desc="')[2].partition('"')[0])
        return Attempt(number, seconds, True, stride=len(response["frames"]) / inferred)
    if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or answer.json()["error"] != "busy":
        raise RuntimeError(f"answered {answer.status_code}: {answer.text}")
    return Attempt(number, seconds, False, retry_after_s=float(answer.headers["retry-after"]))


if __name__ == "__main__":
    main()
