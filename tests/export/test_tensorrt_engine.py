"""When a plan is built, kept and refused, with a builder that needs no GPU."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from export.engine_stamp import BuildOptions, Device, check_plan, read_stamp, stamp_path
from export.errors import EngineError
from export.tensorrt_engine import build_engine, device_of, kinds_here

OPTIONS = BuildOptions(size=(384, 640), opt_batch=8, max_batch=16)
DEVICE = Device("11.4.0", "NVIDIA L4", "8.9")


class Workshop:
    """An ONNX file, a plan beside it and a builder that counts."""

    def __init__(self, folder: Path) -> None:
        self.onnx = folder / "model.onnx"
        self.onnx.write_bytes(b"network")
        self.plan = folder / "1" / "model.plan"
        self.cache = folder / "cache" / "timing"
        self.built: list[BuildOptions] = []

    def builder(self, network: bytes, options: BuildOptions, timing_cache: Path) -> bytes:
        self.built.append(options)
        timing_cache.write_bytes(b"timings")
        return b"plan of " + network

    def build(self, options: BuildOptions = OPTIONS, device: Device = DEVICE) -> bool:
        return build_engine(self.onnx, self.plan, options, self.cache, device=device, builder=self.builder)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_a_plan_is_built_once(workshop: Workshop) -> None:
    assert workshop.build()
    assert workshop.plan.read_bytes() == b"plan of network"
    assert workshop.cache.read_bytes() == b"timings"
    assert not workshop.build()
    assert workshop.built == [OPTIONS]


@pytest.mark.parametrize(
    ("options", "device"),
    [
        (replace(OPTIONS, max_batch=32), DEVICE),
        (replace(OPTIONS, level=5), DEVICE),
        (OPTIONS, replace(DEVICE, tensorrt="10.13.0")),
        (OPTIONS, replace(DEVICE, gpu="NVIDIA H100")),
        (OPTIONS, replace(DEVICE, compute_capability="9.0")),
    ],
)
def test_a_change_builds_again(workshop: Workshop, options: BuildOptions, device: Device) -> None:
    workshop.build()
    assert workshop.build(options, device)
    assert not workshop.build(options, device)


def test_other_weights_build_again(workshop: Workshop) -> None:
    workshop.build()
    workshop.onnx.write_bytes(b"other")
    assert workshop.build()
    assert workshop.plan.read_bytes() == b"plan of other"


def test_a_build_that_fails_leaves_the_old_plan_whole(workshop: Workshop) -> None:
    workshop.build()
    workshop.onnx.write_bytes(b"other")

    def failing(network: bytes, options: BuildOptions, timing_cache: Path) -> bytes:
        raise EngineError("no")

    with pytest.raises(EngineError):
        build_engine(workshop.onnx, workshop.plan, OPTIONS, workshop.cache, device=DEVICE, builder=failing)
    assert workshop.plan.read_bytes() == b"plan of network"
    check_plan(workshop.plan, DEVICE)


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (replace(DEVICE, tensorrt="10.13.0"), r"built for TensorRT 11\.4\.0, this is 10\.13\.0"),
        (
            replace(DEVICE, gpu="NVIDIA H100", compute_capability="9.0"),
            "built for the GPU NVIDIA L4, this is NVIDIA H100",
        ),
        (replace(DEVICE, compute_capability="9.0"), r"compute capability 8\.9, this is 9\.0"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_remedy(workshop: Workshop, device: Device, reason: str) -> None:
    workshop.build()
    check_plan(workshop.plan, DEVICE)
    with pytest.raises(EngineError, match=f"{reason}.*touchline export --target tensorrt"):
        check_plan(workshop.plan, device)


def test_a_plan_without_a_readable_stamp_is_refused_and_built_again(workshop: Workshop) -> None:
    with pytest.raises(EngineError, match="there is no plan"):
        check_plan(workshop.plan, DEVICE)
    workshop.build()
    stamp_path(workshop.plan).write_text("{")
    assert read_stamp(workshop.plan) is None
    with pytest.raises(EngineError, match="nothing says which TensorRT built it"):
        check_plan(workshop.plan, DEVICE)
    assert workshop.build()
    check_plan(workshop.plan, DEVICE)


def test_cuda_counts_gpus_as_nvidia_smi_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\necho "0, GPU-4a, NVIDIA L4, 8.9"\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.4.0"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "")
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    assert [device_of(kind) for kind in kinds_here()] == [Device("11.4.0", "NVIDIA L4", "8.9")]
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
