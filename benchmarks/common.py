"""What the benchmarks share: arguments, cores, the clip, PyAV on its own, readings of other processes, the report."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as grpcclient
from av.video.reformatter import VideoReformatter
from rich.console import Console
from rich.table import Table

from demo.clip import ClipPaths, make_clip
from demo.match import Match
from gateway.inference.triton import CHANNEL
from gateway.video.decode import Decoder
from gateway.video.growing_file import GrowingFile
from local.progress import progress_bar
from local.triton import DEFAULT_REPOSITORY, LocalTriton
from touchline.contract import INPUT, PLAYER_MODEL, Letterbox
from touchline.video_read import open_video, video_stream

NO_LIMITS = {"CHALLENGE_BUDGET_S": "100000", "CHALLENGE_TIMEOUT_S": "3600"}
"""Settings under which a stride stays what it is, however slow the machine: for comparisons of the same work."""
EVERY_FRAME = {"FRAME_STRIDE": "1", "PITCH_STRIDE": "1", **NO_LIMITS}

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_counter = itertools.count(time.time_ns() % 1_000_000_000)


def parser(description: str | None, *, runs: int = 5, cores: int = 2) -> argparse.ArgumentParser:
    """A parser with the arguments of every benchmark."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--runs", type=int, default=runs, help="measured repetitions, after one that warms up")
    made.add_argument("--cores", type=int, default=cores, help="cores for all processes of the benchmark together")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    return made


def take_cores(count: int) -> int:
    """Restrict this process, and every one it starts from now on, to `count` cores; how many it got."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return len(cores)


def demo_clip(console: Console, match: Match | None = None, directory: Path = Path("out/clip")) -> ClipPaths:
    """The clip of `make demo`, made now if it is not there. Call it before take_cores: rendering takes minutes."""
    with progress_bar(console, "synthetic match") as advance:
        return make_clip(directory, match or Match(), advance)


def served_size(repository: Path = DEFAULT_REPOSITORY) -> tuple[int, int]:
    """Height and width of the input of the models in `repository`."""
    config = (repository / PLAYER_MODEL / "config.pbtxt").read_text()
    height, width, _ = (
        int(dim) for dim in re.findall(r"\d+", config[config.index("UINT8") + 5 : config.index("output")])
    )
    return height, width


def fresh(url: str) -> str:
    """The same file under a URL that was never asked for: the gateway computes a URL once."""
    return f"{url}?n={next(_counter)}"


@dataclass(frozen=True, slots=True)
class Spent:
    """What a piece of work took."""

    elapsed_s: float
    cpu_s: float
    """CPU time of all threads of the process."""


def decode_and_scale(video: Path, stride: int, size: tuple[int, int]) -> tuple[int, Spent]:
    """Decode and scale in this process as the gateway does, into one slot again and again; frames of the video.

    Every `stride`-th frame and the last are scaled to `size` (height, width); a frame that no other needs is skipped.
    """
    slot = np.ones((16, *size, 3), np.uint8)
    with decoder(video, stride, size) as decoding:
        # The file is there and the slot's memory was touched, as in a gateway that answered before.
        began, cpu = time.perf_counter(), time.process_time()
        decoding.open()
        while not decoding.fill(slot).last:
            pass
        return decoding.frame_count, Spent(time.perf_counter() - began, time.process_time() - cpu)


def pyav_decode_and_scale(video: Path, stride: int, size: tuple[int, int]) -> tuple[int, Spent]:
    """Decode every frame with PyAV and let it scale each `stride`-th to `size` (height, width); frames of the video.

    PyAV's defaults but for frame threads on every core this process may use. Nothing is copied or kept.
    """
    frames = 0
    began, cpu = time.perf_counter(), time.process_time()
    with video.open("rb") as file, open_video(file) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = len(os.sched_getaffinity(0))
        width, height = Letterbox(stream.width, stream.height, size[1], size[0]).content_size
        reformatter = VideoReformatter()
        for frames, frame in enumerate(container.decode(stream), start=1):
            if (frames - 1) % stride == 0:
                reformatter.reformat(frame, width, height, "rgb24")
    return frames, Spent(time.perf_counter() - began, time.process_time() - cpu)


@contextmanager
def decoder(video: Path, stride: int, size: tuple[int, int]) -> Iterator[Decoder]:
    """The gateway's decoder on the whole file, every sampled frame for the pitch model too: in frame order."""
    with GrowingFile() as file:
        file.append(video.read_bytes())
        file.finish()
        with Decoder(
            file,
            size=(size[1], size[0]),
            frame_stride=stride,
            pitch_stride=stride,
            max_frames=10**6,
        ) as decoding:
            yield decoding


