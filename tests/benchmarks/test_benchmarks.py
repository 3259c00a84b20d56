"""The benchmarks run, on tiny inputs, and their arithmetic is right. What they measure is never asserted."""

from __future__ import annotations

import asyncio
import json
import runpy
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from rich.console import Console

from benchmarks import (
    auto_stride,
    budget,
    common,
    concurrency,
    console,
    gateway_alone,
    left_in_queue,
    limit,
    long_strides,
    memory,
    predict,
    private,
    reference,
    trade_off,
    transport,
)
from benchmarks.quick_engine import SOURCE_SIZE, write_quick_engine
from demo.clip import ClipPaths
from demo.truth import Truth
from gateway.inference.outputs import detections_from_rows, keypoints_from_rows
from gateway.pace import ModelCosts
from gateway.settings import QUALITY_FLOOR
from gateway.stride_quality import MEASURED_FPS, PEOPLE_FOUND
from gateway.tracking.keypoints import KeypointTracker
from gateway.tracking.tracker import Tracker
from local.scraped import scraped
from local.stack import local_stack
from local.triton import LocalTriton
from local.validator import Outcome
from tests.support.pictures import read_picture
from tests.support.videos import make_video, read_number
from touchline.contract import DEFAULT_SIZE, Letterbox
from touchline.homography import pitch_homography

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_quick_engine(tmp_path_factory.mktemp("quick") / "models")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a benchmark as its command line would, without giving up cores; what it wrote as JSON."""
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)

    def run(main: Callable[[], None], *arguments: object) -> dict[str, Any]:
        answer = tmp_path / "numbers.json"
        monkeypatch.setattr(sys, "argv", ["benchmarks/it.py", *map(str, arguments), "--json", str(answer)])
        main()
        return dict(json.loads(answer.read_text()))

    return run


def test_the_quick_engine_shows_people_that_are_tracked_and_a_pitch(engine: Path) -> None:
    letterbox = Letterbox(*SOURCE_SIZE, DEFAULT_SIZE[1], DEFAULT_SIZE[0])
    rows = np.load(engine / "player/1/answers.npy")
    tracker = Tracker(fps=25, width=SOURCE_SIZE[0], frame_stride=2, track_buffer=30, confidence=0.35)
    for number, detections in enumerate(detections_from_rows(rows[:20], letterbox, min_score=0.1)):
        tracker.update(2 * number, detections)
    tracks = tracker.finish(KeypointTracker().finish(SOURCE_SIZE)).rows(0, 39)
    assert len(tracks.ids) == 39 * 25
    assert set(tracks.ids) == set(range(25))
    frames = np.load(engine / "pitch/1/answers.npy")
    for points in keypoints_from_rows(frames, letterbox, min_confidence=0.5):
        assert (points != 0).any(axis=1).sum() >= 8
        assert pitch_homography(points) is not None


@pytest.mark.parametrize("count", [7, 30, 75])
def test_a_looped_video_has_exactly_the_frames_asked_for(tmp_path: Path, count: int) -> None:
    source = make_video(tmp_path / "source.mp4", 30)
    with av.open(str(memory.loop_video(source, tmp_path / "looped.mp4", count))) as container:
        frames = list(container.decode(video=0))
    numbers = [read_number(frame.to_ndarray(format="rgb24")) for frame in frames]
    assert len(numbers) == count
    # Cut in decoding order: among the last ones, a frame that others refer to may stand for one that does not exist.
    assert numbers[:-4] == [number % 30 for number in range(count - 4)]
    times = [frame.pts for frame in frames]
    assert times == sorted(set(times))


def test_decoding_alone_counts_every_frame(tmp_path: Path) -> None:
    video = make_video(tmp_path / "video.mp4", 31)
    for work in (common.decode_and_scale, common.pyav_decode_and_scale):
        frames, spent = work(video, 3, (96, 160))
        assert frames == 31
        assert spent.cpu_s > 0
    inputs = common.letterboxed(video, 40, (96, 160))
    assert inputs.shape == (40, 96, 160, 3)
    assert [read_number(image) for image in inputs] == [number % 31 for number in range(40)]
    assert (inputs[0, 0] == 114).all()


def test_cpu_time_of_a_process_is_that_of_its_threads() -> None:
    import os

    def spin() -> None:
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            pass

    before = common.cpu_seconds(os.getpid())
    thread = threading.Thread(target=spin)
    thread.start()
    thread.join()
    assert common.cpu_seconds(os.getpid()) - before >= 0.28


def test_a_fresh_url_is_another_one_each_time() -> None:
    assert len({common.fresh("http://host/a.mp4") for _ in range(10)}) == 10


def test_variants_are_alternated_and_the_warm_up_is_dropped() -> None:
    calls: list[str] = []

    def called(name: str) -> int:
        calls.append(name)
        return len(calls)

    results = common.alternate(
        2,
        {"a": lambda: called("a"), "b": lambda: called("b")},
        Console(quiet=True),
    )
    assert calls == ["a", "b"] * 3
    assert results == {"a": [3, 5], "b": [4, 6]}


def test_the_size_that_is_measured_is_the_served_one(engine: Path) -> None:
    assert common.served_size(engine) == DEFAULT_SIZE
    player = (Path("model_repository/player/config.pbtxt")).read_text()
    assert [f"dims: {size}" in player for size in common.served_size()] == [True, True]


def test_the_gateway_alone(run: Run, tmp_path: Path) -> None:
    numbers = run(gateway_alone.main, "--runs", 1, "--video", make_video(tmp_path / "video.mp4", 40))
    assert numbers["frames"] == 40
    for alone in ("own", "pyav"):
        ratio = numbers["gateway"]["frames_per_s"] / numbers[alone]["frames_per_s"]
        assert numbers[alone]["rate_ratio"] == pytest.approx(ratio)
    assert {"decode", "infer", "track", "respond", "total"} <= set(numbers["stage_seconds"])


def test_the_gain_of_the_gateway_is_computed_from_medians() -> None:
    gateway = [{"frames": 100, "elapsed_s": s, "cpu_s": 1.0, "stage_seconds": {"total": s}} for s in (1.0, 2.0, 9.0)]
    own = [{"frames": 100, "elapsed_s": s, "cpu_s": 0.8} for s in (1.0, 1.0, 8.0)]
    pyav = [{"frames": 100, "elapsed_s": s, "cpu_s": 5.0} for s in (1.0, 3.0, 8.0)]
    numbers = gateway_alone.summary(gateway, own, pyav)
    assert (numbers["own"]["rate_ratio"], numbers["pyav"]["rate_ratio"]) == pytest.approx((0.5, 1.5))
    assert numbers["overhead_ms_a_frame"] == pytest.approx(2.0)
    with pytest.raises(ValueError, match="same number of frames"):
        gateway_alone.summary(gateway, own, [{**pyav[0], "frames": 99}])


def test_what_the_console_costs(run: Run, tmp_path: Path) -> None:
    numbers = run(console.main, "--runs", 1, "--video", make_video(tmp_path / "video.mp4", 40))
    (off,), (on,) = numbers["runs"]["off"], numbers["runs"]["on"]
    assert numbers["elapsed_s"] == pytest.approx(on["elapsed_s"] - off["elapsed_s"])


def test_the_limit(run: Run, tmp_path: Path, engine: Path) -> None:
    video = make_video(tmp_path / "video.mp4", 40)
    numbers = run(limit.main, "--runs", 1, "--video", video, "--repository", engine, "--combine", "sum")
    assert numbers["requests"]["player"][1] == 21  # every second frame and the last
    assert numbers["limit"] == pytest.approx(numbers["decode"] + numbers["engine"])
    assert numbers["ratio"] == pytest.approx(numbers["challenge"] / numbers["limit"])
    assert limit.limit(2.0, 3.0, "max") == 3.0


def test_the_engine_alone_is_sent_what_was_counted(quick_triton: LocalTriton) -> None:
    counts = {"player": (7, 21), "pitch": (3, 5)}
    planned = limit.plan(counts)
    assert sum(slot.get("player", 0) for slot in planned) == 21
    assert [slot["pitch"] for slot in planned if "pitch" in slot] == [1, 2, 2]
    before = {name: _counted(quick_triton, name) for name in counts}
    frames = np.zeros((8, 96, 160, 3), np.uint8)
    asyncio.run(limit.engine_alone(quick_triton.grpc_url, counts, frames, 2))
    for name, (requests, inferred) in counts.items():
        assert _counted(quick_triton, name) == (before[name][0] + requests, before[name][1] + inferred)


def test_transport(run: Run) -> None:
    numbers = run(transport.main, "--runs", 1, "--batches", 2, 4, "--frames", 8)
    assert set(numbers["batches"]) == {"2", "4"}
    assert set(numbers["batches"]["2"]) == {"shared memory", "gRPC bytes"}


def test_what_triton_leaves_in_its_queue(run: Run, tmp_path: Path) -> None:
    numbers = run(left_in_queue.main, "--runs", 2, "--policies", "none")
    assert 0 <= numbers["none"]["left"] <= 2
    config = tmp_path / "config.pbtxt"
    config.write_text("dynamic_batching { }")
    left_in_queue.describe(config, "priority_levels: 2")
    assert config.read_text() == "dynamic_batching { priority_levels: 2 }"
    with pytest.raises(ValueError, match="has no dynamic_batching"):
        left_in_queue.describe(config, "")


def test_memory(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = make_video(tmp_path / "video.mp4", 30)
    monkeypatch.setattr(memory, "demo_clip", lambda *_: ClipPaths(video, video, video))
    numbers = run(memory.main, "--runs", 1, "--frames", 20, 50)
    for runs in numbers["runs"].values():
        assert runs[0]["peak_mib"] >= runs[0]["idle_mib"] > 20


def test_concurrency(run: Run, tmp_path: Path, engine: Path) -> None:
    video = make_video(tmp_path / "video.mp4", 20)
    numbers = run(concurrency.main, "--runs", 1, "--at-once", 2, "--video", video, "--repository", engine)
    assert [one["frames"] for one in numbers["runs"]["at once"]] == [40]
    assert len(numbers["runs"]["at once"][0]["each_s"]) == 2


def test_pictures_of_a_request(run: Run, tmp_path: Path, engine: Path) -> None:
    video = make_video(tmp_path / "video.mp4", 20)
    numbers = run(predict.main, "--runs", 4, "--frames", 1, 2, "--video", video, "--repository", engine)
    ways = {"both models alone", "POST /predict, 1 a request", "POST /predict, 2 a request"}
    assert ways <= numbers.keys() and all(0 < numbers[way]["median_ms"] <= numbers[way]["p95_ms"] for way in ways)


def test_a_clip_of_the_private_track(run: Run, tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = ClipPaths(make_video(tmp_path / "video.mp4", 20), tmp_path, tmp_path / "actions.json")
    clip.actions.write_text('[{"frame": 3, "action": "pass"}]')
    monkeypatch.setattr(private, "demo_clip", lambda _: clip)
    numbers = run(private.main, "--runs", 1, "--pictures", 5, "--repository", engine)
    assert numbers["true"] == 1 and len(numbers["seconds"]) == len(numbers["scores"]) == 1


_REFERENCE = """#!/bin/sh
[ "$1" = -c ] && exit 0
case "$*" in *1280*) rate=3.0 ;; *) rate=6.0 ;; esac
size=$(echo "$*" | sed "s/.*--player-size \\([0-9]*\\).*/\\1/")
stages='"decode_ms": 1, "player_ms": 2, "pitch_ms": 3, "track_ms": 4'
echo "{\\"sizes\\": {\\"$size\\": {\\"frames_per_s\\": $rate, \\"boxes_a_frame\\": 9, \\"answer\\": [], $stages}}}"
"""


def test_against_the_reference(run: Run, tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop itself needs torch; what is made of its numbers does not."""
    python = tmp_path / "python"
    python.write_text(_REFERENCE)
    python.chmod(0o755)
    settings: list[dict[str, str]] = []

    with local_stack(repository=engine) as stack:

        def one_stack(**wanted: Any) -> Any:
            settings.append(wanted["settings"])
            return nullcontext(stack)

        monkeypatch.setattr(reference, "local_stack", one_stack)
        numbers = run(
            reference.main,
            *("--runs", 1, "--video", make_video(tmp_path / "video.mp4", 20), "--python", python),
            *("--player", "player.pt", "--pitch", "pitch.pt"),
        )
    rates = numbers["frames_per_s"]
    assert rates["reference, player 1280 px"] == 3
    assert set(rates) >= {"reference, player 1280 px", f"reference, player {common.served_size()[1]} px"}
    assert numbers["ratios"] == {
        "Touchline, defaults": pytest.approx(rates["Touchline, defaults"] / 3),
        "Touchline, stride 1": pytest.approx(rates["Touchline, stride 1"] / 6),
    }
    assert common.NO_LIMITS in settings, "answers of known strides are compared, whatever a budget would make of them"
    assert common.EVERY_FRAME in settings


