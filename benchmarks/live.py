"""Cameras through the gateway to a viewer: frames a second, and the delay from a camera's sending to the viewer's JPEG.

Each frame shows its number in a strip at the bottom, which is read back from the JPEG that the viewer got: the delay
holds the camera's network, decoding, waiting, inference, tracking, drawing (unless --boxes-apart), compressing and
sending. Beside it, on the same cameras and the same Triton: the engine alone, and a scheme that does one thing after
the other (live_in_turn).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import av
import cv2
import httpx
import numpy as np
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from benchmarks.common import cpu_seconds, demo_clip, parser, report, scratch, take_cores
from benchmarks.live_in_turn import Looker, watch_in_turn
from benchmarks.quick_engine import write_quick_engine
from gateway.live.message import PROTOCOL
from local.ports import free_ports
from local.scraped import scraped
from local.stack import LocalStack, local_stack
from local.triton import DEFAULT_REPOSITORY
from tests.support.rtsp_camera import Film, RtspCamera, encoded

FRAMES: Final = 125
BITS: Final = 7
_STRIP: Final = 20
"""Of the height, the part of the strip with the number."""
_AFTER: Final = ("track", "draw", "encode", "send")
"""What comes after the engine."""
_STAGES: Final = ("decode", "wait", "scale", "infer", *_AFTER)


@dataclass(frozen=True, slots=True)
class Watched:
    """What came of some seconds with some cameras."""

    cameras: int
    inferred: float
    """Frames a second, all cameras together."""
    shown: float
    """Of those, at the viewer."""
    delay_ms: float
    delay_p95_ms: float
    cpu: float
    """Cores that the process kept busy, without Triton, cameras and viewer."""
    round_ms: float = 0.0
    batch: float = 0.0
    """Frames a round."""
    after_ms: float = 0.0
    """Time of tracking, drawing, compressing and sending, a round."""
    stages_ms: dict[str, float] = field(default_factory=dict)
    """Of a round, by stage, all its frames together."""
    pitch_share: float = 0.0
    """Of the frames, those that the pitch model looked at too."""


def film(video: Path, size: tuple[int, int]) -> Film:
    """The first 5 s of a video as a camera sends them, with the numbers of the frames."""

    def pictures() -> Iterator[np.ndarray]:
        with av.open(str(video)) as container:
            for number, frame in zip(range(FRAMES), container.decode(video=0), strict=False):
                picture = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
                paint(picture, number)
                yield picture

    return encoded(pictures(), size)


def paint(picture: np.ndarray, number: int) -> None:
    """Write a number into the strip at the bottom of uint8 [H, W, 3], its lowest bit left."""
    height, width = picture.shape[:2]
    for bit in range(BITS):
        columns = slice(bit * width // BITS, (bit + 1) * width // BITS)
        picture[-height // _STRIP :, columns] = 230 if number >> bit & 1 else 20


def number_of(jpeg: bytes) -> int:
    """The number in a picture's strip."""
    picture = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE))
    height, width = picture.shape
    row = picture[-height // (2 * _STRIP)]
    return sum(1 << bit for bit in range(BITS) if row[(2 * bit + 1) * width // (2 * BITS)] > 125)


@contextmanager
def cameras_of(reel: Film, count: int) -> Iterator[list[RtspCamera]]:
    with ExitStack() as stack:
        yield [stack.enter_context(RtspCamera(reel)) for _ in range(count)]


async def watch(
    place: str, cameras: Sequence[RtspCamera], settle_s: float, seconds: float, annotated: bool
) -> dict[str, Any]:
    """Be one viewer of all cameras: delays in ms, and sequences by camera."""
    by_number: dict[int, RtspCamera] = {}
    delays: list[float] = []
    sequences: dict[int, list[int]] = {}
    url = f"ws://{place}/live/stream"
    async with connect(url, subprotocols=[Subprotocol(PROTOCOL)], max_size=None, proxy=None) as viewer:
        for camera in json.loads(await viewer.recv())["cameras"]:
            by_number[camera["number"]] = cameras[int(camera["id"].removeprefix("camera-"))]
        await viewer.send(json.dumps({"type": "subscribe", "annotated": annotated, "acks": True}))
        begun = time.monotonic()
        while (now := time.monotonic()) - begun < settle_s + seconds:
            message = await viewer.recv()
            if isinstance(message, str):
                continue
            came = time.monotonic()
            header, number, sequence, boxes, size = struct.unpack_from("<2xHII24xHH", message)
            await viewer.send(json.dumps({"type": "ack", "camera": number, "sequence": sequence}))
            if now - begun >= settle_s:
                painted = number_of(message[header + boxes * size :])
                delays.append(1000 * (came - by_number[number].sent_at[painted]))
                sequences.setdefault(number, []).append(sequence)
    return {"delays": delays, "sequences": sequences}


def ours(stack: LocalStack, place: str, cameras: Sequence[RtspCamera], arguments: Any) -> Watched:
    """The gateway with these cameras."""
    with httpx.Client(base_url=f"http://{place}", trust_env=False) as browser:
        for index, camera in enumerate(cameras):
            browser.post("/live/cameras", json={"id": f"camera-{index}", "url": camera.url}).raise_for_status()
        until = time.monotonic() + 60
        while any(one["state"] != "live" for one in browser.get("/live/cameras").json()["cameras"]):
            if time.monotonic() > until:
                raise TimeoutError("the cameras did not come to live")
            time.sleep(0.1)
        before = _readings(stack)
        seen = asyncio.run(watch(place, cameras, arguments.settle, arguments.seconds, not arguments.boxes_apart))
        spent = {name: value - before[name] for name, value in _readings(stack).items()}
        for index in range(len(cameras)):
            browser.delete(f"/live/cameras/camera-{index}").raise_for_status()
    rounds = max(1.0, spent["rounds"])
    inferred = sum(values[-1] - values[0] for values in seen["sequences"].values())
    median, p95 = (float(value) for value in np.percentile(seen["delays"], (50, 95)))
    return Watched(
        len(cameras),
        inferred / arguments.seconds,
        len(seen["delays"]) / arguments.seconds,
        median,
        p95,
        spent["cpu_s"] / spent["at_s"],
        1000 * spent["at_s"] / rounds,
        spent["frames"] / rounds,
        1000 * sum(spent[stage] for stage in _AFTER) / rounds,
        {stage: 1000 * spent[stage] / rounds for stage in _STAGES},
        spent["pitch"] / max(1.0, spent["player"]),
    )


def _readings(stack: LocalStack) -> dict[str, float]:
    """Sums so far, and the frames that each model has seen by its name."""
    read = partial(scraped, stack.gateway.metrics_url)
    stages = read("touchline_live_stage_seconds_sum")
    looked = {one.labels["model"]: one.value for one in scraped(stack.triton.metrics_url, "nv_inference_count")}
    return {
        **looked,
        "at_s": time.monotonic(),
        "cpu_s": cpu_seconds(stack.gateway.pid or 0),
        "rounds": sum(one.value for one in read("touchline_live_batch_frames_count")),
        "frames": sum(one.value for one in read("touchline_live_batch_frames_sum")),
        **{stage: sum(one.value for one in stages if one.labels["stage"] == stage) for stage in _STAGES},
    }


async def engine_alone(grpc_url: str, batch: int, seconds: float, pitch_share: float) -> float:
    """Frames a second of one batch after the other, of which so many are for the pitch model too."""
    async with Looker(grpc_url, batch) as looker:
        await looker.look(batch, pitch_share)
        begun, frames = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            await looker.look(batch, pitch_share)
            frames += batch
        return frames / (time.perf_counter() - begun)


def in_turn(grpc_url: str, cameras: Sequence[RtspCamera], pitch_share: float, arguments: Any) -> Watched:
    """The scheme that does one thing after the other, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    urls = [camera.url for camera in cameras]
    given = there, grpc_url, urls, arguments.settle + arguments.seconds, pitch_share
    process = context.Process(target=watch_in_turn, args=given, kwargs={"annotated": not arguments.boxes_apart})
    process.start()
    there.close()
    delays, begun, since, last, cpu, spent = [], 0.0, 0.0, 0.0, 0.0, 0.0
    try:
        while True:
            index, came, jpeg = here.recv()
            begun = begun or time.monotonic()
            if time.monotonic() - begun < arguments.settle:
                # Its frames come in bursts: from the last of one to the last of another.
                since, cpu = came, cpu_seconds(process.pid or 0)
                continue
            delays.append(1000 * (came - cameras[index].sent_at[number_of(jpeg)]))
            last, spent = came, cpu_seconds(process.pid or 0) - cpu
    except EOFError:
        pass
    finally:
        process.join(30)
        process.kill()
    if not delays or not since:
        raise RuntimeError("the scheme that does one thing after the other gave no frame in time; is the machine busy?")
    median, p95 = (float(value) for value in np.percentile(delays, (50, 95)))
    rate = len(delays) / (last - since)
    return Watched(len(cameras), rate, rate, median, p95, spent / (last - since))


def main() -> None:
    arguments_of = parser(__doc__, runs=1)
    arguments_of.add_argument("--cameras", type=int, nargs="+", default=[1, 2, 4, 8])
    arguments_of.add_argument("--sizes", nargs="+", default=["640x360", "1280x720"])
    arguments_of.add_argument("--seconds", type=float, default=10, help="measured, of each")
    arguments_of.add_argument("--settle", type=float, default=3, help="before them")
    arguments_of.add_argument(
        "--frame-s", type=float, help="an engine that takes so long a frame and no core, as a GPU does; else the CPU's"
    )
    arguments_of.add_argument(
        "--boxes-apart", action="store_true", help="the viewer draws them, as the console's grid does"
    )
    arguments_of.add_argument("--plot", type=Path, help="PNG to draw")
    arguments = arguments_of.parse_args()
    console = Console(width=160)
    clip = demo_clip(console).video
    films = {size: film(clip, _pair(size)) for size in arguments.sizes}
    take_cores(arguments.cores)
    port = free_ports(1)[0]
    settings = {"LIVE": "true", "CONSOLE_PORT": str(port), "LIVE_ALLOWED": "127.0.0.0/8", "DEVICE": "cpu"}
    rows: list[dict[str, Any]] = []
    with ExitStack() as opened:
        directory = opened.enter_context(scratch())
        repository = DEFAULT_REPOSITORY
        if arguments.frame_s is not None:
            repository = write_quick_engine(directory / "models", delay_s=arguments.frame_s)
        stack = opened.enter_context(local_stack(repository=repository, settings=settings, logs=directory))
        for size, reel in films.items():
            for count in arguments.cameras:
                for _ in range(arguments.runs):
                    with cameras_of(reel, count) as cameras:
                        measured = ours(stack, f"127.0.0.1:{port}", cameras, arguments)
                        rows.append({"size": size, "way": "touchline", **asdict(measured)})
                        console.print(_line(rows[-1]))
                        triton, share = stack.triton.grpc_url, measured.pitch_share
                        alone = asyncio.run(engine_alone(triton, count, arguments.seconds / 2, share))
                        rows[-1]["engine_alone"] = alone
                        measured = in_turn(triton, cameras, share, arguments)
                        rows.append({"size": size, "way": "in turn", **asdict(measured)})
                        console.print(_line(rows[-1]))
    report(console, table_of(rows), NOTES, {"rows": rows}, arguments)
    if arguments.plot:
        plot(rows, arguments.plot)


NOTES: Final = (
    "in turn: 4 frames of each camera, every 3rd of them, then inference, tracking, JPEG and JSON one after the other",
    "engine alone: batches of a frame of each camera, nothing beside them; pitch: of the frames, those that the pitch "
    "model sees too, in all three ways",
    "delay: from a camera's sending of a frame until a viewer has its JPEG; after: tracking, drawing, JPEG and sending "
    "of a round; cameras and viewer take part of the cores",
)


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(
        *("cameras", "way", "frames/s", "a camera", "engine alone", "pitch %", "shown/s"),
        *("delay ms", "p95", "two rounds + 100", "cores", "round ms", "frames a round", "after ms"),
    )
    for row in rows:
        alone, round_ms = row.get("engine_alone"), row["round_ms"]
        table.add_row(
            f"{row['cameras']} x {row['size']}",
            row["way"],
            f"{row['inferred']:.1f}",
            f"{row['inferred'] / row['cameras']:.1f}",
            f"{alone:.1f} ({100 * row['inferred'] / alone:.0f} %)" if alone else "",
            f"{100 * row['pitch_share']:.0f}" if alone else "",
            f"{row['shown']:.1f}",
            f"{row['delay_ms']:.0f}",
            f"{row['delay_p95_ms']:.0f}",
            f"{2 * round_ms + 100:.0f}" if round_ms else "",
            f"{row['cpu']:.2f}",
            *((f"{round_ms:.0f}", f"{row['batch']:.1f}", f"{row['after_ms']:.1f}") if round_ms else ()),
        )
    return table


def _line(row: dict[str, Any]) -> str:
    """Shown as soon as it is measured."""
    rate, delay, p95 = row["inferred"], row["delay_ms"], row["delay_p95_ms"]
    return (
        f"{row['cameras']} x {row['size']}, {row['way']}: {rate:.1f} frames/s, delay {delay:.0f} ms, p95 {p95:.0f} ms"
    )


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Delay and frames a second against the number of cameras, a line a way and size."""
    from matplotlib import figure  # noqa: PLC0415  slow to import, and most runs draw nothing

    picture = figure.Figure(figsize=(9, 3.6), layout="constrained")
    panels = (("delay_ms", "delay, ms (dotted: 95th percentile)"), ("inferred", "frames/s inferred"))
    for place, (value, label) in enumerate(panels, 1):
        axes = picture.add_subplot(1, 2, place, xlabel="cameras", ylabel=label)
        for way, colour in (("touchline", "tab:green"), ("in turn", "tab:gray")):
            for size, style in zip(dict.fromkeys(row["size"] for row in rows), ("o-", "s--"), strict=False):
                chosen = [row for row in rows if (row["way"], row["size"]) == (way, size)]
                counts = [row["cameras"] for row in chosen]
                axes.plot(counts, [row[value] for row in chosen], style, color=colour, label=f"{way}, {size}")
                if value == "delay_ms":
                    axes.plot(counts, [row["delay_p95_ms"] for row in chosen], ":", color=colour, alpha=0.6)
        if value == "inferred":
            for size, marker in zip(dict.fromkeys(row["size"] for row in rows), ("x", "+"), strict=False):
                chosen = [row for row in rows if row["size"] == size and "engine_alone" in row]
                counts, alone = [row["cameras"] for row in chosen], [row["engine_alone"] for row in chosen]
                axes.plot(counts, alone, marker, color="black", label=f"engine alone, as for {size}")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=110)


def _pair(size: str) -> tuple[int, int]:
    width, height = map(int, size.split("x"))
    return width, height


if __name__ == "__main__":
    main()
