"""All steps one after the other, each a process with a time limit; one table; see `benchmarks/gpu_first_run.sh`.

Status 0: every step went well. 1: a step failed. 77: none failed, and at least one could not be made, for want of a
GPU, of Docker or of PyTorch. Python's own library is all that this file needs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.steps import FAILED, NO_GPU, OK, SKIPPED, gpu

ROOT = Path(__file__).resolve().parents[2]
WORDS = {OK: "ok", SKIPPED: "skipped"}


@dataclass(frozen=True, slots=True)
class Step:
    """A module of this folder, with the seconds it may take."""

    name: str
    limit_s: int
    arguments: tuple[str, ...]
    torch: bool = False
    """Runs with the Python that has torch."""
    gpu: bool = True
    """Without a GPU it is not even started."""


def plan(clip: str, packages: tuple[str, ...]) -> list[Step]:
    """The steps, what most depends on first; together at most ten minutes."""
    return [
        Step("driver, libraries, Docker", 20, ("host",)),
        Step("images of one TensorRT", 60, ("images",), gpu=False),
        Step("NVDEC: open", 30, ("nvdec_open", clip)),
        Step("NVDEC: the CPU's frames", 110, ("nvdec_frames", clip)),
        Step("NVDEC: speed", 70, ("nvdec_speed", clip)),
        Step("FP16 in PyTorch", 70, ("torch_half",), torch=True),
        Step("challenge, PyTorch engine", 100, ("challenge", clip, "--engine", "torch", "--packages", *packages)),
        Step("challenge, instant engine", 60, ("challenge", clip)),
        Step("stack: own results", 55, ("stack", "stale"), gpu=False),
        Step("stack: shared memory", 25, ("stack",), gpu=False),
    ]


def run(step: Step, python: str, log: Path) -> tuple[int, float, str]:
    """Status, seconds and finding of one step; its output is kept in `log`."""
    began = time.monotonic()
    with log.open("w") as output:
        try:
            status = subprocess.run(
                [python, "-m", f"benchmarks.gpu.{step.arguments[0]}", *step.arguments[1:]],
                cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                timeout=step.limit_s, check=False,
            ).returncode  # fmt: skip
            ended = f"ended with status {status}"
        except subprocess.TimeoutExpired:
            status, ended = FAILED, f"was stopped after {step.limit_s} s"
        except OSError as error:
            status, ended = FAILED, f"could not be started: {error}"
    lines = log.read_text(errors="replace").strip().splitlines()
    try:
        finding = str(json.loads(lines[-1])["finding"])
    except (IndexError, KeyError, TypeError, ValueError):
        finding = f"{ended}: {lines[-1] if lines else 'no word'}"
        status = status or FAILED
    return status, time.monotonic() - began, finding


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, required=True, help="an H.264 clip, as of `touchline demo`")
    parser.add_argument("--python", default=sys.executable, help="Python with requirements/gateway.txt")
    parser.add_argument("--torch-python", default=sys.executable, help="Python with torch and requirements/export.txt")
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="steps whose name has one of these in it")
    parser.add_argument("--out", type=Path, default=ROOT / "out/gpu", help="folder for the steps' numbers")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    packages = subprocess.run(
        [arguments.torch_python, "-c", "import sys; print(*(p for p in sys.path if p.endswith('-packages')))"],
        capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    statuses, there = [], gpu()
    for step in plan(str(arguments.clip.resolve()), tuple(packages)):
        if arguments.only and not any(word in step.name for word in arguments.only):
            continue
        log = out / f"{step.name.replace(' ', '_').replace(',', '').replace(':', '')}.jsonl"
        python = arguments.torch_python if step.torch else arguments.python
        skipped = step.gpu and not there
        status, seconds, finding = (SKIPPED, 0.0, NO_GPU) if skipped else run(step, python, log)
        statuses.append(status)
        word = WORDS.get(status, "FAILED")
        print(
            f"{step.name:<28} {word + ':' if status == SKIPPED else word:<9} {finding:<40} [{seconds:.0f} s]",
            flush=True,
        )
    print(f"every number: {out}/*.jsonl")
    if any(status not in (OK, SKIPPED) for status in statuses):
        return FAILED
    return SKIPPED if SKIPPED in statuses else OK


if __name__ == "__main__":
    sys.exit(main())
