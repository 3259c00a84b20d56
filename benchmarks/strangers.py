"""What a stranger costs, and what 200 of them at once cost a validator: challenges alone, and among strangers."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    NO_LIMITS,
    alternate,
    cpu_seconds,
    demo_clip,
    fresh,
    median,
    parser,
    report,
    scratch,
    served_size,
    spread,
    take_cores,
)
from benchmarks.concurrency import together
from benchmarks.quick_engine import write_quick_engine
from demo.match import Match
from local.stack import LocalStack, local_stack
from local.validator import served_file, signed_headers


def main() -> None:
    arguments_of = parser(__doc__, runs=9)
    arguments_of.add_argument("--connections", type=int, default=200, help="strangers at once")
    arguments_of.add_argument("--pause-s", type=float, default=1.0, help="between two requests of one of them")
    arguments_of.add_argument("--each", type=int, default=300, help="requests of each kind whose CPU time is measured")
    arguments_of.add_argument("--video", type=Path, help="instead of the demo clip")
    arguments = arguments_of.parse_args()
    console = Console()
    video = (arguments.video or demo_clip(console, Match()).video).resolve()
    take_cores(arguments.cores)
    with (
        scratch() as directory,
        local_stack(repository=write_quick_engine(directory / "models", served_size()), settings=NO_LIMITS) as stack,
        served_file(video) as url,
    ):
        costs = {name: cost_ms(stack, request, arguments.each) for name, request in kinds(stack).items()}

        def among_strangers() -> dict[str, Any]:
            with strangers(stack, arguments.connections, arguments.pause_s):
                return together(stack, fresh(url), 1)

        results = alternate(
            arguments.runs, {"alone": lambda: together(stack, fresh(url), 1), "besieged": among_strangers}, console
        )
    seconds = {name: [one["elapsed_s"] for one in runs] for name, runs in results.items()}
    ratio = median(seconds["besieged"]) / median(seconds["alone"])
    table = Table("a stranger's request", "ms of the gateway's CPU", title="Strangers", title_justify="left")
    for name, cost in costs.items():
        table.add_row(name, f"{cost:.2f}")
    table.add_section()
    table.add_row("a challenge alone, seconds", spread(seconds["alone"]))
    table.add_row(f"among {arguments.connections} strangers, seconds", spread(seconds["besieged"]))
    table.add_row("ratio", f"{ratio:.2f}")
    notes = [
        f"Medians of {arguments.runs} runs in turn, least and most in brackets. Each stranger sends a request every "
        f"{arguments.pause_s:g} s, the kinds in turn, on a connection of its own, from another process on the same "
        "cores; a fifth of them send half a request and wait. The models answer at once.",
    ]
    report(console, table, notes, {"cost_ms": costs, "seconds": seconds, "ratio": ratio}, arguments)


def kinds(stack: LocalStack) -> dict[str, bytes]:
    """Whole requests of those who have no right to an answer, by name."""
    miner = stack.keys.miner.ss58_address
    large = b'{"challenge_id": "1", "video_url": "http://a/' + b"x" * 30_000 + b'"}'
    forged = signed_headers(stack.keys.validator, miner, b"{}")
    unsigned = {"validator-hotkey": forged["validator-hotkey"]}
    exchanged = unsigned | {"symmetric-key-uuid": "none"}
    return {
        "a route that is not there": _request("GET", "/nowhere", {}, b""),
        "no headers, 30 kB": _request("POST", "/soccer/challenge", {}, large),
        "a hotkey without stake": _request(
            "POST", "/soccer/challenge", {**forged, "validator-hotkey": "5" + "C" * 47}, large
        ),
        "a key that nobody has exchanged": _request("POST", "/soccer/challenge", exchanged, large),
        "a validator's name, a forged signature, 30 kB": _request("POST", "/soccer/challenge", forged, large),
        "the same to exchange a key": _request("POST", "/exchange-symmetric-key", {**forged, **exchanged}, b"{}"),
        "the public key": _request("GET", "/public-encryption-key", {}, b""),
        "no HTTP at all": b"\x16\x03\x01" + b"x" * 200 + b"\r\n\r\n",
    }


def _request(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: miner", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if method == "POST":
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def cost_ms(stack: LocalStack, request: bytes, count: int) -> float:
    """CPU time of the gateway a request, each on a connection of its own, less what an idle gateway spends."""
    pid, address = stack.gateway.pid or 0, ("127.0.0.1", stack.gateway.port)
    for warm_up in (True, False):
        began, cpu = time.perf_counter(), cpu_seconds(pid)
        for _ in range(20 if warm_up else count):
            with socket.create_connection(address, timeout=10) as connection:
                connection.sendall(request)
                with suppress(ConnectionError):
                    while connection.recv(65536):
                        pass
    spent_s, elapsed_s, cpu = cpu_seconds(pid) - cpu, time.perf_counter() - began, cpu_seconds(pid)
    time.sleep(2)
    idle = (cpu_seconds(pid) - cpu) / 2
    return max(0.0, spent_s - idle * elapsed_s) / count * 1000


@contextmanager
def strangers(stack: LocalStack, connections: int, pause_s: float) -> Iterator[None]:
    """So many of them at the gateway during the block, in a process of their own."""
    process = multiprocessing.get_context("spawn").Process(
        target=_besiege, args=(stack.gateway.url, list(kinds(stack).values()), connections, pause_s), daemon=True
    )
    process.start()
    time.sleep(2 + pause_s)  # all are there
    try:
        yield
    finally:
        process.kill()
        process.join()


def _besiege(url: str, requests: list[bytes], connections: int, pause_s: float) -> None:
    asyncio.run(_all_of_them(urlsplit(url).port or 0, requests, connections, pause_s))


async def _all_of_them(port: int, requests: list[bytes], connections: int, pause_s: float) -> None:
    async def one(number: int) -> None:
        await asyncio.sleep(pause_s * number / connections)
        for turn in itertools.count(number):
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                request = requests[turn % len(requests)]
                if number % 5 == 0:
                    writer.write(request[: len(request) // 2])
                    await reader.read()
                else:
                    writer.write(request)
                    await asyncio.sleep(pause_s)
                    await reader.read(65536)
                writer.close()

    await asyncio.gather(*(one(number) for number in range(connections)))


if __name__ == "__main__":
    main()
