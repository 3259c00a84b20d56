"""Peak memory of the gateway's process for a short and a long video: it must not grow with the video."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import av
from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    NO_LIMITS,
    demo_clip,
    fresh,
    median,
    parser,
    report,
    scratch,
    served_size,
    spread,
    status_mib,
    take_cores,
)
from benchmarks.quick_engine import write_quick_engine
from demo.match import Match
from local.stack import LocalStack, local_stack
from local.triton import DEFAULT_REPOSITORY
from local.validator import served_file
from touchline.video_read import open_video


def main() -> None:
    arguments_of = parser(__doc__, runs=3)
    arguments_of.add_argument("--frames", type=int, nargs=2, default=[750, 10_000], metavar=("SHORT", "LONG"))
    arguments_of.add_argument("--engine", choices=("quick", "bundled"), default="quick", help="who infers")
    arguments_of.add_argument("--stride", type=int, default=2, help="FRAME_STRIDE")
    arguments = arguments_of.parse_args()
    console = Console()
    clip = demo_clip(console, Match()).video
    take_cores(arguments.cores)
    settings = {**NO_LIMITS, "FRAME_STRIDE": str(arguments.stride)}
    peaks: dict[int, list[dict[str, float]]] = {frames: [] for frames in arguments.frames}
    with scratch() as directory:
        quick = write_quick_engine(directory / "models", served_size())
        videos = {frames: loop_video(clip, directory / f"{frames}.mp4", frames) for frames in arguments.frames}
        for _, (frames, video) in itertools.product(range(arguments.runs), videos.items()):
            # A gateway of its own for every run: a peak stays with its process.
            with (
                console.status(f"{frames} frames"),
                local_stack(
                    repository=quick if arguments.engine == "quick" else DEFAULT_REPOSITORY, settings=settings
                ) as stack,
                served_file(video) as url,
            ):
                peaks[frames].append(peak(stack, fresh(url), frames))
    short, long = (median([one["peak_mib"] for one in peaks[frames]]) for frames in arguments.frames)
    table = Table(
        "frames", "peak RSS, MiB", "before, MiB", "shared memory, MiB", "frames/s", title="Memory of the gateway"
    )
    table.title_justify = "left"
    for frames, runs in peaks.items():
        table.add_row(
            str(frames),
            *(spread([one[key] for one in runs], 0) for key in ("peak_mib", "idle_mib", "shared_mib")),
            spread([frames / one["elapsed_s"] for one in runs], 0),
        )
    table.add_section()
    table.add_row("growth", f"{long / short - 1:+.1%}")
    notes = [
        f"VmHWM of /proc/PID/status, shared slots included; a new gateway for each of {arguments.runs} runs, "
        f"{'models that answer at once' if arguments.engine == 'quick' else 'the bundled models'}, "
        f"FRAME_STRIDE {arguments.stride}. The long video is the demo clip over and over, not encoded again.",
    ]
    numbers: dict[str, Any] = {
        "growth": long / short - 1,
        "peak_mib": {arguments.frames[0]: short, arguments.frames[1]: long},
        "runs": peaks,
    }
    report(console, table, notes, numbers, arguments)


def peak(stack: LocalStack, url: str, frames: int) -> dict[str, float]:
    """Memory of the gateway before and at the peak of one challenge, in MiB."""
    pid = stack.gateway.pid or 0
    idle = status_mib(pid, "VmRSS")
    outcome = stack.challenge(url)
    if len(outcome.response["frames"]) != frames:
        raise ValueError(f"the gateway answered {len(outcome.response['frames'])} frames of {frames}")
    return {
        "idle_mib": idle,
        "peak_mib": status_mib(pid, "VmHWM"),
        "shared_mib": status_mib(pid, "RssShmem"),
        "elapsed_s": outcome.elapsed_s,
    }


def loop_video(source: Path, target: Path, frames: int) -> Path:
    """Write exactly `frames` frames of `source`, from its start again whenever it ends, without encoding anew.

    Packets are cut in decoding order, where no frame needs a later one.
    """
    with (
        av.open(str(target), "w", options={"movflags": "+faststart"}) as out,
        packets(source, frames) as (stream, kept),
    ):
        copied = out.add_stream_from_template(stream)
        for packet in kept:
            packet.stream = copied
            out.mux(packet)
    return target


@contextmanager
def packets(source: Path, count: int) -> Iterator[tuple[av.video.stream.VideoStream, Iterator[av.Packet]]]:
    """The video stream of `source` and its packets, `count` of them, their times carried on at every new start."""
    containers: list[av.container.InputContainer] = []

    def opened() -> av.container.InputContainer:
        containers.append(open_video(BytesIO(source.read_bytes())))
        return containers[-1]

    def endless(first: av.container.InputContainer) -> Iterator[av.Packet]:
        shift, container = 0, first
        while True:
            stream, end = container.streams.video[0], 0
            for packet in container.demux(stream):
                if packet.dts is None:
                    continue
                end = max(end, packet.pts + packet.duration)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                yield packet
            if not end:
                raise ValueError(f"{source} has no video packets")
            shift += end
            container = opened()

    try:
        first = opened()
        yield first.streams.video[0], itertools.islice(endless(first), count)
    finally:
        for container in containers:
            container.close()


if __name__ == "__main__":
    main()
