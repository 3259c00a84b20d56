"""`touchline bench engine`: throughput and latency of served models by batch size, through Triton."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import math
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from commands.terminal import CommandError, check_file, numbers, screen
from gateway.errors import GatewayError
from gateway.inference.slots import Slot, SlotPool
from gateway.inference.triton import ServedModel, Triton
from local.progress import progress_bar, spinner
from local.scraped import NotScraped, scraped
from local.triton import DEFAULT_REPOSITORY, LocalTriton, LocalTritonError
from touchline.atomic_file import replacing
from touchline.contract import BALL_MODEL, PITCH_MODEL, PLAYER_MODEL

GOOD_ENOUGH: Final = 0.97
"""The smallest batch that reaches this share of the best throughput is recommended: first frames come sooner."""
_ASK_S: Final = 10.0
_INFER_S: Final = 600.0
"""For one request: long, because a large batch on a slow machine is to be measured and not to be given up."""


class BenchEngineError(CommandError):
    """A CommandError of this command's."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a model did at one batch size."""

    models: str
    """The repository, or the address of the Triton."""
    model: str
    size: str
    """Height x width of the input."""
    batch: int
    frames_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    """Latency of a request, by percentile."""
    server_mib: float
    """Memory of the server and its children (RSS, shared pages counted once) after the load; NaN where unknown."""
    gpu_mib: float
    """GPU memory in use as Triton reports it; NaN where it reports none."""
    measured_by: str


def bench_engine(
    console: Console,
    repositories: Sequence[Path] = (DEFAULT_REPOSITORY,),
    *,
    triton_url: str | None = None,
    metrics_url: str | None = None,
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32),
    concurrency: int = 2,
    seconds: float = 3.0,
    json_file: Path | None = None,
    plot: Path | None = None,
) -> list[Load]:
    """Measure every model of each repository at each batch size, `concurrency` requests in flight, and rank them.

    A Triton is started for each repository, or the one at `triton_url` (gRPC, host:port) is measured, whose memory on
    the GPU is read at `metrics_url`. Frames go through shared memory where Triton can open it. Each point takes
    `seconds`. NVIDIA's perf_analyzer does the measuring where it is on PATH. Writes the numbers and a plot where told
    to. Returns what was measured, best first within each model. Raises BenchEngineError.
    """
    check_file("--json", json_file)
    check_file("--plot", plot)
    if not (math.isfinite(seconds) and seconds > 0):
        raise BenchEngineError(f"--seconds {seconds}: write a time above 0")
    if triton_url is not None and not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):\d{1,5}", triton_url):
        raise BenchEngineError(f"--triton-url {triton_url} is not host:port; gRPC is at 8001")
    if metrics_url is not None and not re.match(r"https?://[^\s/\[\]]+", metrics_url):
        raise BenchEngineError(f"--metrics-url {metrics_url} is no URL; write http://HOST:8002/metrics")
    loads: list[Load] = []
    try:
        if triton_url is not None:
            loads += _measured(console, triton_url, triton_url, metrics_url, None, batches, concurrency, seconds)
        else:
            for repository in repositories:
                with (
                    tempfile.TemporaryDirectory(prefix="touchline-") as directory,
                    LocalTriton(repository, log=Path(directory) / "triton.log") as triton,
                ):
                    with spinner(console, "starting Triton"):
                        triton.wait_ready()
                    loads += _measured(
                        console,
                        str(repository),
                        triton.grpc_url,
                        triton.metrics_url,
                        triton.pid,
                        batches,
                        concurrency,
                        seconds,
                    )
    except LocalTritonError as error:
        raise BenchEngineError(str(error)) from error
    except GatewayError as error:
        raise BenchEngineError(str(error)) from error
    if not loads:
        raise BenchEngineError("none of the models takes a batch of these sizes; give smaller ones with --batch")
    ranked = sorted(loads, key=lambda load: (load.model, -load.frames_per_s))
    console.print(ranking(ranked))
    models, batch = recommended(loads)
    several = len({load.models for load in loads}) > 1
    console.print(
        f"Recommended: BATCH_SIZE={batch}{f' with {models}' if several else ''}, the smallest within "
        f"{1 - GOOD_ENOUGH:.0%} of the most frames/s through all models; {concurrency} requests in flight.",
        highlight=False,
    )
    if json_file is not None:
        with replacing(json_file) as part:
            numbers = {
                "concurrency": concurrency,
                "seconds": seconds,
                "recommended": {"models": models, "batch_size": batch},
                "ranked": [_without_nan(asdict(load)) for load in ranked],
            }
            part.write_text(json.dumps(numbers, indent=1) + "\n")
    if plot is not None:
        draw(loads, plot)
    return ranked


