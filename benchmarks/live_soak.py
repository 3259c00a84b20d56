"""Cameras for a while: memory, threads and open files of the gateway over time, one camera dying now and then."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import cpu_seconds, demo_clip, parser, report, scratch, status_mib, take_cores
from local.ports import free_ports
from local.scraped import scraped
from local.stack import local_stack
from tests.support.rtsp_camera import Film, RtspCamera, encoded

SIZE = 640, 360
SECONDS_OF_FILM = 10


def film(video: Path) -> Film:
    """The first seconds of a video as a camera sends them."""
    with av.open(str(video)) as container:
        pictures = [
            frame.to_ndarray(format="rgb24", width=SIZE[0], height=SIZE[1])
            for _, frame in zip(range(25 * SECONDS_OF_FILM), container.decode(video=0), strict=False)
        ]
    return encoded(iter(pictures), SIZE)


def main() -> None:
    arguments_of = parser(__doc__, runs=1)
    arguments_of.add_argument("--minutes", type=float, default=10)
    arguments_of.add_argument("--cameras", type=int, default=4)
    arguments_of.add_argument("--every", type=float, default=30, help="seconds between two rows, and two deaths")
    arguments = arguments_of.parse_args()
    console = Console(width=140)
    reel = film(demo_clip(console).video)
    take_cores(arguments.cores)
    port = free_ports(1)[0]
    settings = {"LIVE": "true", "CONSOLE_PORT": str(port), "LIVE_ALLOWED": "127.0.0.0/8", "DEVICE": "cpu"}
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        cameras = [stack.enter_context(RtspCamera(reel)) for _ in range(arguments.cameras)]
        directory = stack.enter_context(scratch())
        running = stack.enter_context(local_stack(settings=settings, logs=directory))
        browser = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30))
        for index, camera in enumerate(cameras):
            browser.post("/live/cameras", json={"id": f"camera-{index}", "url": camera.url}).raise_for_status()
        pid = running.gateway.pid or 0
        begun = time.monotonic()
        while (elapsed_s := time.monotonic() - begun) < 60 * arguments.minutes + 1:
            inferred = sum(
                one.value
                for one in scraped(running.gateway.metrics_url, "touchline_live_frames_total")
                if one.labels["kind"] == "inferred"
            )
            told = browser.get("/live/cameras").json()["cameras"]
            rows.append(
                {
                    "minute": elapsed_s / 60,
                    "rss_mib": status_mib(pid, "VmRSS"),
                    "own_mib": status_mib(pid, "RssAnon"),
                    "threads": len([*Path(f"/proc/{pid}/task").iterdir()]),
                    "files": len([*Path(f"/proc/{pid}/fd").iterdir()]),
                    "cpu_s": cpu_seconds(pid),
                    "inferred": inferred,
                    "p95_ms": max((one["delay_ms"].get("p95", 0.0) for one in told), default=0.0),
                    "live": sum(one["state"] == "live" for one in told),
                    "connections": sum(one["generation"] for one in told),
                }
            )
            dying = cameras[-1]
            dying.kill()
            time.sleep(0.2)
            dying.start()
            time.sleep(max(0.0, begun + len(rows) * arguments.every - time.monotonic()))
    late = rows[len(rows) // 2 :]
    slope = float(np.polyfit([one["minute"] for one in late], [one["own_mib"] for one in late], 1)[0])
    notes = [
        f"{arguments.cameras} cameras of {SIZE[0]}x{SIZE[1]} at 25 frames/s, the last one killed before each row",
        f"its own memory in the second half: {slope:+.2f} MiB a minute; the rest of RSS is slots and libraries",
    ]
    report(console, table_of(rows), notes, {"rows": rows, "mib_a_minute": slope}, arguments)


def table_of(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "minute",
        "RSS MiB",
        "its own",
        "threads",
        "open files",
        "live",
        "connections",
        "inferred/s",
        "delay p95 ms",
        "cores",
    )
    for before, row in pairwise(rows):
        seconds = 60 * (row["minute"] - before["minute"])
        table.add_row(
            f"{row['minute']:.1f}",
            f"{row['rss_mib']:.0f}",
            f"{row['own_mib']:.0f}",
            str(row["threads"]),
            str(row["files"]),
            str(row["live"]),
            str(row["connections"]),
            f"{(row['inferred'] - before['inferred']) / seconds:.1f}",
            f"{row['p95_ms']:.0f}",
            f"{(row['cpu_s'] - before['cpu_s']) / seconds:.2f}",
        )
    return table


if __name__ == "__main__":
    main()
