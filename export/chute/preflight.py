"""`touchline package --check`: every rule of the public track, held against a folder before anybody pays for it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from export.chute.rules import Verdict, look
from export.chute.worker import N_KEYPOINTS, PROCESSES
from export.errors import ExportError
from export.frames import pictures as pictures_in
from touchline.overlap import iou

WALL_S: Final = 45.0
"""For the start, and for a call."""
LATENCY_MS: Final = 100.0
AGREEMENT: Final = 0.95
MOST_GIB: Final = 5.0
CORES: Final = 2
MEASURED: Final = 30
"""Calls of one picture whose 95th percentile counts."""
BOX: Final = ("x1", "y1", "x2", "y2", "cls_id")

Picture = npt.NDArray[np.uint8]


@dataclass(slots=True)
class Run:
    """What a worker did. `failure` is empty where it came to its end."""

    init_s: float = 0.0
    all_s: float = 0.0
    each_s: list[float] = field(default_factory=list)
    frames: list[dict[str, Any]] | None = None
    threads: int = 0
    peak_gib: float = 0.0
    failure: str = ""
    failed_at: str = "init"


def check(folder: Path, directory: Path | None, *, wall_s: float = WALL_S) -> Iterator[Verdict]:
    """Every rule's verdict on `folder`, with the pictures of `directory`, else views of the synthetic match.

    ExportError where there is no folder, or no picture.
    """
    if not folder.is_dir():
        raise ExportError(f"--check {folder}: there is no such folder. Name one that `touchline package` wrote.")
    pictures = read_pictures(directory)
    verdicts = list(look(folder))
    yield from verdicts
    if any(verdict.kept is False for verdict in verdicts):
        # An audit stops here too: nobody runs what its own look has refused.
        yield Verdict("runs as an audit runs it", None, "not tried: a rule above is broken")
        return
    run = worked(folder, pictures, "cpu", wall_s, calls=MEASURED)
    yield from of_run(run, len(pictures), wall_s)
    if run.frames is not None:
        yield from agreements(folder, pictures, run.frames, wall_s)


def read_pictures(directory: Path | None) -> list[Picture]:
    """Some pictures BGR, uint8 [H, W, 3] each: of a folder, evenly chosen, or 1280x720 of the synthetic match."""
    if directory is None:
        try:
            from demo.views import random_view
        except ImportError as error:
            raise ExportError("there are no pictures here to try it on. Give --pictures.") from error
        rng = np.random.default_rng(0)
        return [np.ascontiguousarray(random_view(rng, (720, 1280))[0][..., ::-1]) for _ in range(8)]
    import cv2

    if not directory.is_dir():
        raise ExportError(f"--pictures {directory}: there is no such folder. Give one with some pictures.")
    files = pictures_in(directory, "--pictures")
    read = [(file, cv2.imread(str(file))) for file in files[:: max(1, len(files) // 16)][:16]]
    for file, picture in read:
        if picture is None:
            raise ExportError(f"{file}: not an image that can be read. Take it out of --pictures.")
    return [np.asarray(picture, np.uint8) for _, picture in read]


def of_run(run: Run, count: int, wall_s: float) -> Iterator[Verdict]:
    """What a run on the CPU says."""
    started = run.failed_at != "init" or not run.failure
    yield Verdict(
        f"starts within {wall_s:g} s in 8 GiB of address space, without a network",
        started,
        f"{run.init_s:.1f} s" if started else run.failure,
    )
    if not started:
        return
    rule = f"one result a picture within {wall_s:g} s, with frame_id and boxes of x1 y1 x2 y2 cls_id"
    wrong = run.failure or wrong_output(run.frames or [], count)
    yield Verdict(rule, not wrong, wrong or f"{count} pictures in {run.all_s:.1f} s")
    if run.failure:
        return
    yield Verdict(f"at most {PROCESSES} processes and threads", run.threads <= PROCESSES, str(run.threads))
    yield Verdict(f"at most {MOST_GIB:g} GiB in memory", run.peak_gib <= MOST_GIB, f"{run.peak_gib:.2f} GiB")
    p95_ms = float(np.percentile(run.each_s, 95) * 1000)
    said = f"{p95_ms:.0f} ms, median {np.median(run.each_s) * 1000:.0f} ms, of {len(run.each_s)} calls"
    cores = min(CORES, len(os.sched_getaffinity(0)))
    yield Verdict(
        f"p95 of a picture at most {LATENCY_MS:g} ms on {cores} cores",
        p95_ms <= LATENCY_MS,
        said if p95_ms <= LATENCY_MS else f"{said}; a smaller input (--imgsz) or network",
    )


def agreements(
    folder: Path, pictures: Sequence[Picture], own: list[dict[str, Any]], wall_s: float
) -> Iterator[Verdict]:
    """Whether other engines give the CPU's boxes: what is live runs on a GPU, what is audited on a CPU."""
    boxes = sum(len(frame["boxes"] or []) for frame in own)
    for engine, name in engines():
        rule = f"mean IoU with {name} at least {AGREEMENT:g}"
        if not boxes:
            yield Verdict(rule, None, "nothing was found in the pictures; give --pictures of the element")
            continue
        other = worked(folder, pictures, engine, 4 * wall_s)
        if other.frames is None:
            yield Verdict(rule, None, f"could not be run: {other.failure}")
            continue
        mean, matched, lost, extra = agreement(own, other.frames)
        said = f"{mean:.4f} over {matched} boxes, {lost} missing, {extra} more"
        yield Verdict(rule, mean >= AGREEMENT, said if mean >= AGREEMENT else f"{said}; another network")