def recommended(loads: Sequence[Load]) -> tuple[str, int]:
    """The repository and batch size to use: the most frames/s when each frame goes through every model.

    Time a frame adds up over the models. The smallest batch within 3 % of the best is taken.
    """
    costs: dict[tuple[str, int], list[float]] = {}
    for load in loads:
        costs.setdefault((load.models, load.batch), []).append(1 / load.frames_per_s)
    most_models = {
        models: max(len(costs[key]) for key in costs if key[0] == models) for models in {key[0] for key in costs}
    }
    rates = {key: 1 / sum(values) for key, values in costs.items() if len(values) == most_models[key[0]]}
    best_models = max(rates, key=lambda key: rates[key])[0]
    best = max(rate for (models, _), rate in rates.items() if models == best_models)
    return best_models, min(
        batch for (models, batch), rate in rates.items() if models == best_models and rate >= GOOD_ENOUGH * best
    )


def ranking(ranked: Sequence[Load]) -> Table:
    """A row a point; the columns that nobody could fill are left out."""
    several = len({load.models for load in ranked}) > 1
    with_gpu = any(not math.isnan(load.gpu_mib) for load in ranked)
    with_server = any(not math.isnan(load.server_mib) for load in ranked)
    table = Table(
        *(["models"] if several else []),
        *("model", "input", "batch", "frames/s", "p50 ms", "p95 ms", "p99 ms"),
        *(["server MiB"] if with_server else []),
        *(["GPU MiB"] if with_gpu else []),
        title=f"Engine, measured by {ranked[0].measured_by}",
        title_justify="left",
    )
    previous = ranked[0].model
    for load in ranked:
        if load.model != previous:
            table.add_section()
        previous = load.model
        table.add_row(
            *([load.models] if several else []),
            *(load.model, load.size, str(load.batch), f"{load.frames_per_s:.1f}"),
            *(f"{value:.1f}" for value in (load.p50_ms, load.p95_ms, load.p99_ms)),
            *([_mib(load.server_mib)] if with_server else []),
            *([_mib(load.gpu_mib)] if with_gpu else []),
        )
    return table


