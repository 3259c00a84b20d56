"""POST /predict through the real server, 1280x720 pictures of the demo clip, against both models alone there."""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from pathlib import Path

import cv2
import httpx
import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.common import demo_clip, letterboxed, parser, report, take_cores
from gateway.inference.slots import SlotPool
from gateway.inference.triton import Triton
from local.stack import local_stack
from local.triton import DEFAULT_REPOSITORY
from touchline.contract import PITCH_MODEL, PLAYER_MODEL
from touchline.video_read import open_video, video_stream

PICTURES = 16


def main() -> None:
    made = parser(__doc__, runs=100)
    made.add_argument("--frames", type=int, nargs="+", default=[1, 16], help="pictures a request")
    made.add_argument("--kind", choices=[".png", ".jpg"], default=".png", help="of the pictures")
    made.add_argument("--video", type=Path, help="whose frames are sent; default: the demo's clip")
    made.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY, help="the models")
    arguments = made.parse_args()
    console = Console()
    video = arguments.video or demo_clip(console).video
    bodies = {count: requests(video, count, arguments.kind) for count in arguments.frames}
    take_cores(arguments.cores)
    settings = {"PROTOCOLS": "predict"}
    with local_stack(repository=arguments.repository, settings=settings, logs=Path("out/logs")) as stack:
        ways = asyncio.run(measured(stack.triton.grpc_url, stack.gateway.url, video, bodies, arguments.runs))
    table = Table("a frame", "median ms", "p95 ms", "times the models")
    numbers = {}
    models = float(np.percentile(ways["both models alone"], 95) * 1000)
    for way, seconds in ways.items():
        middle, late = (float(np.percentile(seconds, share) * 1000) for share in (50, 95))
        numbers[way] = {"median_ms": middle, "p95_ms": late, "p95_times_models": late / models}
        table.add_row(way, f"{middle:.1f}", f"{late:.1f}", f"{late / models:.2f}")
    notes = [
        f"Times of a request divided by its frames; one frame a request {arguments.runs} times, others less often."
    ]
    report(console, table, notes, numbers, arguments)


def requests(video: Path, count: int, kind: str) -> list[bytes]:
    """Some bodies of `count` frames, as a caller writes them."""
    with video.open("rb") as file, open_video(file) as container:
        decoded = itertools.islice(container.decode(video_stream(container)), 0, 10 * PICTURES, 10)
        pictures = [frame.to_ndarray(format="bgr24") for frame in decoded]
    texts = [base64.b64encode(cv2.imencode(kind, picture)[1].tobytes()).decode() for picture in pictures]
    endless = itertools.cycle(texts)
    meta = {"version": 1, "batch_size": 64, "n_keypoints": 32}
    return [
        orjson.dumps(
            {"url": None, "meta": meta, "frames": [{"frame_id": n, "data": next(endless)} for n in range(count)]}
        )
        for _ in range(4)
    ]


async def measured(
    triton_url: str, gateway_url: str, video: Path, bodies: dict[int, list[bytes]], runs: int
) -> dict[str, list[float]]:
    """Seconds a frame of every request, the ways in turn."""
    times: dict[str, list[float]] = {"both models alone": []}
    times |= {f"POST /predict, {count} a request": [] for count in bodies}
    async with (
        Triton(triton_url, shared_memory="system", timeout_s=30) as triton,
        httpx.AsyncClient(base_url=gateway_url, timeout=120, trust_env=False) as client,
    ):
        models = await triton.discover()
        pool = SlotPool(slots=1, slot_shape=(1, models.height, models.width, 3))
        try:
            await triton.attach(pool)
            slot = await pool.acquire()
            frames = letterboxed(video, PICTURES, (models.height, models.width))
            for run in range(-3, runs):
                slot.frames[0] = frames[run % len(frames)]
                begun = time.perf_counter()
                await asyncio.gather(*(triton.infer(name, slot, 1) for name in (PLAYER_MODEL, PITCH_MODEL)))
                if run >= 0:
                    times["both models alone"].append(time.perf_counter() - begun)
                for count, ready in bodies.items():
                    if run >= 0 and run % count:
                        continue
                    begun = time.perf_counter()
                    answer = await client.post("/predict", content=ready[run % len(ready)])
                    elapsed = time.perf_counter() - begun
                    assert answer.json()["success"], answer.text[:300]
                    if run >= 0:
                        times[f"POST /predict, {count} a request"].append(elapsed / count)
            await triton.detach()
        finally:
            pool.close()
    return times


if __name__ == "__main__":
    main()
