"""Says before Triton starts whether its TensorRT plans fit: `python -m export.check MODEL_REPOSITORY`.

Runs in the serving image, where there is neither torch nor TensorRT's Python package: it needs Python alone.
Exit status: 0 all plans fit (or what is not known was said), 1 some do not, 2 there is no such repository.
"""

from __future__ import annotations

import argparse
import glob
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.engine_stamp import REBUILD, Device, check_plan, read_stamp
from export.errors import EngineError
from export.gpus import Gpu, output, visible_gpus

VERSION_VARIABLES = ("TENSORRT_VERSION", "TRT_VERSION")
"""Where a version may stand: the operator's word first, then what NVIDIA's images set."""

LIBRARIES = (
    "/usr/lib/*-linux-gnu/libnvinfer.so.*",
    "/usr/local/tensorrt/lib/libnvinfer.so.*",
    "/opt/tritonserver/lib/libnvinfer.so.*",
)
"""Where NVIDIA's images keep TensorRT; the name of the file ends in its version."""


@dataclass(frozen=True, slots=True)
class Host:
    """What runs the plans: TensorRT's version, and every GPU that is to serve. Empty: not known."""

    tensorrt: str = ""
    gpus: tuple[Gpu, ...] = ()

    @property
    def unknown(self) -> list[str]:
        """What cannot be checked here, and why, one line each."""
        lines = []
        if not self.tensorrt:
            variables = " or ".join(VERSION_VARIABLES)
            lines.append(f"TensorRT's version is not checked: neither {variables} nor libnvinfer says it")
        if not self.gpus:
            lines.append("the GPU is not checked: nvidia-smi names none")
        return lines


def this_host(
    environment: Mapping[str, str] = os.environ,
    find: Callable[[str], list[str]] = glob.glob,
    ask: Callable[[Sequence[str]], str] | None = None,
) -> Host:
    """This machine; `find` lists the files of a pattern, `ask` runs a command and returns what it prints.

    EngineError where CUDA_VISIBLE_DEVICES names a GPU that is not there.
    """
    try:
        gpus = tuple(visible_gpus(environment, ask or output))
    except (OSError, subprocess.SubprocessError, ValueError):
        gpus = ()
    return Host(tensorrt_here(environment, find), gpus)


def tensorrt_here(environment: Mapping[str, str], find: Callable[[str], list[str]]) -> str:
    """TensorRT's version by variable, else by the name of its library; empty if nothing says it."""
    for variable in VERSION_VARIABLES:
        if re.match(r"\d+\.\d+\.\d+", environment.get(variable, "")):
            return environment[variable]
    names = [Path(file).name.partition(".so.")[2] for pattern in LIBRARIES for file in find(pattern)]
    return max((name for name in names if name.count(".") >= 2), key=len, default="")


def check_repository(repository: Path, host: Host | None = None) -> list[str]:
    """What keeps Triton from serving the TensorRT models of a repository, each with the remedy; empty when all fit.

    A model is one if its config.pbtxt says so or a plan lies in it. Without `host` it is this machine.
    """
    host = host or this_host()
    problems = []
    for directory in sorted(path for path in repository.iterdir() if path.is_dir()):
        file = directory / "config.pbtxt"
        config = file.read_text() if file.is_file() else ""
        plans = sorted(directory.glob("*/*.plan"))
        if not plans and re.search(r'(platform:\s*"tensorrt_plan"|backend:\s*"tensorrt")', config):
            problems.append(f"{directory}: there is no plan. Build it with `{REBUILD}`.")
        for version in sorted({plan.parent for plan in plans}):
            problems.extend(problems_of(version, config, host))
    return problems


def problems_of(version: Path, config: str, host: Host) -> list[str]:
    """What is wrong with the plans of a version, one line each: where a plan does not fit, or a batch it is not for."""
    problems = []
    for plan, device in dict.fromkeys(pairs(version, config, host)):
        if not plan.is_file():
            gpu = f"{device.gpu} ({device.compute_capability})"
            problems.append(f"{version}: there is no plan for {gpu}. Build it with `{REBUILD}`.")
            continue
        stamp = read_stamp(plan)
        batch = re.search(r"^max_batch_size:\s*(\d+)", config, re.MULTILINE)
        try:
            check_plan(plan, device)
        except EngineError as error:
            problems.append(str(error))
        else:
            if batch and stamp and int(batch[1]) > stamp.options.max_batch:
                problems.append(
                    f"{plan}: built for batches up to {stamp.options.max_batch}, config.pbtxt says {batch[1]}. Build "
                    f"it again with `{REBUILD} --max-batch {batch[1]}`."
                )
    return problems


def pairs(version: Path, config: str, host: Host) -> Iterator[tuple[Path, Device]]:
    """Each plan that Triton will load with what will run it: by compute capability, or the one plan on every GPU."""
    named = dict(re.findall(r'cc_model_filenames\s*\{\s*key:\s*"([\d.]+)"\s*value:\s*"([^"]+)"', config))
    if not host.gpus:
        for plan in sorted(version.glob("*.plan")):
            yield plan, Device(host.tensorrt, "", "")
    for gpu in host.gpus:
        name = named.get(gpu.compute_capability, "")
        default = re.search(r'default_model_filename:\s*"([^"]+)"', config)
        plan = version / (name or (default[1] if default else "model.plan"))
        yield plan, Device(host.tensorrt, gpu.name, gpu.compute_capability)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a repository, say what is wrong on standard error; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m export.check", description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path, help="folder of model directories")
    repository: Path = parser.parse_args(arguments).repository
    if not repository.is_dir():
        print(f"{repository}: there is no such folder.", file=sys.stderr)
        return 2
    try:
        host = this_host()
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for line in host.unknown:
        print(f"note: {line}", file=sys.stderr)
    problems = check_repository(repository, host)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
