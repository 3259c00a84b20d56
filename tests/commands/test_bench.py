"""`touchline bench engine` and `touchline bench challenge`: what they print, write, rank and recommend."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from benchmarks.quick_engine import write_quick_engine
from commands import bench_engine as engine_bench
from commands.bench_challenge import (
    BenchChallengeError,
    Measured,
    Setting,
    agreement,
    as_truth,
    bench_challenge,
    score,
)
from commands.bench_engine import BenchEngineError, Load, bench_engine, read_perf_analyzer, recommended, tree_mib
from local.triton import LocalTriton
from tests.support.pictures import read_picture
from tests.support.videos import make_video
from touchline.answer_quality import measure

_PERF_ANALYZER = """#!{python}
import sys
wanted = sys.argv[1:]
batch = int(wanted[wanted.index("-b") + 1])
assert wanted[wanted.index("-m") + 1] in ("player", "pitch")
assert wanted[wanted.index("--shared-memory") + 1] == "system"
with open(wanted[wanted.index("-f") + 1], "w") as file:
    file.write("Concurrency,Inferences/Second,Client Send,p50 latency,p90 latency,p95 latency,p99 latency\\n")
    file.write(f"2,{{100 * batch}},10,1000,1500,2000,3000\\n")
"""


def load(models: str, model: str, batch: int, rate: float) -> Load:
    return Load(models, model, "384x640", batch, rate, 1.0, 2.0, 3.0, 100.0, math.nan, "touchline")


def test_the_engine_through_triton(quick_triton: LocalTriton, tmp_path: Path) -> None:
    console = Console(record=True, width=140, file=io.StringIO())
    loads = bench_engine(
        console,
        triton_url=quick_triton.grpc_url,
        metrics_url=quick_triton.metrics_url,
        batches=(1, 8, 64),
        seconds=0.05,
        json_file=tmp_path / "engine.json",
        plot=tmp_path / "engine.png",
    )
    assert {(one.model, one.batch) for one in loads} == {(m, b) for m in ("player", "pitch") for b in (1, 8)}
    for one in loads:
        assert 0 < one.p50_ms <= one.p95_ms <= one.p99_ms
        assert one.frames_per_s > 0
    assert "Recommended: BATCH_SIZE=" in console.export_text()
    numbers = json.loads((tmp_path / "engine.json").read_text())
    assert len(numbers["ranked"]) == 4
    assert numbers["ranked"][0]["server_mib"] is None
    assert read_picture(tmp_path / "engine.png").shape[1] > 800


def test_rates_count_frames_and_latencies_are_in_ms(quick_triton: LocalTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of 10 ms a look: two looks around a request, one more to see whether the time is up."""
    model = asyncio.run(engine_bench.served_models(quick_triton.grpc_url))[0]
    ticks = itertools.count()
    monkeypatch.setattr(
        engine_bench, "time", SimpleNamespace(perf_counter=lambda: next(ticks) * 0.01, monotonic=time.monotonic)
    )
    rate, percentiles = asyncio.run(engine_bench.by_requests(quick_triton.grpc_url, model, 8, 1, 3.0))
    assert percentiles == pytest.approx((10, 10, 10))
    assert rate == pytest.approx(8 / 0.03, rel=0.02)


def test_no_triton_is_said_in_one_line() -> None:
    with pytest.raises(BenchEngineError, match=r"Triton at 127\.0\.0\.1:9 cannot be reached .*; is it running\?"):
        bench_engine(Console(quiet=True), triton_url="127.0.0.1:9", seconds=0.01)


def test_more_than_fits_shared_memory_is_refused_by_the_options_that_ask_for_it(quick_triton: LocalTriton) -> None:
    with pytest.raises(BenchEngineError, match=r"lower --batch or --concurrency"):
        bench_engine(Console(quiet=True), triton_url=quick_triton.grpc_url, batches=(8,), concurrency=10**7)