def draw(loads: Sequence[Load], path: Path) -> None:
    """Write a PNG: frames/s and p95 latency over the batch size, a line for each model and repository."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  half a second to import
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    throughput, latency = figure.subplots(1, 2)
    several = len({load.models for load in loads}) > 1
    batches = sorted({load.batch for load in loads})
    for key in dict.fromkeys((load.models, load.model) for load in loads):
        line = sorted((load for load in loads if (load.models, load.model) == key), key=lambda load: load.batch)
        label = f"{key[1]} ({key[0]})" if several else key[1]
        sizes = [load.batch for load in line]
        throughput.plot(sizes, [load.frames_per_s for load in line], marker="o", label=label)
        latency.plot(sizes, [load.p95_ms for load in line], marker="o", label=label)
    for axes, title in ((throughput, "frames/s"), (latency, "p95 latency of a request, ms")):
        axes.set_title(title)
        axes.set_xlabel("batch")
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    throughput.legend()
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=130)


def _measured(  # noqa: PLR0917
    console: Console,
    models: str,
    url: str,
    metrics_url: str | None,
    pid: int | None,
    batches: Sequence[int],
    concurrency: int,
    seconds: float,
) -> list[Load]:
    """All models at all batch sizes on one running Triton."""
    served = asyncio.run(served_models(url))
    points = [(model, batch) for model in served for batch in batches if batch <= model.max_batch]
    analyzer = shutil.which("perf_analyzer")
    loads = []
    with progress_bar(console, f"engine {Path(models).name}", "points") as advance:
        for done, (model, batch) in enumerate(points, start=1):
            if analyzer is not None:
                rate, percentiles = by_perf_analyzer(analyzer, url, model, batch, concurrency, seconds)
            else:
                rate, percentiles = asyncio.run(by_requests(url, model, batch, concurrency, seconds))
            loads.append(
                Load(
                    models,
                    model.name,
                    f"{model.height}x{model.width}",
                    batch,
                    rate,
                    *percentiles,
                    server_mib=tree_mib(pid) if pid is not None else math.nan,
                    gpu_mib=_gpu_mib(metrics_url),
                    measured_by="perf_analyzer" if analyzer is not None else "touchline",
                )
            )
            advance(done, len(points))
    return loads


async def served_models(url: str) -> list[ServedModel]:
    """The models of the contract that a Triton serves. Raises BenchEngineError when there are none."""
    async with Triton(url, shared_memory="off", timeout_s=_ASK_S) as triton:
        models = await triton.models()
    if not models:
        raise BenchEngineError(f"Triton at {url} serves none of {PLAYER_MODEL}, {PITCH_MODEL}, {BALL_MODEL}")
    return models


async def by_requests(
    url: str, model: ServedModel, batch: int, concurrency: int, seconds: float
) -> tuple[float, tuple[float, float, float]]:
    """Frames/s, and p50, p95 and p99 latency in ms, with `concurrency` requests in flight for `seconds`.

    Every request in flight has a slot of its own in shared memory; bytes where Triton cannot open it.
    """
    pool = SlotPool(
        slots=concurrency, slot_shape=(batch, model.height, model.width, 3), sized_by="--batch or --concurrency"
    )
    latencies: list[float] = []
    try:
        slots = [await pool.acquire() for _ in range(concurrency)]
        rng = np.random.default_rng(0)
        for slot in slots:
            slot.frames[:] = rng.integers(0, 256, slot.frames.shape, np.uint8)
        async with Triton(url, shared_memory="auto", timeout_s=_INFER_S) as triton:
            await triton.attach(pool)

            async def work(slot: Slot, until: float) -> None:
                # Once at least: that is the warm-up, and all that is measured of an engine that is very slow.
                while True:
                    sent = time.perf_counter()
                    await triton.infer(model.name, slot, batch)
                    latencies.append(time.perf_counter() - sent)
                    if time.perf_counter() >= until:
                        return

            await asyncio.gather(*(work(slot, 0.0) for slot in slots))
            latencies.clear()
            began = time.perf_counter()
            await asyncio.gather(*(work(slot, began + seconds) for slot in slots))
            elapsed = time.perf_counter() - began
    finally:
        pool.close()
    p50, p95, p99 = (1000 * float(value) for value in np.percentile(latencies, [50, 95, 99]))
    return batch * len(latencies) / elapsed, (p50, p95, p99)


def by_perf_analyzer(  # noqa: PLR0917
    analyzer: str, url: str, model: ServedModel, batch: int, concurrency: int, seconds: float
) -> tuple[float, tuple[float, float, float]]:
    """The same by NVIDIA's perf_analyzer. Raises BenchEngineError with the end of what it said."""
    with tempfile.TemporaryDirectory(prefix="touchline-") as directory:
        answer = Path(directory) / "latency.csv"
        command = [analyzer, "-m", model.name, "-u", url, "-i", "grpc", "-b", str(batch)]
        command += ["--concurrency-range", str(concurrency), "--shared-memory", "system"]
        command += ["--output-shared-memory-size", str(4 * 2**20), "--measurement-interval", str(round(1000 * seconds))]
        command += ["--percentile", "95", "-f", str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  of the user's PATH
        if done.returncode or not answer.exists():
            said = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise BenchEngineError(f"perf_analyzer failed on {model.name} at batch {batch}: {' '.join(said)}")
        return read_perf_analyzer(answer.read_text())


def read_perf_analyzer(text: str) -> tuple[float, tuple[float, float, float]]:
    """Inferences/s and p50, p95, p99 in ms from the CSV of perf_analyzer, whose latencies are in microseconds."""
    rows = list(csv.DictReader(io.StringIO(text)))
    try:
        p50, p95, p99 = (float(rows[-1][f"p{percent} latency"]) / 1000 for percent in (50, 95, 99))
        return float(rows[-1]["Inferences/Second"]), (p50, p95, p99)
    except (IndexError, KeyError, ValueError) as error:
        raise BenchEngineError(f"perf_analyzer wrote a table without {error}") from error


def tree_mib(pid: int) -> float:
    """Resident memory of a process and all its descendants in MiB; a page that several share counts once (PSS)."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    total, waiting = 0, [pid]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        with suppress(OSError):
            match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(match[1]) if match else 0
    return total / 1024 if total else math.nan


def _gpu_mib(metrics_url: str | None) -> float:
    """GPU memory in use over all GPUs, as Triton's metrics say."""
    if metrics_url is None:
        return math.nan
    try:
        used = scraped(metrics_url, "nv_gpu_memory_used_bytes")
    except NotScraped:
        return math.nan
    return sum(sample.value for sample in used) / 2**20 if used else math.nan


def _mib(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f}"


def _without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def command(  # noqa: PLR0917
    repositories: Annotated[
        list[Path] | None, typer.Argument(help="Model repositories. Default: the bundled one.")
    ] = None,
    triton_url: Annotated[
        str | None, typer.Option(help="A running Triton's gRPC host:port, instead of starting one.")
    ] = None,
    metrics_url: Annotated[str | None, typer.Option(help="Its metrics URL, for GPU memory.")] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,2,4,8,16,32",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 2,
    seconds: Annotated[float, typer.Option(help="Time a point.")] = 3.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to write.")] = None,
) -> None:
    """Throughput and latency of served models by batch size, ranked."""
    bench_engine(
        screen,
        repositories or [DEFAULT_REPOSITORY],
        triton_url=triton_url,
        metrics_url=metrics_url,
        batches=numbers("--batch", batch),
        concurrency=concurrency,
        seconds=seconds,
        json_file=json_file,
        plot=plot,
    )