def engines() -> list[tuple[str, str]]:
    """Engines beside ONNX Runtime's CPU that are to be had here; a GPU's rounding by itself where there is none."""
    import onnxruntime

    found = [("cuda", "CUDA")] if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else []
    if importlib.util.find_spec("openvino"):
        found.append(("openvino", "OpenVINO"))
    if not found or found[0][0] != "cuda":
        found.append(("half", "a GPU's arithmetic (emulated)"))
    return found


def wrong_output(frames: list[dict[str, Any]], count: int) -> str:
    """What an audit would not take; empty: nothing."""
    if len(frames) != count:
        return f"{len(frames)} results for {count} pictures; return one for each"
    for index, frame in enumerate(frames):
        if "frame_id" not in frame:
            return f"result {index} has no frame_id; add it"
        missing = [name for box in frame.get("boxes") or [] for name in BOX if name not in box]
        if missing:
            return f"a box of result {index} has no {missing[0]}; add it"
        points = frame.get("keypoints")
        if points and len(points) != N_KEYPOINTS:
            return f"result {index} has {len(points)} keypoints; return n_keypoints of them"
    return ""


def agreement(own: list[dict[str, Any]], others: list[dict[str, Any]]) -> tuple[float, int, int, int]:
    """Mean IoU of boxes matched within a class, and how many: matched, without a partner there, without one here.

    Boxes without a partner count as 0.
    """
    overlaps, matched, total, found = list[float](), 0, 0, 0
    for frame, other in zip(own, others, strict=True):
        total, found = total + len(frame["boxes"] or []), found + len(other["boxes"] or [])
        for cls_id in {box["cls_id"] for box in frame["boxes"] or []}:
            mine, theirs = (_corners(each, cls_id) for each in (frame, other))
            table = iou(mine, theirs)
            rows, columns = linear_sum_assignment(-table)
            pairs = [value for value in table[rows, columns].tolist() if value > 0]
            overlaps += pairs
            matched += len(pairs)
    lost, extra = total - matched, found - matched
    return (sum(overlaps) / max(1, matched + lost + extra) if total or found else 1.0), matched, lost, extra


def _corners(frame: dict[str, Any], cls_id: int) -> npt.NDArray[np.float64]:
    """float64 [4, n]: the boxes of a class."""
    chosen = [[box[side] for side in BOX[:4]] for box in frame["boxes"] or [] if box["cls_id"] == cls_id]
    return np.array(chosen, np.float64).reshape(-1, 4).T


def worked(folder: Path, pictures: Sequence[Picture], engine: str, wall_s: float, *, calls: int = 0) -> Run:
    """A worker's run over all pictures at once, and then `calls` times one."""
    run = Run()
    with tempfile.TemporaryDirectory(prefix="touchline-") as scratch:
        stored = Path(scratch) / "pictures.npz"
        np.savez(stored, *pictures)
        command = [sys.executable, "-m", "export.chute.worker", str(folder.resolve()), str(stored), engine, str(calls)]
        cores = sorted(os.sched_getaffinity(0))[:CORES]
        errors = Path(scratch) / "errors"
        with errors.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                command,
                cwd=scratch,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509
            )
        assert process.stdout
        try:
            _follow(process, run, wall_s)
        finally:
            _end(process)
            process.stdout.close()
        if run.frames is None and not run.failure:
            lines = errors.read_text(errors="replace").strip().splitlines() or [f"it ended with {process.returncode}"]
            run.failure = f"{lines[-1][:300]}; correct miner.py or the model"
    return run


def _follow(process: subprocess.Popen[bytes], run: Run, wall_s: float) -> None:
    """Take what the worker says, each step within `wall_s`."""
    assert process.stdout
    late = threading.Event()

    def give_up() -> None:
        late.set()
        _end(process)

    def started(step: str) -> threading.Timer:
        run.failed_at = step
        timer = threading.Timer(wall_s, give_up)
        timer.daemon = True
        timer.start()
        return timer

    timer = started("init")
    try:
        for line in process.stdout:
            timer.cancel()
            said = json.loads(line)
            run.each_s += [said["one_s"]] if "one_s" in said else []
            for name in said.keys() & {"init_s", "all_s", "frames", "threads", "peak_gib"}:
                setattr(run, name, said[name])
            timer = started("infer")
    finally:
        timer.cancel()
    process.wait()
    if late.is_set():
        run.frames = None
        run.failure = f"took longer than {wall_s:g} s; a smaller network or input"
    elif process.returncode:
        run.frames = None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of the worker is left, whatever it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment() -> dict[str, str]:
    """Without secrets, and with Touchline to be found from another folder."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
