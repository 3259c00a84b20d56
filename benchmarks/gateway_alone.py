"""The gateway without an engine: challenges on models that answer at once, against decoding and scaling alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    NO_LIMITS,
    Spent,
    alternate,
    cpu_seconds,
    decode_and_scale,
    demo_clip,
    fresh,
    median,
    parser,
    pyav_decode_and_scale,
    report,
    scratch,
    served_size,
    spread,
    take_cores,
)
from benchmarks.quick_engine import write_quick_engine
from demo.match import Match
from local.stack import LocalStack, local_stack
from local.validator import served_file


def main() -> None:
    arguments_of = parser(__doc__, runs=7)
    arguments_of.add_argument("--video", type=Path, help="instead of the demo clip")
    arguments_of.add_argument("--stride", type=int, default=2, help="FRAME_STRIDE, and what is scaled without it")
    arguments_of.add_argument("--pitch-stride", type=int, default=0, help="PITCH_STRIDE; 0: the gateway's default")
    arguments = arguments_of.parse_args()
    console = Console()
    video = (arguments.video or demo_clip(console, Match()).video).resolve()
    take_cores(arguments.cores)
    size = served_size()
    settings = {**NO_LIMITS, "FRAME_STRIDE": str(arguments.stride), "PITCH_STRIDE": str(arguments.pitch_stride)}
    with (
        scratch() as directory,
        local_stack(repository=write_quick_engine(directory / "models", size), settings=settings) as stack,
        served_file(video) as url,
    ):
        results = alternate(
            arguments.runs,
            {
                "gateway": lambda: challenge(stack, fresh(url)),
                "own": lambda: alone(decode_and_scale, video, arguments.stride, size),
                "pyav": lambda: alone(pyav_decode_and_scale, video, arguments.stride, size),
            },
            console,
        )
    numbers = summary(**results)
    table = Table("", "frames/s", "CPU ms a source frame", "gateway to it", title="Gateway alone", title_justify="left")
    frames = numbers["frames"]
    labels = {
        "gateway": "gateway, whole challenges",
        "own": "its decoding and scaling alone",
        "pyav": "PyAV decode and scale alone",
    }
    for name, label in labels.items():
        rates = [frames / one["elapsed_s"] for one in results[name]]
        costs = [1000 * one["cpu_s"] / frames for one in results[name]]
        ratio = "" if name == "gateway" else f"{numbers[name]['rate_ratio']:.0%}"
        table.add_row(label, spread(rates, 0), spread(costs), ratio)
    notes = [
        f"{frames} frames, every {arguments.stride}. scaled to {size[1]}x{size[0]}, the size of the bundled models; "
        f"medians of {arguments.runs} runs in turn, least and most in brackets.",
        "PyAV decodes every frame. The gateway leaves out those that are not sampled and no other frame needs.",
        f"Its work apart from decoding and scaling: {numbers['overhead_ms_a_frame']:.2f} ms of CPU a source frame "
        "(download, gRPC, tracking, keypoints, JSON, HTTP): all threads of the process, /proc/PID/stat, less the same "
        "decoding and scaling alone.",
        "The clip's server, the client and Triton with its copies of the frames share the gateway's cores.",
        "Stages, medians: "
        + ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in numbers["stage_seconds"].items()),
    ]
    report(console, table, notes, numbers, arguments)


def challenge(stack: LocalStack, url: str) -> dict[str, Any]:
    """One challenge: its time as the validator sees it, and the gateway's CPU time."""
    pid = stack.gateway.pid or 0
    before = cpu_seconds(pid)
    outcome = stack.challenge(url)
    return {
        "elapsed_s": outcome.elapsed_s,
        "cpu_s": cpu_seconds(pid) - before,
        "frames": len(outcome.response["frames"]),
        "stage_seconds": outcome.stage_seconds,
    }


def alone(
    work: Callable[[Path, int, tuple[int, int]], tuple[int, Spent]], video: Path, stride: int, size: tuple[int, int]
) -> dict[str, Any]:
    frames, spent = work(video, stride, size)
    return {"elapsed_s": spent.elapsed_s, "cpu_s": spent.cpu_s, "frames": frames}


def summary(gateway: list[dict[str, Any]], own: list[dict[str, Any]], pyav: list[dict[str, Any]]) -> dict[str, Any]:
    """The goals of the comparison, from runs of one length."""
    frames = gateway[0]["frames"]
    if {one["frames"] for one in gateway + own + pyav} != {frames}:
        raise ValueError("not all decoded the same number of frames")
    runs = {"gateway": gateway, "own": own, "pyav": pyav}
    elapsed, cpu = (
        {name: median([one[value] for one in results]) for name, results in runs.items()}
        for value in ("elapsed_s", "cpu_s")
    )
    return {
        "frames": frames,
        **{
            name: {
                "frames_per_s": frames / elapsed[name],
                "cpu_ms_a_frame": 1000 * cpu[name] / frames,
                "rate_ratio": elapsed[name] / elapsed["gateway"],
            }
            for name in elapsed
        },
        "overhead_ms_a_frame": 1000 * (cpu["gateway"] - cpu["own"]) / frames,
        "stage_seconds": {
            stage: median([one["stage_seconds"][stage] for one in gateway]) for stage in gateway[0]["stage_seconds"]
        },
        "runs": runs,
    }


if __name__ == "__main__":
    main()