def every_frame(video: Path, model: str, output: str) -> tuple[npt.NDArray[np.float32], Letterbox]:
    """A bundled model's `output` of every frame, float32 [frames, ...], and how the frames lie in its input."""
    answers = []
    with LocalTriton(log=Path("out/logs/triton.log")) as triton:
        triton.wait_ready()
        client = grpcclient.InferenceServerClient(triton.grpc_url, channel_args=CHANNEL)
        height, width = client.get_model_metadata(model).inputs[0].shape[1:3]
        slot, last = np.empty((8, height, width, 3), np.uint8), False
        with decoder(video, 1, (height, width)) as decoding:
            info = decoding.open()
            while not last:
                filled = decoding.fill(slot)
                frames = slot[: len(filled.frame_numbers)]
                tensor = grpcclient.InferInput(INPUT, list(frames.shape), "UINT8")
                tensor.set_data_from_numpy(frames)
                answers.append(client.infer(model, [tensor]).as_numpy(output))
                last = filled.last
    return np.concatenate(answers), info.letterbox


def letterboxed(video: Path, count: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The first `count` frames of a video as model input, uint8 [count, H, W, 3], from the start again when it ends."""
    frames = np.empty((count, *size, 3), np.uint8)
    done = 0
    while done < count:
        with decoder(video, 1, size) as decoding:
            decoding.open()
            done += len(decoding.fill(frames[done:]).frame_numbers)
    return frames


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all its threads, those that ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def status_mib(pid: int, field: str) -> float:
    """A field of /proc/PID/status that is given in kB, such as VmHWM (peak RSS), in MiB."""
    match = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if match is None:
        raise ValueError(f"/proc/{pid}/status has no {field}")
    return int(match[1]) / 1024


def alternate(runs: int, variants: dict[str, Callable[[], Any]], console: Console) -> dict[str, list[Any]]:
    """Run each variant once to warm up, then all of them in turn, `runs` times; what the measured runs returned."""
    results: dict[str, list[Any]] = {name: [] for name in variants}
    total = (runs + 1) * len(variants)
    with progress_bar(console, "measuring", "runs") as advance:
        for done, (run, (name, variant)) in enumerate(itertools.product(range(runs + 1), variants.items()), start=1):
            result = variant()
            if run:
                results[name].append(result)
            advance(done, total)
    return results


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and least and most in brackets."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="touchline-bench-") as directory:
        yield Path(directory)


def report(
    console: Console, table: Table, notes: Sequence[str], numbers: dict[str, Any], arguments: argparse.Namespace
) -> None:
    """Print the table, what it means and on what machine; write the numbers where --json says."""
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "machine_cores": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "load_average_1min": round(os.getloadavg()[0], 2),
    }
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)
    console.print(
        f"[dim]{machine['cores']} of {machine['machine_cores']} cores of {machine['processor']}, "
        f"load average of the last minute {machine['load_average_1min']}[/]",
        highlight=False,
    )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        command = f"python -m {Path(sys.argv[0]).parent.name}.{Path(sys.argv[0]).stem} {' '.join(sys.argv[1:])}".strip()
        arguments.json.write_text(
            json.dumps({"command": command, "machine": machine, **numbers}, indent=1, default=str) + "\n"
        )


def _processor() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()