def test_both_sides_are_measured_on_the_same_frames() -> None:
    """Frames that only one side answered say nothing."""
    person = np.array([[10, 10, 30, 60]], np.float32)
    none = np.zeros((32, 3), np.float32)
    truth = [Truth(number, person, np.array([2]), np.array([1]), none, np.eye(3)) for number in range(10)]
    found = {"id": 1, "bbox": [11.0, 10.0, 30.0, 60.0], "class_id": 2}
    false = {"id": 2, "bbox": [300.0, 10.0, 330.0, 60.0], "class_id": 2}
    answer = [
        {"frame_number": number, "keypoints": [[0.0, 0.0]] * 32, "objects": objects}
        for number, objects in ((2, [found]), (3, [found, false]))
    ]
    assert reference.worth(answer, truth) == {"people_found": 1.0, "precision": pytest.approx(2 / 3)}
    assert np.isnan(reference.worth(answer, None)["people_found"])


def test_the_curve_that_auto_plans_with_is_written_as_it_was_measured(tmp_path: Path) -> None:
    """Into a module that says where it is from; no stride is worth more than one of more frames was found to be."""
    module = tmp_path / "stride_quality.py"
    module.write_text(long_strides.CURVE.read_text())
    long_strides.write_curve({1: 0.98, 2: 0.985, 10: 0.9, 6: 0.95}, 25.0, module)
    written = runpy.run_path(str(module))
    assert written["MEASURED_FPS"] == 25
    assert written["PEOPLE_FOUND"] == ((1, 0.98), (2, 0.98), (6, 0.95), (10, 0.9))
    assert "long_strides" in written["__doc__"]
    long_strides.write_curve(dict(PEOPLE_FOUND), MEASURED_FPS, module)
    assert module.read_text() == long_strides.CURVE.read_text()


