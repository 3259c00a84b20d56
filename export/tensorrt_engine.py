"""Builds a TensorRT plan from an ONNX file and keeps it as long as it fits."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from export.engine_stamp import BuildOptions, Device, Stamp, read_stamp, stamp_path
from export.errors import EngineError
from export.gpus import Kind, kinds_of, visible_gpus
from export.tensorrt_build import build
from export.tensorrt_library import tensorrt

Builder = Callable[[bytes, BuildOptions, Path], bytes]
"""From an ONNX file, options and the path of the timing cache to a plan. The seam: tests put their own here."""


def build_engine(
    onnx_file: Path,
    plan: Path,
    options: BuildOptions,
    timing_cache: Path,
    *,
    device: Device | None = None,
    builder: Builder | None = None,
) -> bool:
    """Build the plan unless the one that is there has the same stamp; whether it was built."""
    device = device or device_of(kinds_here()[0])
    network = onnx_file.read_bytes()
    stamp = Stamp(hashlib.sha256(network).hexdigest(), device, options)
    if plan.is_file() and read_stamp(plan) == stamp:
        return False
    plan.parent.mkdir(parents=True, exist_ok=True)
    timing_cache.parent.mkdir(parents=True, exist_ok=True)
    engine = (builder or tensorrt_builder)(network, options, timing_cache)
    # The stamp goes first and comes last: an interrupted export must not leave a plan with another one's stamp.
    stamp_path(plan).unlink(missing_ok=True)
    partial = plan.with_suffix(".partial")
    partial.write_bytes(engine)
    partial.replace(plan)
    stamp_path(plan).write_text(json.dumps(asdict(stamp), indent=2) + "\n")
    return True


def kinds_here() -> list[Kind]:
    """The kinds of GPU that need an engine each, at least one.

    CUDA counts GPUs by speed unless it is told to count as nvidia-smi does, so that is said before CUDA starts.
    EngineError if there is none or it is too old, MissingPackageError without TensorRT.
    """
    tensorrt()
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    try:
        kinds = kinds_of(visible_gpus())
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise EngineError(
            f"--target tensorrt needs an NVIDIA GPU and its driver: nvidia-smi names none ({error}). Without one, "
            "--check says whether the export will succeed where there is one."
        ) from error
    if not kinds:
        raise EngineError("--target tensorrt needs an NVIDIA GPU and its driver: nvidia-smi names none.")
    return kinds


def device_of(kind: Kind) -> Device:
    """What an engine for GPUs of a kind is tied to; MissingPackageError without TensorRT."""
    return Device(tensorrt().version, kind.first.name, kind.compute_capability)


def builder_on(kind: Kind) -> Builder:
    """`tensorrt_builder` on the first GPU of a kind, in a process of its own: CUDA looks for its GPUs only once."""

    def build(network: bytes, options: BuildOptions, timing_cache: Path) -> bytes:
        with ProcessPoolExecutor(1, get_context("spawn"), _see_only, (kind.first.uuid,)) as pool:
            try:
                return pool.submit(tensorrt_builder, network, options, timing_cache).result()
            except BrokenProcessPool as error:
                raise EngineError(
                    f"the process that built the engine for {kind} was killed, which out of memory is: see dmesg."
                ) from error

    return build


def _see_only(uuid: str) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = uuid


def tensorrt_builder(network: bytes, options: BuildOptions, timing_cache: Path) -> bytes:
    """Build with the TensorRT that is installed, 10.12 or later: strongly typed, so precision is what the file says."""
    return build(network, options, timing_cache, tensorrt()).plan
