"""The gateway without an engine: challenges on models that answer at once, against PyAV decode and scale."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    NO_LIMITS,
    alternate,
    cpu_seconds,
    decode_and_scale,
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
from benchmarks.quick_engine import write_quick_engine
from demo.match import Match
from touchline.local_chain import LocalChain, local_chain
from touchline.validator import served_file


def main() -> None:
    arguments_of = parser(__doc__, runs=7)
    arguments_of.add_argument("--video", type=Path, help="instead of the demo clip")
    arguments_of.add_argument("--stride", type=int, default=2, help="FRAME_STRIDE, and what the baseline scales")
    arguments_of.add_argument("--pitch-stride", type=int, default=0, help="PITCH_STRIDE; 0: the gateway's default")
    arguments = arguments_of.parse_args()
    console = Console()
    video = (arguments.video or demo_clip(console, Match()).video).resolve()
    take_cores(arguments.cores)
    size = served_size()
    settings = {**NO_LIMITS, "FRAME_STRIDE": str(arguments.stride), "PITCH_STRIDE": str(arguments.pitch_stride)}
    with (
        scratch() as directory,
        local_chain(repository=write_quick_engine(directory / "models", size), settings=settings) as chain,
        served_file(video) as url,
    ):
        results = alternate(
            arguments.runs,
            {
                "gateway": lambda: challenge(chain, fresh(url)),
                "pyav": lambda: baseline(video, arguments.stride, size),
            },
            console,
        )
    numbers = summary(results["gateway"], results["pyav"])
    table = Table("", "frames/s", "CPU ms a source frame", title="Gateway alone", title_justify="left")
    frames = numbers["frames"]
    for name, label in (("gateway", "gateway, whole challenges"), ("pyav", "PyAV decode and scale alone")):
        rates = [frames / one["elapsed_s"] for one in results[name]]
        costs = [1000 * one["cpu_s"] / frames for one in results[name]]
        table.add_row(label, spread(rates, 0), spread(costs))
    table.add_section()
    table.add_row("gateway to PyAV", f"{numbers['rate_ratio']:.1%}", f"+{numbers['overhead_ms_a_frame']:.2f} ms")
    notes = [
        f"{frames} frames, every {arguments.stride}. scaled to {size[1]}x{size[0]}, the size of the bundled models; "
        f"medians of {arguments.runs} runs in turn, least and most in brackets.",
        "CPU: all threads of the process (/proc/PID/stat; process_time for PyAV). The difference is the gateway's work "
        "apart from decoding and scaling: download, the copy into the slot, gRPC, tracking, keypoints, JSON, HTTP.",
        "The clip's server, the client and Triton with its copies of the frames share the gateway's cores.",
        "Stages, medians: "
        + ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in numbers["stage_seconds"].items()),
    ]
    report(console, table, notes, numbers, arguments)


def challenge(chain: LocalChain, url: str) -> dict[str, Any]:
    """One challenge: its time as the validator sees it, and the gateway's CPU time."""
    pid = chain.gateway.pid or 0
    before = cpu_seconds(pid)
    outcome = chain.challenge(url)
    return {
        "elapsed_s": outcome.elapsed_s,
        "cpu_s": cpu_seconds(pid) - before,
        "frames": len(outcome.response["frames"]),
        "stage_seconds": outcome.stage_seconds,
    }


def baseline(video: Path, stride: int, size: tuple[int, int]) -> dict[str, Any]:
    frames, spent = decode_and_scale(video, stride, size, threads=len(os.sched_getaffinity(0)))
    return {"elapsed_s": spent.elapsed_s, "cpu_s": spent.cpu_s, "frames": frames}


def summary(gateway: list[dict[str, Any]], pyav: list[dict[str, Any]]) -> dict[str, Any]:
    """The goals of the comparison, from runs of one length."""
    frames = gateway[0]["frames"]
    if {one["frames"] for one in gateway + pyav} != {frames}:
        raise ValueError("the gateway and PyAV did not decode the same number of frames")
    return {
        "frames": frames,
        "gateway_frames_per_s": frames / median([one["elapsed_s"] for one in gateway]),
        "pyav_frames_per_s": frames / median([one["elapsed_s"] for one in pyav]),
        "rate_ratio": median([one["elapsed_s"] for one in pyav]) / median([one["elapsed_s"] for one in gateway]),
        "overhead_ms_a_frame": 1000
        * (median([one["cpu_s"] for one in gateway]) - median([one["cpu_s"] for one in pyav]))
        / frames,
        "stage_seconds": {
            stage: median([one["stage_seconds"][stage] for one in gateway]) for stage in gateway[0]["stage_seconds"]
        },
        "runs": {"gateway": gateway, "pyav": pyav},
    }


if __name__ == "__main__":
    main()
