"""What cameras cost a challenge: its seconds without them, with cameras that are only received, and with all inferred.

LIVE_SHARE bounds the difference between the last two. The first shows what receiving and decoding takes beside it, of
cameras that run on the same cores.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    NO_LIMITS,
    alternate,
    demo_clip,
    fresh,
    median,
    parser,
    report,
    scratch,
    spread,
    take_cores,
)
from benchmarks.concurrency import post
from benchmarks.live import cameras_of, film
from local.ports import free_ports
from local.scraped import scraped
from local.stack import LocalStack, local_stack
from local.validator import challenge_body, check_response, served_file

SIZE: Final = 640, 360
_RARELY: Final = 100
"""Of a camera that is only received, every 100th frame is inferred."""
WAYS: Final[dict[str, dict[str, Any]]] = {
    "no camera": {"enabled": False},
    "cameras, received": {"enabled": True, "skip": _RARELY},
    "cameras, inferred": {"enabled": True, "skip": 1},
}


def main() -> None:
    arguments_of = parser(__doc__, runs=3)
    arguments_of.add_argument("--cameras", type=int, default=4)
    arguments_of.add_argument("--stride", type=int, default=8, help="FRAME_STRIDE of the challenge")
    arguments_of.add_argument("--share", type=float, default=0.25, help="LIVE_SHARE")
    arguments = arguments_of.parse_args()
    console = Console(width=140)
    video = demo_clip(console).video.resolve()
    reel = film(video, SIZE)
    take_cores(arguments.cores)
    port = free_ports(1)[0]
    settings = {
        **NO_LIMITS,
        **{"FRAME_STRIDE": str(arguments.stride), "LIVE": "true", "LIVE_SHARE": str(arguments.share)},
        **{"CONSOLE_PORT": str(port), "LIVE_ALLOWED": "127.0.0.0/8", "DEVICE": "cpu"},
    }
    with ExitStack() as opened:
        cameras = opened.enter_context(cameras_of(reel, arguments.cameras))
        directory = opened.enter_context(scratch())
        stack = opened.enter_context(local_stack(settings=settings, logs=directory))
        url = opened.enter_context(served_file(video))
        browser = opened.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30))
        for index, camera in enumerate(cameras):
            browser.post("/live/cameras", json={"id": f"camera-{index}", "url": camera.url}).raise_for_status()

        def asked(change: dict[str, Any]) -> dict[str, float]:
            wanted = "live" if change["enabled"] else "disabled"
            for index in range(len(cameras)):
                browser.patch(f"/live/cameras/camera-{index}", json=change).raise_for_status()
            until = time.monotonic() + 60
            while any(one["state"] != wanted for one in browser.get("/live/cameras").json()["cameras"]):
                if time.monotonic() > until:
                    raise TimeoutError(f"the cameras did not come to be {wanted}")
                time.sleep(0.1)
            return challenge(stack, url)

        results = alternate(arguments.runs, {name: partial(asked, way) for name, way in WAYS.items()}, console)
    seconds = {name: [one["elapsed_s"] for one in runs] for name, runs in results.items()}
    table = Table("beside the challenge", "seconds", "frames/s of the cameras inferred", "times as long")
    alone, received = (median(seconds[name]) for name in list(WAYS)[:2])
    for name, runs in results.items():
        rate = spread([one["inferred"] / one["elapsed_s"] for one in runs], 1)
        table.add_row(name, spread(seconds[name]), rate, f"{median(seconds[name]) / alone:.2f}")
    grown = median(seconds["cameras, inferred"]) / received
    notes = [
        f"{arguments.cameras} cameras of {SIZE[0]}x{SIZE[1]} at 25 frames/s on the same cores, LIVE_SHARE "
        f"{arguments.share}, FRAME_STRIDE {arguments.stride}, medians of {arguments.runs} runs in turn",
        f"inferring makes it {grown:.2f} times as long; the share allows {1 / (1 - arguments.share):.2f}",
    ]
    report(console, table, notes, {"grown": grown, "runs": results}, arguments)


def challenge(stack: LocalStack, url: str) -> dict[str, float]:
    """One challenge: its seconds, and the frames of cameras that were inferred meanwhile."""
    before = inferred(stack)
    elapsed_s, content = post(stack, challenge_body(fresh(url), "1"))
    after = inferred(stack)
    check_response(content, "1")
    return {"elapsed_s": elapsed_s, "inferred": after - before}


def inferred(stack: LocalStack) -> float:
    samples = scraped(stack.gateway.metrics_url, "touchline_live_frames_total")
    return sum(one.value for one in samples if one.labels["kind"] == "inferred")


if __name__ == "__main__":
    main()
