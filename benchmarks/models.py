"""Both bundled models on one 1280x720 frame of the demo clip, at the same time, through Triton and shared memory."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import demo_clip, letterboxed, parser, report, take_cores
from gateway.inference.slots import SlotPool
from gateway.inference.triton import Triton
from local.triton import LocalTriton
from touchline.contract import PITCH_MODEL, PLAYER_MODEL

WAYS = {"player": (PLAYER_MODEL,), "pitch": (PITCH_MODEL,), "both at once": (PLAYER_MODEL, PITCH_MODEL)}


def main() -> None:
    arguments = parser(__doc__, runs=100).parse_args()
    console = Console()
    clip = demo_clip(console)
    take_cores(arguments.cores)
    with LocalTriton(log=Path("out/logs/triton.log")) as triton:
        triton.wait_ready()
        times = asyncio.run(measured(triton.grpc_url, clip.video, arguments.runs))
    table = Table("model", "median ms", "p95 ms")
    numbers = {}
    for way, seconds in times.items():
        middle, late = (float(np.percentile(seconds, share) * 1000) for share in (50, 95))
        numbers[way] = {"median_ms": middle, "p95_ms": late}
        table.add_row(way, f"{middle:.1f}", f"{late:.1f}")
    report(console, table, [f"One frame a request, decoding excluded, {arguments.runs} requests."], numbers, arguments)


async def measured(url: str, video: Path, runs: int) -> dict[str, list[float]]:
    """Seconds of each request, the ways in turn."""
    async with Triton(url, shared_memory="system", timeout_s=30) as triton:
        models = await triton.discover()
        pool = SlotPool(slots=1, slot_shape=(1, models.height, models.width, 3))
        try:
            await triton.attach(pool)
            slot = await pool.acquire()
            frames = letterboxed(video, 32, (models.height, models.width))
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for run in range(-5, runs):
                slot.frames[0] = frames[run % len(frames)]
                for way, names in WAYS.items():
                    begun = time.perf_counter()
                    await asyncio.gather(*(triton.infer(name, slot, 1) for name in names))
                    if run >= 0:
                        times[way].append(time.perf_counter() - begun)
            await triton.detach()
        finally:
            pool.close()
    return times


if __name__ == "__main__":
    main()
