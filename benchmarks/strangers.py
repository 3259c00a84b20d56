"""What a stranger costs, and what 200 at once cost a validator: challenges alone and among strangers, in turn."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    NO_LIMITS,
    demo_clip,
    fresh,
    median,
    parser,
    report,
    scratch,
    served_size,
    spread,
    status_mib,
    take_cores,
)
from benchmarks.concurrency import together
from benchmarks.quick_engine import write_quick_engine
from demo.match import Match
from local.stack import LocalStack, local_stack
from local.validator import served_file, signed_headers

LARGE = b'{"challenge_id": "1", "video_url": "http://a/' + b"x" * 16_000 + b'"}'
"""About as large as a challenge can be."""
PROTOCOLS = {"PROTOCOLS": "soccer,private"}
SETTLE_S = 2.0


def main() -> None:
    arguments_of = parser(__doc__, runs=15)
    arguments_of.add_argument("--connections", type=int, default=200, help="strangers at once")
    arguments_of.add_argument("--pause-s", type=float, default=1.0, help="between two requests of one of them")
    arguments_of.add_argument("--each", type=int, default=300, help="requests of each kind whose CPU time is measured")
    arguments_of.add_argument("--most-s", type=float, default=120.0, help="no challenge is begun when so much is over")
    arguments_of.add_argument("--video", type=Path, help="instead of the demo clip")
    arguments = arguments_of.parse_args()
    console = Console()
    video = (arguments.video or demo_clip(console, Match()).video).resolve()
    take_cores(arguments.cores)
    ends = time.monotonic() + arguments.most_s
    with (
        scratch() as directory,
        local_stack(
            repository=write_quick_engine(directory / "models", served_size()), settings=NO_LIMITS | PROTOCOLS
        ) as stack,
        served_file(video) as url,
        strangers(stack, arguments.connections, arguments.pause_s) as many,
    ):
        pid = stack.gateway.pid or 0
        costs = {name: cost_ms(stack, request, arguments.each) for name, request in kinds(stack).items()}
        seconds: dict[str, list[float]] = {"alone": [], "besieged": []}
        together(stack, fresh(url), 1)
        before_mib = status_mib(pid, "VmRSS")
        while len(seconds["alone"]) < arguments.runs and time.monotonic() < ends:
            seconds["alone"].append(together(stack, fresh(url), 1)["elapsed_s"])
            many.set()
            time.sleep(SETTLE_S)
            seconds["besieged"].append(together(stack, fresh(url), 1)["elapsed_s"])
            many.clear()
            time.sleep(SETTLE_S)
        alone_mib = status_mib(pid, "VmRSS")
        # From here on the peak is that of strangers alone.
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        many.set()
        spent, began = cpu_s(pid), time.monotonic()
        time.sleep(3 * SETTLE_S)
        busy = (cpu_s(pid) - spent) / (time.monotonic() - began)
        peak_mib = status_mib(pid, "VmHWM")
        many.clear()
        time.sleep(SETTLE_S)
        after_mib = status_mib(pid, "VmRSS")
    ratio = median(seconds["besieged"]) / median(seconds["alone"])
    table = Table("a stranger's request", "ms of the gateway's CPU", title="Strangers", title_justify="left")
    for name, cost in costs.items():
        table.add_row(name, f"{cost:.2f}")
    table.add_section()
    table.add_row("a challenge alone, seconds", spread(seconds["alone"]))
    table.add_row(f"among {arguments.connections} strangers, seconds", spread(seconds["besieged"]))
    table.add_row("ratio", f"{ratio:.2f}")
    table.add_row("share of a core that they take", f"{busy:.2f}")
    table.add_row("RSS before the challenges, after them", f"{before_mib:.0f}, {alone_mib:.0f} MiB")
    table.add_row("among strangers alone at most, after them", f"{peak_mib:.0f}, {after_mib:.0f} MiB")
    notes = [
        f"Medians of {len(seconds['alone'])} challenges each, in turn, least and most in brackets. Each stranger sends "
        f"a request every {arguments.pause_s:g} s, the kinds in turn, on a connection of its own; a fifth of them send "
        "half a request and wait. They are a process on the same cores that lets the gateway go first. The models "
        "answer at once.",
    ]
    memory = {"before": before_mib, "alone": alone_mib, "peak": peak_mib, "after": after_mib}
    numbers = {"cost_ms": costs, "seconds": seconds, "ratio": ratio, "cores": busy, "rss_mib": memory}
    report(console, table, notes, numbers, arguments)


def kinds(stack: LocalStack) -> dict[str, bytes]:
    """Whole requests of those who have no right to an answer, by name."""
    miner = stack.keys.miner.ss58_address
    forged = signed_headers(stack.keys.validator, miner, b"{}")
    exchanged = {"validator-hotkey": forged["validator-hotkey"], "symmetric-key-uuid": "none"}
    challenge = "/soccer/challenge"
    return {
        "no HTTP at all": b"\x16\x03\x01" + b"x" * 200 + b"\r\n\r\n",
        "a route that is not there": _request("GET", "/nowhere", {}, b""),
        "another method": _request("PUT", challenge, {}, b"{}"),
        "no headers": _request("POST", challenge, {}, LARGE),
        "no headers, a gigabyte to come": _request("POST", challenge, {"content-length": "1000000000"}, LARGE * 5),
        "a hotkey without stake": _request("POST", challenge, {**forged, "validator-hotkey": "5" + "C" * 47}, LARGE),
        "a key that nobody has exchanged": _request("POST", challenge, exchanged, LARGE),
        "a validator's name, a forged signature": _request("POST", challenge, forged, LARGE),
        "the same to exchange a key": _request("POST", "/exchange-symmetric-key", {**forged, **exchanged}, b"{}"),
        "the private track: no headers": _request("POST", "/challenge", {}, LARGE),
        "the private track: a forged signature": _request("POST", "/challenge", forged, LARGE),
        "the public key": _request("GET", "/public-encryption-key", {}, b""),
    }


def _request(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: miner", "connection: close"]
    lines += [f"{name}: {value}" for name, value in ({"content-length": str(len(body))} | headers).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def cost_ms(stack: LocalStack, request: bytes, count: int) -> float:
    """CPU time of the gateway a request, each on a connection of its own."""
    pid, address = stack.gateway.pid or 0, ("127.0.0.1", stack.gateway.port)
    spent_s = 0.0
    for requests in (20, count):  # the first ones warm up
        before = cpu_s(pid)
        for _ in range(requests):
            with socket.create_connection(address, timeout=10) as connection, suppress(ConnectionError):
                connection.sendall(request)
                while connection.recv(65536):
                    pass
        spent_s = cpu_s(pid) - before
    return spent_s / count * 1000


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, to the nanosecond; of threads that ended it is not known."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


@contextmanager
def strangers(stack: LocalStack, connections: int, pause_s: float) -> Iterator[Event]:
    """So many of them at the gateway while the event is set, in a process of their own."""
    spawning = multiprocessing.get_context("spawn")
    many = spawning.Event()
    process = spawning.Process(
        target=_besiege,
        args=(stack.gateway.url, list(kinds(stack).values()), connections, pause_s, many),
        daemon=True,
    )
    process.start()
    try:
        yield many
    finally:
        process.kill()
        process.join()


def _besiege(url: str, requests: list[bytes], connections: int, pause_s: float, many: Event) -> None:
    os.nice(19)
    asyncio.run(_all_of_them(urlsplit(url).port or 0, requests, connections, pause_s, many))


async def _all_of_them(port: int, requests: list[bytes], connections: int, pause_s: float, many: Event) -> None:
    while True:
        await asyncio.to_thread(many.wait)
        tasks = [asyncio.create_task(_one(port, requests, one, connections, pause_s)) for one in range(connections)]
        while many.is_set():  # noqa: ASYNC110  an event of another process
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _one(port: int, requests: list[bytes], number: int, connections: int, pause_s: float) -> None:
    await asyncio.sleep(pause_s * number / connections)
    for turn in itertools.count(number):
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            request = requests[turn % len(requests)]
            try:
                if number % 5 == 0:
                    writer.write(request[: len(request) // 2])
                    await reader.read()
                else:
                    writer.write(request)
                    await asyncio.sleep(pause_s)
                    await reader.read(65536)
            finally:
                writer.close()


if __name__ == "__main__":
    main()
