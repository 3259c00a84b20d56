"""NVDEC against the CPU through the project's decoder: the same frame numbers and pictures for every form of the clip.

`python -m benchmarks.gpu.nvdec_frames CLIP` wants a GPU; with --cpu the CPU is compared with itself, to try the script.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.gpu.clips import variants
from benchmarks.gpu.decoding import Decoded, decode
from benchmarks.gpu.steps import FAILED, OK, finish, need_gpu, say
from gateway.video.codec import nvdec_works

FAR = 2.0
"""Mean difference of a channel, in levels of 255, over which pictures are not the same. NVDEC's scaling: 0.4 to 0.7."""
SHIFTS = range(-12, 13)


class _Said(logging.Handler):
    """Keeps what the decoder logs about NVDEC, so that it is seen which videos the CPU got."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage()[:160])


def differences(cpu: Decoded, other: Decoded) -> dict[str, object]:
    """How far pictures of the same number are apart, and with which neighbour's picture each agrees best."""
    both = sorted(cpu.pictures.keys() & other.pictures.keys())
    apart = [float(np.abs(cpu.pictures[n].astype(np.int16) - other.pictures[n]).mean()) for n in both[::3]]
    bias = [(other.pictures[n].astype(np.int16) - cpu.pictures[n]).mean((0, 1)) for n in both[::9]]
    shifts = set()
    for number in both[12:-12:17]:
        costs = {
            shift: float(
                np.abs(
                    cpu.pictures[number + shift][::2, ::2].astype(np.int16) - other.pictures[number][::2, ::2]
                ).mean()
            )
            for shift in SHIFTS
            if number + shift in cpu.pictures
        }
        shifts.add(min(costs, key=lambda shift: (costs[shift], abs(shift))))
    return {
        "mean_difference": round(float(np.mean(apart)), 3) if apart else None,
        "worst_frame": round(max(apart, default=0.0), 3),
        "bias_rgb": np.round(np.mean(bias, 0), 2).tolist() if bias else None,
        "shifts": sorted(shifts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--cpu", action="store_true", help="compare the CPU with itself")
    parser.add_argument("--only", nargs="*", default=[], help="these variants")
    arguments = parser.parse_args()
    if not arguments.cpu:
        need_gpu()
        if not nvdec_works():
            finish(FAILED, "there is a GPU and nvdec_works() says no: is libnvcuvid there?")
    said = _Said()
    logging.getLogger("gateway").addHandler(said)
    good, wrong, by_cpu, farthest = [], [], [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, make in variants(arguments.clip, Path(folder)).items():
            if arguments.only and name not in arguments.only:
                continue
            said.lines.clear()
            try:
                video = make()
                cpu = decode(video, nvdec=False, keep=True)
                other = decode(video, nvdec=not arguments.cpu, keep=True)
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {error}"[:120])
                say(variant=name, failed=f"{type(error).__name__}: {error}"[:300], said=said.lines)
                continue
            apart = differences(cpu, other)
            same = cpu.numbers == other.numbers and apart["shifts"] in ([], [0])
            difference = apart["mean_difference"]
            near = isinstance(difference, float) and difference < FAR
            say(
                variant=name,
                frames=len(other.numbers),
                cpu_frames=len(cpu.numbers),
                same=same,
                **apart,
                said=said.lines,
            )
            if same and near:
                good.append(name)
                farthest = max(farthest, float(str(difference)))
            else:
                wrong.append(f"{name}: {len(other.numbers)} of {len(cpu.numbers)} frames, {apart}")
            by_cpu += [name] if difference == 0 else []
    text = f"{len(good)} of {len(good) + len(wrong)} like the CPU, at most {farthest:.2f} levels apart in the mean"
    text += f"; identical (decoded by the CPU): {', '.join(by_cpu)}" if by_cpu else ""
    finish(FAILED if wrong else OK, "; ".join([*wrong, text]))


if __name__ == "__main__":
    main()
