"""Requests that Triton leaves in its queue while the model's instance is idle, by what its dynamic_batching says.

Again and again a second request comes at a random moment while the first is computed: it is left behind when it ends
more than LATE_S after its own work could have been done.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import parser, report, scratch, take_cores
from benchmarks.quick_engine import write_quick_engine
from gateway.inference.slots import SlotPool
from gateway.inference.triton import Triton
from local.triton import LocalTriton
from touchline.contract import DEFAULT_SIZE, PLAYER_MODEL

LATE_S: Final = 0.1
FRAMES: Final = 2
FRAME_S: Final = 0.05
POLICIES: Final = {
    "none": "",
    "preferred sizes and 2 ms": "preferred_batch_size: [ 8, 16, 32 ] max_queue_delay_microseconds: 2000",
    "two priorities": "priority_levels: 2 default_priority_level: 2",
    "allow_timeout_override": "default_queue_policy { allow_timeout_override: true }",
    "max_queue_size": "default_queue_policy { max_queue_size: 64 }",
    "a default timeout": "default_queue_policy { default_timeout_microseconds: 5000000 }",
}


def main() -> None:
    arguments_of = parser(__doc__, runs=40)
    arguments_of.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    arguments = arguments_of.parse_args()
    console = Console()
    take_cores(arguments.cores)
    table = Table("dynamic_batching", f"of {arguments.runs} left in the queue", "longest wait, s")
    numbers: dict[str, dict[str, float]] = {}
    for policy in arguments.policies:
        with scratch() as directory:
            repository = write_quick_engine(directory / "models", delay_s=FRAME_S)
            describe(repository / PLAYER_MODEL / "config.pbtxt", POLICIES[policy])
            with LocalTriton(repository, log=directory / "log") as triton:
                triton.wait_ready()
                waits = asyncio.run(waits_s(triton.grpc_url, arguments.runs))
        late = int((waits > LATE_S).sum())
        numbers[policy] = {"left": late, "longest_s": float(waits.max())}
        table.add_row(policy, str(late), f"{waits.max():.2f}")
    notes = [f"Two requests of {FRAMES} frames, {FRAME_S:g} s a frame, the second while the first is computed."]
    report(console, table, notes, numbers, arguments)


def describe(config: Path, policy: str) -> None:
    """Write the policy into a model's description."""
    before = "dynamic_batching { }"
    text = config.read_text()
    if before not in text:
        raise ValueError(f"{config} has no {before}")
    config.write_text(text.replace(before, f"dynamic_batching {{ {policy} }}"))


async def waits_s(url: str, runs: int) -> np.ndarray:
    """Of each second request, float64 [runs]: seconds from the first one's end to its own, without its own work."""
    chance = np.random.default_rng(1)
    pool = SlotPool(slots=2, slot_shape=(FRAMES, *DEFAULT_SIZE, 3))
    work_s = FRAMES * FRAME_S

    async def ended(triton: Triton, which: int) -> float:
        await triton.infer(PLAYER_MODEL, slots[which], FRAMES)
        return time.perf_counter()

    try:
        async with Triton(url, shared_memory="system", timeout_s=30) as triton:
            slots = [await pool.acquire() for _ in range(2)]
            await triton.attach(pool)
            await ended(triton, 0)
            waits = []
            for _ in range(runs):
                first = asyncio.create_task(ended(triton, 0))
                await asyncio.sleep(work_s * chance.uniform(0.1, 0.9))
                second = asyncio.create_task(ended(triton, 1))
                waits.append(-await first + await second - work_s)
            return np.array(waits)
    finally:
        pool.close()


if __name__ == "__main__":
    main()
