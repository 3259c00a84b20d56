"""The command line: `touchline --help`."""

from __future__ import annotations

import gc
import json
import logging
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from gateway.settings import Settings


class ExportTarget(StrEnum):
    """Engines that `touchline export` writes for."""

    tensorrt = "tensorrt"
    openvino = "openvino"
    onnxruntime = "onnxruntime"
    onnx = "onnx"


class CpuPrecision(StrEnum):
    """Arithmetic of the CPU engines."""

    auto = "auto"
    f32 = "f32"
    bf16 = "bf16"


class Suppression(StrEnum):
    """Forms of non-maximum suppression in the graph."""

    operator = "operator"
    rounds = "rounds"


class ExportPrecision(StrEnum):
    """Precisions that `touchline export` writes."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


app = typer.Typer(
    name="touchline",
    help="A Score Vision (Bittensor subnet 44) miner served by NVIDIA Triton.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
bench = typer.Typer(help="Measure an engine or a challenge.", no_args_is_help=True)
app.add_typer(bench, name="bench")
WIDE = 160
"""Columns of tables in a log, which no terminal's width bounds."""
_out = Console(width=None if sys.stdout.isatty() else WIDE)
_err = Console(stderr=True)


@app.command()
def serve() -> None:
    """Run the gateway. Every setting comes from the environment or .env; see docs/settings.md."""
    import uvicorn  # noqa: PLC0415  each command imports what it needs, so that --help is quick

    from gateway.app import build_app  # noqa: PLC0415
    from gateway.errors import StartupError  # noqa: PLC0415

    settings = _settings()
    try:
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        for chatty in ("httpx", "httpcore"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        gateway = build_app(settings)
    except StartupError as error:
        _fail(str(error))
    # Decoding takes the interpreter back after every packet; at Python's 5 ms it and tracking wait for each other.
    sys.setswitchinterval(0.02)
    # What the imports made stays: looking through all of it for garbage takes 0.1 s, in which nothing else runs.
    gc.collect()
    gc.freeze()
    # An answer is made of many small objects, none of which is garbage.
    gc.set_threshold(20_000)
    uvicorn.run(
        gateway, host=settings.host, port=settings.port, log_config=None, access_log=settings.log_level == "debug"
    )


@app.command()
def register(
    ip: Annotated[
        str | None, typer.Option(help="This host's public IPv4 address. Default: the one that is announced now.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="TAO that registering may cost at most.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
) -> None:
    """Register the hotkey with the subnet and announce this miner's address. Settings as for `serve`."""
    from commands.register import RegisterError, run_register  # noqa: PLC0415

    try:
        run_register(_out, _settings(), ip=ip, max_cost=max_cost, yes=yes)
    except RegisterError as error:
        _fail(str(error))


@app.command()
def triton(
    repository: Annotated[
        Path | None, typer.Option(help="Folder of model directories. Default: the bundled one.")
    ] = None,
    grpc_port: Annotated[int, typer.Option(help="Port for gRPC.")] = 8001,
    http_port: Annotated[int, typer.Option(help="Port for HTTP.")] = 8000,
    metrics_port: Annotated[int, typer.Option(help="Port for Prometheus metrics.")] = 8002,
) -> None:
    """Run the local CPU Triton in the foreground, on the loopback address."""
    from local.triton import DEFAULT_REPOSITORY, LocalTriton, LocalTritonError, Ports  # noqa: PLC0415

    ports = Ports(grpc=grpc_port, http=http_port, metrics=metrics_port)
    try:
        with LocalTriton(repository or DEFAULT_REPOSITORY, ports=ports) as server:
            server.wait_ready()
            _err.print(f"[green]Triton is ready[/] for `touchline serve` with TRITON_URLS={server.grpc_url}")
            status = server.wait()
    except LocalTritonError as error:
        _fail(str(error))
    raise typer.Exit(status)


@app.command()
def keys(directory: Annotated[Path, typer.Argument(help="Folder to write into.")]) -> None:
    """Make throwaway keys of a miner and a validator, to try `serve` and `challenge --keys` without a wallet."""
    from local.stack import make_keys  # noqa: PLC0415

    made = make_keys(directory)
    _err.print("Start the gateway with these settings:")
    for name, value in made.environment().items():
        print(f"export {name}={value}")


@app.command()
def challenge(  # noqa: PLR0917
    video: Annotated[str, typer.Argument(help="A video file, or its http(s) URL.")],
    gateway: Annotated[
        str | None,
        typer.Option(help="URL of a running gateway. Default: start Triton and a gateway for this one challenge."),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Folder that `touchline keys` made: whose keys sign and are asked for.")
    ] = None,
    hotkey_file: Annotated[Path | None, typer.Option(help="The validator's hotkey file, instead of --keys.")] = None,
    miner_hotkey: Annotated[str | None, typer.Option(help="The miner's ss58 address, instead of --keys.")] = None,
    out: Annotated[Path, typer.Option(help="Where to save the answer.")] = Path("out/response.json"),
) -> None:
    """Be a validator: sign a challenge, send it, check the answer and save it."""
    from commands.challenge import ChallengeCommandError, run_challenge  # noqa: PLC0415

    try:
        run_challenge(
            _out,
            video,
            gateway_url=gateway,
            keys_directory=keys,
            hotkey_file=hotkey_file,
            miner_hotkey=miner_hotkey,
            out=out,
        )
    except ChallengeCommandError as error:
        _fail(str(error))


@app.command()
def render(
    video: Annotated[Path, typer.Argument(help="The video that was answered.", exists=True, dir_okay=False)],
    response: Annotated[Path, typer.Argument(help="The saved answer.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for annotated.mp4 and contact_sheet.png.")] = Path("out"),
) -> None:
    """Make the pictures of an answer: an annotated video and a contact sheet with pitch maps."""
    from local.progress import progress_bar  # noqa: PLC0415
    from touchline.render import RenderError, render_contact_sheet, render_video  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    try:
        answer = json.loads(response.read_bytes())
        with progress_bar(_err, "annotated video") as advance:
            render_video(video, answer, out / "annotated.mp4", advance)
        render_contact_sheet(video, answer, out / "contact_sheet.png")
    except ValueError as error:
        _fail(f"{response} is not JSON: {error}")
    except RenderError as error:
        _fail(str(error))
    _out.print(f"{out / 'annotated.mp4'}\n{out / 'contact_sheet.png'}")


@app.command()
def export(  # noqa: PLR0917
    weights: Annotated[
        list[str] | None, typer.Argument(help="Weights of the player, the pitch and, if there is one, the ball model.")
    ] = None,
    player: Annotated[str | None, typer.Option(help="The player model's weights, instead of by position.")] = None,
    pitch: Annotated[str | None, typer.Option(help="The pitch model's weights.")] = None,
    ball: Annotated[str | None, typer.Option(help="The ball model's weights.")] = None,
    target: Annotated[ExportTarget, typer.Option(help="Engine that will run the models.")] = ExportTarget.tensorrt,
    out: Annotated[Path, typer.Option(help="Model repository to write into.")] = Path("model_repository"),
    imgsz: Annotated[str, typer.Option(help="Height x width of the input, multiples of 32.")] = "384x640",
    pitch_imgsz: Annotated[
        str | None, typer.Option(help="The pitch network's own size behind the shared input, for .pt weights.")
    ] = None,
    precision: Annotated[ExportPrecision | None, typer.Option(help="Default: fp16.")] = None,
    max_batch: Annotated[int, typer.Option(help="Largest batch.")] = 32,
    opt_batch: Annotated[int, typer.Option(help="Batch that TensorRT tunes for.")] = 16,
    confidence: Annotated[float, typer.Option(help="Least score that leaves the graph; CONFIDENCE cuts later.")] = 0.1,
    iou: Annotated[float, typer.Option(help="Overlap above which suppression drops the lesser box.")] = 0.5,
    max_detections: Annotated[int, typer.Option(help="Boxes a frame.")] = 150,
    instances: Annotated[int, typer.Option(help="Model instances, per GPU on a GPU.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of a CPU engine; 0: all it may use.")] = 0,
    cpu_precision: Annotated[CpuPrecision, typer.Option(help="auto: bf16 where the CPU computes it natively.")] = (
        CpuPrecision.auto
    ),
    suppression: Annotated[
        Suppression | None,
        typer.Option(
            help="How overlapping boxes go: ONNX's operator, or static rounds. Default: what the target takes."
        ),
    ] = None,
    candidates: Annotated[int, typer.Option(help="Best boxes of a frame that suppression by rounds looks at.")] = 512,
    rounds: Annotated[int, typer.Option(help="Rounds of suppression.")] = 16,
    nms_free: Annotated[bool, typer.Option(help="Use a head that needs no suppression where there is one.")] = True,
    queue_delay_us: Annotated[
        int | None, typer.Option(help="Longest wait for a fuller batch, in microseconds.")
    ] = None,
    level: Annotated[int, typer.Option(help="TensorRT's builder optimisation level, 0 to 5.")] = 3,
    workspace_gib: Annotated[float, typer.Option(help="TensorRT's workspace.")] = 4.0,
    calibration: Annotated[Path | None, typer.Option(help="Folder of frames for --precision int8.")] = None,
    parity_images: Annotated[
        Path | None, typer.Option(help="Folder of frames to compare precisions on. Default: synthetic ones.")
    ] = None,
    cuda_graphs: Annotated[bool, typer.Option(help="Let Triton capture CUDA graphs of the preferred batches.")] = True,
    map_class: Annotated[
        list[str] | None, typer.Option(help="name=class: what a class of the weights is; repeatable.")
    ] = None,
) -> None:
    """Turn YOLO weights (.pt, .onnx or owner/name:file of the hub) into models that Triton serves."""
    from export.command import ExportOptions, export_models  # noqa: PLC0415
    from export.errors import ExportError  # noqa: PLC0415

    sources = dict(zip(("player", "pitch", "ball"), weights or [], strict=False))
    sources |= {role: source for role, source in (("player", player), ("pitch", pitch), ("ball", ball)) if source}
    try:
        if len(weights or []) > 3:
            raise ExportError("more than three weights: give the player's, the pitch's and the ball's.")
        options = ExportOptions(
            target=target.value,
            out=out,
            size=_size("--imgsz", imgsz),
            pitch_size=_size("--pitch-imgsz", pitch_imgsz) if pitch_imgsz else None,
            parity_images=parity_images,
            cuda_graphs=cuda_graphs,
            max_batch=max_batch,
            opt_batch=min(opt_batch, max_batch),
            precision=precision.value if precision else None,
            confidence=confidence,
            iou=iou,
            max_detections=max_detections,
            instances=instances,
            threads=threads,
            cpu_precision=cpu_precision.value,
            suppression=suppression.value if suppression else None,
            candidates=candidates,
            rounds=rounds,
            nms_free=nms_free,
            queue_delay_us=queue_delay_us,
            level=level,
            workspace_gib=workspace_gib,
            calibration=calibration,
            classes=dict(_pair("--map-class", text) for text in map_class or []) or None,
        )
        export_models(sources, options, _out)
    except ExportError as error:
        _fail(str(error))


@bench.command("engine")
def bench_engine_command(  # noqa: PLR0917
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
    from commands.bench_engine import BenchEngineError, bench_engine  # noqa: PLC0415
    from local.triton import DEFAULT_REPOSITORY  # noqa: PLC0415

    try:
        bench_engine(
            _out,
            repositories or [DEFAULT_REPOSITORY],
            triton_url=triton_url,
            metrics_url=metrics_url,
            batches=_numbers("--batch", batch),
            concurrency=concurrency,
            seconds=seconds,
            json_file=json_file,
            plot=plot,
        )
    except BenchEngineError as error:
        _fail(str(error))


@bench.command("challenge")
def bench_challenge_command(  # noqa: PLR0917
    video: Annotated[str, typer.Argument(help="A video file, or its http(s) URL.")],
    sweep: Annotated[bool, typer.Option("--sweep", help="Rank batch sizes and strides.")] = False,
    repository: Annotated[
        list[Path] | None, typer.Option(help="Model repository; repeat it to compare input sizes.")
    ] = None,
    batch: Annotated[str, typer.Option(help="BATCH_SIZE to try.")] = "4,8,16",
    stride: Annotated[str, typer.Option(help="FRAME_STRIDE to try.")] = "1,2,3",
    pitch_stride: Annotated[str, typer.Option(help="PITCH_STRIDE to try; 0: the default.")] = "0",
    runs: Annotated[int, typer.Option(min=1, help="Challenges a point.")] = 3,
    fastest: Annotated[
        float | None, typer.Option(help="Seconds of the fastest miner. Default: the quickest row.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON to write.")] = None,
) -> None:
    """Stage times of a challenge; with --sweep, which settings suit the video."""
    from commands.bench_challenge import BenchChallengeError, bench_challenge  # noqa: PLC0415
    from local.triton import DEFAULT_REPOSITORY  # noqa: PLC0415

    try:
        bench_challenge(
            _out,
            video,
            sweep=sweep,
            repositories=repository or [DEFAULT_REPOSITORY],
            batch_sizes=_numbers("--batch", batch),
            frame_strides=_numbers("--stride", stride),
            pitch_strides=_numbers("--pitch-stride", pitch_stride),
            runs=runs,
            fastest_s=fastest,
            json_file=json_file,
        )
    except BenchChallengeError as error:
        _fail(str(error))


def main() -> None:
    """Entry point of the console script."""
    # A plain kill runs the same clean-up as Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _settings() -> Settings:
    from pydantic import ValidationError  # noqa: PLC0415

    from gateway.settings import Settings  # noqa: PLC0415

    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        _fail(f"setting {'.'.join(str(part) for part in first['loc']).upper()}: {first['msg']}")


def _size(option: str, text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        _fail(f"{option} {text}: write height x width, as 384x640")
    return int(height), int(width)


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        _fail(f"{option} {text}: write name=class, as keeper=goalkeeper")
    return name, value


def _numbers(option: str, text: str) -> list[int]:
    if not all(part.strip().isdigit() for part in text.split(",")):
        _fail(f"{option} {text}: write whole numbers with commas between them")
    return [int(part) for part in text.split(",")]


def _fail(message: str) -> NoReturn:
    _err.print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    main()
