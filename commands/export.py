"""`touchline export`: YOLO weights to models that Triton serves."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from commands.terminal import CommandError, screen
from export.command import ExportOptions, export_models
from export.errors import ExportError


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


def command(  # noqa: PLR0917
    weights: Annotated[
        list[str] | None, typer.Argument(help="Weights of the player, the pitch and, if there is one, the ball model.")
    ] = None,
    player: Annotated[str | None, typer.Option(help="The player model's weights, instead of by position.")] = None,
    pitch: Annotated[str | None, typer.Option(help="The pitch model's weights.")] = None,
    ball: Annotated[str | None, typer.Option(help="The ball model's weights.")] = None,
    target: Annotated[ExportTarget, typer.Option(help="Engine that will run the models.")] = ExportTarget.tensorrt,
    out: Annotated[Path, typer.Option(help="Model repository to write into.")] = Path("model_repository"),
    imgsz: Annotated[
        str | None,
        typer.Option(
            help="Height x width of the input, multiples of 32. Default: what the weights were trained at, widescreen."
        ),
    ] = None,
    pitch_imgsz: Annotated[
        str | None, typer.Option(help="The pitch network's own size behind the shared input, for .pt weights.")
    ] = None,
    precision: Annotated[ExportPrecision | None, typer.Option(help="Default: fp16.")] = None,
    max_batch: Annotated[int, typer.Option(help="Largest batch.")] = 32,
    opt_batch: Annotated[int | None, typer.Option(help="Batch that TensorRT tunes for. Default: the largest.")] = None,
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
    cuda_graphs: Annotated[
        bool, typer.Option(help="Let Triton capture CUDA graphs of the preferred batches; it may mix up answers then.")
    ] = False,
    map_class: Annotated[
        list[str] | None,
        typer.Option(help="name=class: what a class of the weights is, none to leave it out; repeatable."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(help="Write nothing: NVIDIA's builder judges without a GPU what TensorRT would be given."),
    ] = False,
) -> None:
    """Turn YOLO weights (.pt, .onnx or owner/name:file of the hub) into models that Triton serves."""
    sources = dict(zip(("player", "pitch", "ball"), weights or [], strict=False))
    sources |= {role: source for role, source in (("player", player), ("pitch", pitch), ("ball", ball)) if source}
    try:
        if len(weights or []) > 3:
            raise ExportError(
                "more than three weights; give the player's, the pitch's and, if there is one, the ball's."
            )
        options = ExportOptions(
            target=target.value,
            out=out,
            size=_size("--imgsz", imgsz) if imgsz else None,
            pitch_size=_size("--pitch-imgsz", pitch_imgsz) if pitch_imgsz else None,
            parity_images=parity_images,
            cuda_graphs=cuda_graphs,
            max_batch=max_batch,
            opt_batch=min(opt_batch, max_batch) if opt_batch else None,
            check=check,
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
        export_models(sources, options, screen)
    except ExportError as error:
        raise CommandError(str(error)) from error


def _size(option: str, text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise CommandError(f"{option} {text}: write height x width, as 384x640")
    return int(height), int(width)


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise CommandError(f"{option} {text}: write name=class, as keeper=goalkeeper")
    return name, value
