"""Which GPUs this process may use, and how many kinds of engine they take. Needs nothing but Python.

`python -m export.gpus` lists them, `python -m export.gpus --count` says how many: the scripts of deploy/ ask that.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from export.errors import EngineError

QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name,compute_cap", "--format=csv,noheader")
OLDEST = (7, 5)
"""The first compute capability that TensorRT 11 runs on."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as nvidia-smi has it: `index` in the order of the PCI bus, `compute_capability` as 8.9."""

    index: str
    uuid: str
    name: str
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.index} ({self.name}, {self.compute_capability})"


@dataclass(frozen=True, slots=True)
class Kind:
    """The GPUs of one compute capability, which Triton gives one engine; it is built on the first of them."""

    gpus: tuple[Gpu, ...]

    @property
    def first(self) -> Gpu:
        return self.gpus[0]

    @property
    def compute_capability(self) -> str:
        return self.first.compute_capability

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(gpu.name for gpu in self.gpus))

    @property
    def portable(self) -> bool:
        """Its engine has to run on cards of different names, which TensorRT has to be told."""
        return len(self.names) > 1

    def __str__(self) -> str:
        return f"{' and '.join(self.names)} ({self.compute_capability})"


def output(command: Sequence[str]) -> str:
    """What a command prints; OSError or SubprocessError if it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout  # noqa: S603


def visible_gpus(
    environment: Mapping[str, str] = os.environ, ask: Callable[[Sequence[str]], str] = output
) -> list[Gpu]:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES leaves, by number (of nvidia-smi) or UUID; unset: all.

    Raises OSError, SubprocessError or ValueError where nvidia-smi names none, EngineError where the variable names one
    that is not there. The parts of a MIG device are not told apart: the variable then says nothing here.
    """
    gpus = parse_gpus(ask(QUERY))
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None or "MIG-" in wanted:
        return gpus
    chosen = []
    for name in filter(None, (part.strip() for part in wanted.split(","))):
        # CUDA takes a UUID by its beginning.
        found = [gpu for gpu in gpus if name == gpu.index or (name.startswith("GPU-") and gpu.uuid.startswith(name))]
        if len(found) != 1:
            raise EngineError(f"there is no GPU {name} (GPUS or CUDA_VISIBLE_DEVICES); nvidia-smi has {listed(gpus)}.")
        chosen += found
    if not chosen:
        raise EngineError(f"CUDA_VISIBLE_DEVICES is empty and hides every GPU; nvidia-smi has {listed(gpus)}.")
    return list(dict.fromkeys(chosen))


def parse_gpus(answer: str) -> list[Gpu]:
    """The GPUs of an answer to QUERY; ValueError for a line of another form."""
    gpus = []
    for line in answer.strip().splitlines():
        index, _, rest = line.partition(",")
        uuid, _, rest = rest.partition(",")
        name, comma, capability = rest.rpartition(",")
        if not comma or not index.strip().isdigit() or not capability.strip().replace(".", "", 1).isdigit():
            raise ValueError(f"nvidia-smi answers {line!r}")
        gpus.append(Gpu(index.strip(), uuid.strip(), name.strip(), capability.strip()))
    return gpus


def kinds_of(gpus: Sequence[Gpu]) -> list[Kind]:
    """GPUs by compute capability, each in the order of its first. EngineError where TensorRT knows one no more."""
    for gpu in gpus:
        if tuple(map(int, gpu.compute_capability.split("."))) < OLDEST:
            raise EngineError(
                f"GPU {gpu} is older than TensorRT runs on, compute capability {'.'.join(map(str, OLDEST))}: leave it "
                "out (GPUS in deploy/.env, or CUDA_VISIBLE_DEVICES)."
            )
    capabilities = dict.fromkeys(gpu.compute_capability for gpu in gpus)
    return [Kind(tuple(gpu for gpu in gpus if gpu.compute_capability == each)) for each in capabilities]


def listed(gpus: Sequence[Gpu]) -> str:
    """GPUs for a message."""
    return ", ".join(map(str, gpus)) or "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the GPUs, one a line without what changes at a restart, or their number; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m export.gpus", description=__doc__.splitlines()[0])
    parser.add_argument("--count", action="store_true", help="only how many there are")
    count: bool = parser.parse_args(arguments).count
    try:
        gpus = visible_gpus()
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        print(f"error: nvidia-smi names no GPU ({error}).", file=sys.stderr)
        return 1
    print(len(gpus) if count else "\n".join(f"{gpu.name}, {gpu.compute_capability}" for gpu in gpus))
    return 0


if __name__ == "__main__":
    sys.exit(main())
