"""The match as files: an H.264 clip as a broadcaster would send it, and beside it what is true in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import cv2
import numpy as np
import numpy.typing as npt

from demo.match import Match
from demo.truth import Truth
from touchline.actions import Action
from touchline.atomic_file import replacing

VERSION: Final = 3
"""Raise it when a frame of the same match looks different: clips that were made before are then made anew."""

_BIT_RATE: Final = 4_000_000
_KEYFRAME_EVERY: Final = 50
_CHUNK: Final = 5

Planes = npt.NDArray[np.uint8]


class ClipPaths(NamedTuple):
    """The files of a clip."""

    video: Path
    truth: Path
    actions: Path


def make_clip(
    directory: Path,
    match: Match | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> ClipPaths:
    """Write `match.mp4`, `truth.npz` and `actions.json` into the directory, unless the same match lies there already.

    `progress(done, total)` is called after every frame. Rendering runs in `workers` processes (default: one a core,
    4 at most; 1: in this process). Files appear whole or not at all; a failure or Ctrl-C leaves none behind.
    Raises OSError where the directory cannot be written.
    """
    match = match or Match()
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = ClipPaths(directory / "match.mp4", directory / "truth.npz", directory / "actions.json")
    key = _key(match)
    report = progress or (lambda _done, _total: None)
    if paths.video.is_file() and _key_of(paths.truth) == key:
        report(match.frames, match.frames)
        _save_actions(paths.actions, match)
        return paths
    video, truth, _ = (path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}") for path in paths)
    try:
        truths = _encode(video, match, report, workers or min(4, len(os.sched_getaffinity(0))))
        _save_truth(truth, truths, key)
        # The truth vouches for the video: it goes first and comes last.
        paths.truth.unlink(missing_ok=True)
        video.replace(paths.video)
        _save_actions(paths.actions, match)
        truth.replace(paths.truth)
    finally:
        video.unlink(missing_ok=True)
        truth.unlink(missing_ok=True)
    return paths


def load_truth(path: Path) -> list[Truth]:
    """The truth of every frame, in frame order. Raises OSError or KeyError for a file `make_clip` did not write."""
    with np.load(path, allow_pickle=False) as file:
        stored = {name: file[name] for name in ("counts", "boxes", "classes", "ids", "keypoints", "homographies")}
    ends = np.cumsum(stored["counts"])[:-1]
    boxes, classes, ids = (np.split(stored[name], ends) for name in ("boxes", "classes", "ids"))
    return [
        Truth(number, boxes[number], classes[number], ids[number], keypoints, homography)
        for number, (keypoints, homography) in enumerate(zip(stored["keypoints"], stored["homographies"], strict=True))
    ]


def load_actions(path: Path) -> list[Action]:
    """What happens, in order. Raises OSError or KeyError for a file that `make_clip` did not write."""
    return [Action(item["frame"], item["action"]) for item in json.loads(path.read_text())]


def _save_actions(path: Path, match: Match) -> None:
    """As the subnet lists actions."""
    with replacing(path) as part:
        part.write_text(json.dumps([{"frame": each.frame, "action": each.label} for each in match.play.actions]))


def _save_truth(path: Path, truths: Sequence[Truth], key: str) -> None:
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            key=np.array(key),
            counts=np.array([len(truth.ids) for truth in truths], np.int64),
            boxes=np.concatenate([truth.boxes for truth in truths]),
            classes=np.concatenate([truth.classes for truth in truths]),
            ids=np.concatenate([truth.ids for truth in truths]),
            keypoints=np.stack([truth.keypoints for truth in truths]),
            homographies=np.stack([truth.homography for truth in truths]),
        )


def _key(match: Match) -> str:
    """What a clip depends on, as a digest."""
    arguments = {name: value for name, value in _arguments(match).items() if name != "lively" or value}
    described = {"version": VERSION, "bit_rate": _BIT_RATE, "keyframe_every": _KEYFRAME_EVERY, **arguments}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _key_of(path: Path) -> str | None:
    """The digest stored in a truth file, None where there is no such file or it is no such file."""
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError), np.load(path, allow_pickle=False) as file:
        return str(file["key"])
    return None


def _arguments(match: Match) -> dict[str, Any]:
    return {name: getattr(match, name) for name in ("seed", "frames", "width", "height", "fps", "lively")}


def _encode(path: Path, match: Match, progress: Callable[[int, int], None], workers: int) -> list[Truth]:
    truths = []
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=match.fps)
        stream.width, stream.height, stream.pix_fmt = match.width, match.height, "yuv420p"
        stream.bit_rate = _BIT_RATE
        stream.gop_size = _KEYFRAME_EVERY
        # One thread and no macroblock tree: with either, the same frames were seen to give different files.
        stream.codec_context.thread_count = 1
        stream.options = {
            "preset": "veryfast",
            "mbtree": "0",
            "maxrate": str(_BIT_RATE * 3 // 2),
            "bufsize": str(_BIT_RATE * 2),
        }
        with contextlib.closing(_rendered(match, workers)) as rendered:
            for planes, truth in rendered:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
                truths.append(truth)
                progress(len(truths), match.frames)
        container.mux(stream.encode(None))
    return truths


def _planes(match: Match, number: int) -> tuple[Planes, Truth]:
    """One frame as planar YUV 4:2:0, uint8 [height * 3 / 2, width], half the bytes to hand to another process."""
    image, truth = match.frame(number)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8), truth


def _rendered(match: Match, workers: int) -> Generator[tuple[Planes, Truth], None, None]:
    """All frames in order, from this process or from several."""
    if workers == 1:
        yield from (_planes(match, number) for number in range(match.frames))
        return
    # Spawned, not forked: the caller may have threads (a progress bar, an event loop).
    context = multiprocessing.get_context("spawn")
    chunks = iter([range(first, min(first + _CHUNK, match.frames)) for first in range(0, match.frames, _CHUNK)])
    with ProcessPoolExecutor(workers, context, _start_worker, (_arguments(match), os.getpid())) as pool:
        # A window of chunks, so that rendered frames do not pile up before the encoder.
        waiting: list[Future[list[tuple[Planes, Truth]]]] = [
            pool.submit(_render_chunk, chunk) for chunk in islice(chunks, 3 * workers)
        ]
        try:
            while waiting:
                yield from waiting.pop(0).result()
                waiting.extend(pool.submit(_render_chunk, chunk) for chunk in islice(chunks, 1))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_worker_match: Match | None = None


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed parent cannot end it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _start_worker(arguments: dict[str, Any], parent: int) -> None:
    global _worker_match  # noqa: PLW0603  a pool's initializer has no other place to leave what its tasks need
    # Ctrl-C reaches a whole process group: the one who started the workers ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    cv2.setNumThreads(1)
    _worker_match = Match(**arguments)


def _render_chunk(numbers: range) -> list[tuple[Planes, Truth]]:
    if _worker_match is None:
        raise RuntimeError("the worker was not started")
    return [_planes(_worker_match, number) for number in numbers]
