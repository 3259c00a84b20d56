"""Frames to Triton: system shared memory against gRPC bytes, through the gateway's own client."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import median, parser, report, scratch, served_size, spread, take_cores
from benchmarks.quick_engine import write_quick_engine
from gateway.inference.slots import SlotPool
from gateway.inference.triton import Triton
from local.triton import LocalTriton
from touchline.contract import PLAYER_MODEL

TRANSPORTS = {"shared memory": "system", "gRPC bytes": "off"}


def main() -> None:
    arguments_of = parser(__doc__, runs=9)
    arguments_of.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32], help="frames a request")
    arguments_of.add_argument("--frames", type=int, default=320, help="frames a measured run")
    arguments = arguments_of.parse_args()
    console = Console()
    take_cores(arguments.cores)
    size = served_size()
    with (
        scratch() as directory,
        LocalTriton(write_quick_engine(directory / "models", size), log=directory / "log") as triton,
    ):
        triton.wait_ready()
        times = asyncio.run(measure(triton.grpc_url, size, arguments.batches, arguments.frames, arguments.runs))
    table = Table("batch", *(f"{name}, ms a frame" for name in TRANSPORTS), "ratio", "CPU here", title_justify="left")
    table.title = f"A frame of {size[1]}x{size[0]} to Triton and its answer back"
    numbers: dict[str, Any] = {"batches": {}}
    for batch in arguments.batches:
        shared, sent = ([elapsed for elapsed, _ in times[name, batch]] for name in TRANSPORTS)
        here = {name: median([cpu for _, cpu in times[name, batch]]) for name in TRANSPORTS}
        ratio = f"{median(sent) / median(shared):.1f}x"
        table.add_row(
            str(batch), spread(shared, 3), spread(sent, 3), ratio, " and ".join(f"{cpu:.3f}" for cpu in here.values())
        )
        numbers["batches"][batch] = {
            name: {"ms_a_frame": median(elapsed), "client_cpu_ms_a_frame": here[name]}
            for name, elapsed in zip(TRANSPORTS, (shared, sent), strict=True)
        }
    notes = [
        f"One request in flight, {arguments.frames} frames a run, medians of {arguments.runs} runs in turn. The model "
        "answers at once; what is measured is the request, Triton's two copies on the way into a Python model, and the "
        "reply. CPU here: of the client that the gateway has, ms a frame, by both ways.",
    ]
    report(console, table, notes, numbers, arguments)


async def measure(
    url: str, size: tuple[int, int], batches: list[int], frames: int, runs: int
) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """Milliseconds a frame of each run, elapsed and of this process's CPU, by transport and batch."""
    pool = SlotPool(slots=1, slot_shape=(max(batches), *size, 3))
    clients = {name: Triton(url, shared_memory=kind, timeout_s=30) for name, kind in TRANSPORTS.items()}  # type: ignore[arg-type]
    times: dict[tuple[str, int], list[tuple[float, float]]] = {
        (name, batch): [] for name in clients for batch in batches
    }
    try:
        slot = await pool.acquire()
        slot.frames[:] = np.random.default_rng(0).integers(0, 256, slot.frames.shape, np.uint8)
        for client in clients.values():
            await client.attach(pool)
        for run in range(runs + 1):
            for batch in batches:
                for name, client in clients.items():
                    requests = max(1, frames // batch)
                    began, cpu = time.perf_counter(), time.process_time()
                    for _ in range(requests):
                        await client.infer(PLAYER_MODEL, slot, batch)
                    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
                    if run:
                        sent = requests * batch / 1000
                        times[name, batch].append((elapsed / sent, cpu / sent))
        del slot
    finally:
        for client in clients.values():
            await client.close()
        pool.close()
    return times


if __name__ == "__main__":
    main()