@pytest.mark.parametrize("faster", [1, 4, 20])
def test_auto_is_compared_with_fixed_strides_on_any_engine(faster: int) -> None:
    found = auto_stride.expectations(ModelCosts(0.0486 / faster, 0.023 / faster), 0.002, 750)
    auto = found.pop("auto")
    assert list(found) == [f"stride {stride}" for stride in auto_stride.STRIDES]
    assert auto.score >= max(one.score for one in found.values() if one.people_found >= QUALITY_FLOOR) - 0.01


def test_a_row_of_budgets_says_which_answers_were_late() -> None:
    notes = {"planned-stride": "10", "stride": "10.1"}
    outcomes = [Outcome({}, b"", seconds, {}, notes) for seconds in (5.0, 6.4, 6.6)]
    row = budget.figures(outcomes, [0.96, 0.97, 0.95], 6.0)
    assert row["late"] == 1
    assert row["planned_stride"] == [10, 10, 10]


def test_the_trade_off_is_drawn(tmp_path: Path) -> None:
    numbers = {
        way: {"seconds": seconds, "people_found": found}
        for way, seconds, found in (("stride 2", 20.0, 0.98), ("stride 10", 6.0, 0.95), ("auto", 5.0, 0.94))
    }
    trade_off.plot(numbers, tmp_path / "made" / "plot.png", "a clip")
    picture = read_picture(tmp_path / "made" / "plot.png")
    assert picture.shape[1] > 600
    assert picture.std() > 5


def test_a_failing_reference_is_reported(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such weights >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(RuntimeError, match="no such weights"):
        reference.run_reference(python, Path("video.mp4"), (Path("a.pt"), Path("b.pt")), 640, 4)


def _counted(triton: LocalTriton, name: str) -> tuple[float, float]:
    def of(series: str) -> float:
        samples = scraped(triton.metrics_url, series)
        return sum(sample.value for sample in samples if sample.labels["model"] == name)

    return of("nv_inference_request_success"), of("nv_inference_count")
