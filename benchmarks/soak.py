"""Many challenges in a row, good and bad input mixed: what the gateway's process holds must not grow."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.common import NO_LIMITS, fresh, parser, report, scratch, status_mib, take_cores
from benchmarks.quick_engine import write_quick_engine
from local.progress import progress_bar
from local.scraped import scraped
from local.stack import LocalStack, local_stack
from local.validator import challenge_body, post_challenge, served_file, signed_headers

AT_ONCE = 4


def main() -> None:
    arguments_of = parser(__doc__, runs=5)
    arguments_of.add_argument("--challenges", type=int, default=500)
    arguments_of.add_argument("--video", type=Path, required=True, help="the good one; parts of it are the bad ones")
    arguments = arguments_of.parse_args()
    console = Console()
    content = arguments.video.read_bytes()
    take_cores(arguments.cores)
    with scratch() as directory:
        files = {
            "good": content,
            "cut off": content[: len(content) * 2 // 3],
            "damaged": bytes(byte ^ (0x55 if at > 5000 and at % 997 == 0 else 0) for at, byte in enumerate(content)),
            "no video": b"<html>no</html>",
            "empty": b"",
        }
        for name, data in files.items():
            (directory / f"{name}.mp4").write_bytes(data)
        settings = {**NO_LIMITS, "ANSWER_CACHE_S": "0", "CONSOLE_CHALLENGES": "5", "TMPDIR": str(directory)}
        readings, outcomes = [], Counter[str]()
        with (
            local_stack(repository=write_quick_engine(directory / "models"), settings=settings) as stack,
            served_file(directory / "good.mp4") as good,
            served_file(directory / "cut off.mp4") as cut,
            served_file(directory / "damaged.mp4") as damaged,
            served_file(directory / "no video.mp4") as no_video,
            served_file(directory / "empty.mp4") as empty,
            progress_bar(console, "challenges", "challenges") as advance,
        ):
            urls = itertools.cycle([good, cut, good, damaged, good, no_video, good, empty, "http://127.0.0.1:9/gone"])
            part = arguments.challenges // arguments.runs
            for done in range(arguments.runs + 1):
                readings.append(reading(stack, directory))
                if done < arguments.runs:
                    with ThreadPoolExecutor(AT_ONCE) as threads:
                        tasks = [(stack, number, next(urls)) for number in range(done * part, (done + 1) * part)]
                        outcomes.update(threads.map(lambda task: send(*task), tasks))
                    advance((done + 1) * part, arguments.runs * part)
                    time.sleep(1)  # who hung up is noticed
    table = Table("challenges", *readings[0], title="Soak", title_justify="left")
    for done, row in enumerate(readings):
        table.add_row(str(done * part), *(f"{value:.0f}" for value in row.values()))
    notes = [f"{AT_ONCE} at once: " + ", ".join(f"{count} {name}" for name, count in outcomes.most_common()) + "."]
    report(console, table, notes, {"readings": readings, "outcomes": dict(outcomes)}, arguments)


def send(stack: LocalStack, number: int, url: str) -> str:
    """One challenge, of every seventh the caller hangs up, every eleventh is sent again as it was; its outcome."""
    body = challenge_body(fresh(url), str(number))
    headers = signed_headers(stack.keys.validator, stack.keys.miner.ss58_address, body)
    try:
        answer = post_challenge(stack.gateway.url, body, headers, 0.05 if number % 7 == 3 else 300)
        if number % 11 == 5:
            answer = post_challenge(stack.gateway.url, body, headers, 300)
    except httpx.TimeoutException:
        return "hung up"
    return "answered" if answer.status_code == httpx.codes.OK else str(json.loads(answer.content)["error"])


def reading(stack: LocalStack, temporary: Path) -> dict[str, float]:
    """What the gateway's process holds now."""
    pid = stack.gateway.pid or 0
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            links.append(str(link.readlink()))
    (slots,) = scraped(stack.gateway.metrics_url, "touchline_slots")
    (free,) = scraped(stack.gateway.metrics_url, "touchline_slots_free")
    (under_way,) = scraped(stack.gateway.metrics_url, "touchline_challenges_in_progress")
    (tasks,) = scraped(stack.gateway.metrics_url, "touchline_asyncio_tasks")
    return {
        "RSS, MiB": status_mib(pid, "VmRSS"),
        "descriptors": len(links),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
        "tasks": tasks.value,
        "regions": len(set(re.findall(r"/dev/shm/\S+", Path(f"/proc/{pid}/maps").read_text()))),  # noqa: S108
        "slots held": slots.value - free.value,
        "under way": under_way.value,
        "temporary files": sum(".mp4" in link and "deleted" in link for link in links)
        + len([path for path in temporary.glob("touchline-*") if path.suffix == ".mp4"]),
    }


if __name__ == "__main__":
    main()