def test_perf_analyzer_is_used_where_it_is_on_path(
    quick_triton: LocalTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "perf_analyzer"
    program.write_text(_PERF_ANALYZER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    loads = bench_engine(Console(quiet=True), triton_url=quick_triton.grpc_url, batches=(4,))
    assert [(one.frames_per_s, one.p50_ms, one.p95_ms, one.p99_ms) for one in loads] == [(400, 1, 2, 3)] * 2
    assert {one.measured_by for one in loads} == {"perf_analyzer"}
    program.write_text("#!/bin/sh\necho it does not work >&2\nexit 3\n")
    with pytest.raises(BenchEngineError, match="perf_analyzer failed on player at batch 4: it does not work"):
        bench_engine(Console(quiet=True), triton_url=quick_triton.grpc_url, batches=(4,))


def test_a_strange_table_of_perf_analyzer_is_refused() -> None:
    with pytest.raises(BenchEngineError):
        read_perf_analyzer("Concurrency,p50 latency\n1,2\n")


def test_the_smallest_batch_that_is_good_enough_is_recommended() -> None:
    loads = [
        *(load("a", "player", batch, rate) for batch, rate in ((1, 50), (8, 98), (16, 100))),
        *(load("a", "pitch", batch, rate) for batch, rate in ((1, 90), (8, 100), (16, 100))),
        *(load("b", "player", batch, 10) for batch in (1, 8)),
        *(load("b", "pitch", batch, 1000) for batch in (1, 8)),
    ]
    assert recommended(loads) == ("a", 8)
    # A batch that only one of the models takes is no batch for both.
    assert recommended([*loads, load("a", "pitch", 32, 10_000)]) == ("a", 8)


def test_memory_counts_the_children() -> None:
    held = "bytes = bytearray(64 * 2**20); print(1, flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert tree_mib(os.getpid()) > tree_mib(child.pid) > 64
    finally:
        child.communicate(b"\n")
    assert math.isnan(tree_mib(child.pid))


def measured(elapsed: float, people: float, keypoints: float) -> Measured:
    return Measured(Setting(Path("models"), 8, 2, 10), elapsed, people, keypoints)


def test_the_score_is_the_validators() -> None:
    assert score(measured(2.0, 0.8, 0.6), 2.0) == pytest.approx(0.65 * 0.7 + 0.35)
    assert score(measured(2.0, 0.8, math.nan), 2.0) == pytest.approx(0.65 * 0.8 + 0.35)
    assert score(measured(15.0, math.nan, math.nan), 2.0) == 0


def test_an_answer_agrees_with_itself_and_not_with_less() -> None:
    keypoints = [[float(10 + 40 * n), 50.0] if n < 8 else [0.0, 0.0] for n in range(32)]
    frames: list[dict[str, Any]] = [
        {
            "frame_number": number,
            "keypoints": keypoints,
            "objects": [{"id": n, "bbox": [100.0 * n, 10.0, 100.0 * n + 30, 90.0], "class_id": 2} for n in range(1, 5)],
        }
        for number in range(10)
    ]
    truth = as_truth({"frames": frames})
    assert agreement(measure({"frames": frames}, truth, 640)) == (1, 1)
    half = [{**frame, "objects": frame["objects"][:2]} for frame in frames]
    people, points = agreement(measure({"frames": half}, truth, 640))
    assert people == pytest.approx(2 / 3)
    assert points == 1
    empty = [{**frame, "objects": [], "keypoints": [[0.0, 0.0]] * 32} for frame in frames]
    assert agreement(measure({"frames": empty}, truth, 640)) == (0, 0)


def test_a_sweep_ranks_and_recommends(tmp_path: Path) -> None:
    repository = write_quick_engine(tmp_path / "models")
    video = make_video(tmp_path / "video.mp4", 30, width=640, height=360)
    console = Console(record=True, width=160, file=io.StringIO())
    ranked = bench_challenge(
        console,
        str(video),
        sweep=True,
        repositories=[repository],
        batch_sizes=[4],
        frame_strides=[1, 2],
        runs=1,
        json_file=tmp_path / "sweep.json",
    )
    assert {(one.setting.batch_size, one.setting.frame_stride) for one in ranked} == {(4, 1), (4, 2)}
    fastest = min(one.elapsed_s for one in ranked)
    assert [score(one, fastest) for one in ranked] == sorted((score(one, fastest) for one in ranked), reverse=True)
    assert all(one.people > 0.9 for one in ranked)
    best = ranked[0].setting
    assert f"BATCH_SIZE=4 FRAME_STRIDE={best.frame_stride} PITCH_STRIDE=" in console.export_text()
    assert len(json.loads((tmp_path / "sweep.json").read_text())["ranked"]) == 2


def test_the_stage_table_of_one_video(tmp_path: Path) -> None:
    video = make_video(tmp_path / "video.mp4", 20)
    console = Console(record=True, width=100, file=io.StringIO())
    repository = write_quick_engine(tmp_path / "models")
    json_file = tmp_path / "stages.json"
    assert bench_challenge(console, str(video), repositories=[repository], runs=2, json_file=json_file) == []
    text = console.export_text()
    assert "decode" in text
    assert "20 frames" in text
    runs = json.loads(json_file.read_text())["runs"]
    # Two runs that were both computed: neither was answered from the other's work.
    assert len(runs) == 2
    assert len({run["stage_seconds"]["total"] for run in runs}) == 2


def test_what_is_no_video_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BenchChallengeError, match="neither a file nor"):
        bench_challenge(Console(quiet=True), str(tmp_path / "missing.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(BenchChallengeError, match="cannot be read as a video"):
        bench_challenge(Console(quiet=True), str(tmp_path / "text.mp4"), sweep=True)
