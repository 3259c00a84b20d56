"""What a TensorRT plan is tied to: the stamp beside it, and whether it fits a machine. Needs nothing but Python."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from export.errors import EngineError

REBUILD = "touchline export --target tensorrt"


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a plan is built: batches of the optimisation profile, builder optimisation level 0 to 5, workspace.

    `portable`: it runs on every GPU of its compute capability, not only on those of the name it was built on.
    """

    size: tuple[int, int]
    opt_batch: int = 16
    max_batch: int = 32
    level: int = 3
    workspace_gib: float = 4.0
    portable: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """What a plan is tied to. An empty field is not known, and then fits anything."""

    tensorrt: str
    gpu: str
    compute_capability: str


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a plan was built from and for; written beside it as <plan>.json."""

    onnx_sha256: str
    device: Device
    options: BuildOptions


def stamp_path(plan: Path) -> Path:
    """Where the stamp of a plan lies."""
    return plan.with_name(plan.name + ".json")


def read_stamp(plan: Path) -> Stamp | None:
    """The stamp of a plan; None if there is none or it cannot be read."""
    try:
        raw = json.loads(stamp_path(plan).read_text())
        options = raw["options"] | {"size": tuple(raw["options"]["size"])}
        return Stamp(raw["onnx_sha256"], Device(**raw["device"]), BuildOptions(**options))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_plan(plan: Path, device: Device) -> None:
    """EngineError, with the command that fixes it, if a machine's TensorRT or GPU cannot run the plan."""
    if not plan.is_file():
        raise EngineError(f"{plan}: there is no plan. Build it with `{REBUILD}`.")
    stamp = read_stamp(plan)
    if stamp is None:
        raise EngineError(f"{plan}: nothing says which TensorRT built it. Build it again with `{REBUILD}`.")
    for what, built, here in (
        ("TensorRT", stamp.device.tensorrt, device.tensorrt),
        ("the GPU", stamp.device.gpu, stamp.device.gpu if stamp.options.portable else device.gpu),
        ("compute capability", stamp.device.compute_capability, device.compute_capability),
    ):
        if here and not (same_version(built, here) if what == "TensorRT" else built == here):
            raise EngineError(
                f"{plan}: built for {what} {built}, this is {here}. Build it again with `{REBUILD}`, in the TensorRT "
                "image whose tag equals the Triton image's."
            )


def same_version(first: str, second: str) -> bool:
    """Whether two versions agree in as many parts as both have: 10.13.3.9 and the 10.13.3 of libnvinfer.so.10.13.3."""
    ours, theirs = (version.partition("+")[0].split(".") for version in (first, second))
    return all(mine == other for mine, other in zip(ours, theirs, strict=False))
