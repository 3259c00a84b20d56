"""A whole challenge against its limit: decoding and scaling alone, and the same requests straight into the engine."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    EVERY_FRAME,
    NO_LIMITS,
    alternate,
    decode_and_scale,
    demo_clip,
    fresh,
    letterboxed,
    median,
    parser,
    report,
    spread,
    take_cores,
)
from demo.match import Match
from gateway.inference.slots import Slot, SlotPool
from gateway.inference.triton import Triton
from gateway.settings import Settings
from local.scraped import scraped
from local.stack import LocalStack, local_stack
from local.triton import DEFAULT_REPOSITORY
from local.validator import served_file

WHY = {
    "sum": "the sum, because decoding and the engine compute on the same cores",
    "max": "the longer one, because decoding and the engine run beside each other",
}

Counts = dict[str, tuple[int, int]]
"""Requests and frames of each model."""


def main() -> None:
    arguments_of = parser(__doc__, runs=5)
    arguments_of.add_argument("--video", type=Path, help="instead of the demo clip")
    arguments_of.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY, help="models that Triton serves")
    arguments_of.add_argument("--every-frame", action="store_true", help="stride 1 for both models")
    arguments_of.add_argument(
        "--combine",
        choices=("auto", "sum", "max"),
        default="auto",
        help="how decode and engine make the limit; auto: sum on a CPU, where they share the cores, max on a GPU",
    )
    arguments = arguments_of.parse_args()
    console = Console()
    video = (arguments.video or demo_clip(console, Match()).video).resolve()
    take_cores(arguments.cores)
    strides = EVERY_FRAME if arguments.every_frame else NO_LIMITS
    values: dict[str, Any] = {name.lower(): value for name, value in strides.items()}
    settings = Settings(_env_file=None, **values)
    in_flight = settings.slots_per_challenge
    with local_stack(repository=arguments.repository, settings=strides) as stack, served_file(video) as url:
        counts = requests_of(stack, url)
        size = input_size(stack)
        slots = letterboxed(video, settings.slot_frames * in_flight, size)
        results = alternate(
            arguments.runs,
            {
                "challenge": lambda: stack.challenge(fresh(url)).elapsed_s,
                "decode": lambda: decode_and_scale(video, settings.frame_stride, size)[1].elapsed_s,
                "engine": lambda: asyncio.run(engine_alone(stack.triton.grpc_url, counts, slots, in_flight)),
            },
            console,
        )
    combine = arguments.combine if arguments.combine != "auto" else ("max" if settings.on_gpu else "sum")
    numbers: dict[str, Any] = {name: median(values) for name, values in results.items()}
    numbers |= {"combine": combine, "limit": limit(numbers["decode"], numbers["engine"], combine), "requests": counts}
    numbers |= {"ratio": numbers["challenge"] / numbers["limit"], "runs": results}
    table = Table("", "seconds", title="A whole challenge against its limit", title_justify="left")
    table.add_row("decode and scale alone", spread(results["decode"]))
    table.add_row("engine alone", spread(results["engine"]))
    table.add_row(f"limit: {'their sum' if combine == 'sum' else 'the longer one'}", f"{numbers['limit']:.2f}")
    table.add_row("whole challenge", spread(results["challenge"]))
    table.add_section()
    table.add_row("challenge to limit", f"{numbers['ratio']:.2f}")
    asked = ", ".join(f"{name} {frames} frames in {requests} requests" for name, (requests, frames) in counts.items())
    notes = [
        f"Medians of {arguments.runs} runs in turn. Engine alone: {asked}, as Triton counted them in a challenge, sent "
        f"over shared memory, as many frames in flight as the gateway keeps ({in_flight} slots).",
        f"Limit: {WHY[combine]}.",
    ]
    report(console, table, notes, numbers, arguments)


def limit(decode_s: float, engine_s: float, combine: str) -> float:
    """The least time that the two can take together, in seconds."""
    return decode_s + engine_s if combine == "sum" else max(decode_s, engine_s)


def requests_of(stack: LocalStack, url: str) -> Counts:
    """What one challenge asks of each model, from Triton's own counters."""

    def counted() -> dict[str, tuple[float, float]]:
        requests, frames = (
            {sample.labels["model"]: sample.value for sample in scraped(stack.triton.metrics_url, series)}
            for series in ("nv_inference_request_success", "nv_inference_count")
        )
        return {model: (count, frames[model]) for model, count in requests.items()}

    before = counted()
    stack.challenge(fresh(url))
    return {
        name: (round(requests - before[name][0]), round(frames - before[name][1]))
        for name, (requests, frames) in counted().items()
        if requests > before[name][0]
    }


def input_size(stack: LocalStack) -> tuple[int, int]:
    """Height and width of the served models' input."""

    async def ask() -> tuple[int, int]:
        async with Triton(stack.triton.grpc_url, shared_memory="off", timeout_s=10.0) as triton:
            models = await triton.discover()
        return models.height, models.width

    return asyncio.run(ask())


def plan(counts: Counts) -> list[dict[str, int]]:
    """Frames a model for each slot in turn: a model's frames spread evenly over its requests, those over the slots."""
    slots = max(requests for requests, _ in counts.values())
    planned: list[dict[str, int]] = [{} for _ in range(slots)]
    for name, (requests, frames) in counts.items():
        for index in range(requests):
            share = (index + 1) * frames // requests - index * frames // requests
            planned[index * slots // requests][name] = share
    return planned


async def engine_alone(url: str, counts: Counts, frames: npt.NDArray[np.uint8], in_flight: int) -> float:
    """Send what `counts` says straight to Triton, `in_flight` slots at a time; seconds from the first to the last.

    `frames`, uint8 [n, H, W, 3], are what the slots hold, n a multiple of `in_flight`.
    """
    pool = SlotPool(slots=in_flight, slot_shape=(len(frames) // in_flight, *frames.shape[1:]))
    try:
        slots = [await pool.acquire() for _ in range(in_flight)]
        for slot, content in zip(slots, np.split(frames, in_flight), strict=True):
            slot.frames[:] = content
        async with Triton(url, shared_memory="system", timeout_s=600.0) as triton:
            await triton.attach(pool)
            waiting = plan(counts)[::-1]

            async def work(slot: Slot) -> None:
                while waiting:
                    models = waiting.pop()
                    await asyncio.gather(*(triton.infer(model, slot, count) for model, count in models.items()))

            began = time.perf_counter()
            await asyncio.gather(*(work(slot) for slot in slots))
            return time.perf_counter() - began
    finally:
        pool.close()


if __name__ == "__main__":
    main()
