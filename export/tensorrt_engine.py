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

from export.errors import EngineError, MissingPackageError
from export.gpus import Kind, kinds_of, visible_gpus
from export.plan import BuildOptions, Device, Stamp, read_stamp, stamp_path
from touchline.contract import INPUT

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


def tensorrt_version() -> str:
    """Version of the TensorRT package; MissingPackageError where it is not installed."""
    try:
        import tensorrt
    except ImportError as error:
        raise MissingPackageError(
            f"--target tensorrt needs TensorRT's Python package ({error}). Run the export in the compose file's "
            "`export` service, which is nvcr.io/nvidia/tensorrt with the tag of the Triton image."
        ) from error
    return str(tensorrt.__version__)


def kinds_here() -> list[Kind]:
    """The kinds of GPU that need an engine each, at least one.

    EngineError if there is none or it is too old, MissingPackageError without TensorRT.
    """
    tensorrt_version()
    try:
        kinds = kinds_of(visible_gpus())
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise EngineError(
            f"--target tensorrt needs an NVIDIA GPU and its driver: nvidia-smi names none ({error})."
        ) from error
    if not kinds:
        raise EngineError("--target tensorrt needs an NVIDIA GPU and its driver: nvidia-smi names none.")
    return kinds


def device_of(kind: Kind) -> Device:
    """What an engine for GPUs of a kind is tied to; MissingPackageError without TensorRT."""
    return Device(tensorrt_version(), kind.first.name, kind.compute_capability)


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
    version = tensorrt_version()
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.Severity.WARNING)
    builder = trt.Builder(logger)
    # Up to TensorRT 10 this has to be asked for; 11 knows nothing else and keeps the name.
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, logger)
    if not parser.parse(network):
        errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineError(f"TensorRT {version} does not take the ONNX file: {errors}")

    settings = builder.create_builder_config()
    settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options.workspace_gib * 2**30))
    settings.builder_optimization_level = options.level
    # On by default, it would round what is FP32 on purpose, box decoding above all, to 11 bits.
    settings.clear_flag(trt.BuilderFlag.TF32)
    if options.portable:
        settings.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    profile = builder.create_optimization_profile()
    low, best, high = (trt.Dims([batch, *options.size, 3]) for batch in (1, options.opt_batch, options.max_batch))
    profile.set_shape(INPUT, low, best, high)
    settings.add_optimization_profile(profile)
    known = timing_cache.read_bytes() if timing_cache.is_file() else b""
    if not settings.set_timing_cache(settings.create_timing_cache(known), False):
        settings.set_timing_cache(settings.create_timing_cache(b""), False)

    plan = builder.build_serialized_network(definition, settings)
    if plan is None:
        raise EngineError(f"TensorRT {version} could not build the engine; its own messages stand above.")
    timing_cache.write_bytes(bytes(settings.get_timing_cache().serialize()))
    return bytes(plan)
