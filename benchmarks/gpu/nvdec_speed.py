"""Frames of the clip a second through the project's decoder, by the CPU and by NVDEC: strides, cores, four at once."""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from pathlib import Path

from benchmarks.gpu.decoding import Decoded, decode
from benchmarks.gpu.steps import OK, finish, need_gpu, say
from gateway.video.codec import nvdec_works

RUNS = 3


def rate(clip: Path, *, nvdec: bool, stride: int, at_once: int, cores: int) -> dict[str, object]:
    """Frames a second of `at_once` decoders on the first `cores` cores, CPU time a frame, seconds to the first slot."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(everywhere)[:cores])
    try:
        rates, first, spent = [], [], []
        for _ in range(RUNS):
            done: list[Decoded] = []

            def one(done: list[Decoded] = done) -> None:
                done.append(decode(clip, nvdec=nvdec, stride=stride))

            threads = [threading.Thread(target=one) for _ in range(at_once)]
            began, cpu = time.perf_counter(), time.process_time()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            frames = max(1, sum(result.frames for result in done))
            rates.append(frames / (time.perf_counter() - began))
            spent.append(1000 * (time.process_time() - cpu) / frames)
            first.append(max((result.first_s for result in done), default=0.0))
    finally:
        os.sched_setaffinity(0, everywhere)
    return {
        "frames_per_s": round(statistics.median(rates)),
        "from_to": [round(min(rates)), round(max(rates))],
        "cpu_ms_a_frame": round(statistics.median(spent), 2),
        "first_slot_s": round(statistics.median(first), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    clip = parser.parse_args().clip
    need_gpu()
    ways = {"CPU": False, "NVDEC": True} if nvdec_works() else {"CPU": False}
    cores = len(os.sched_getaffinity(0))
    found = []
    for stride, at_once, limit in [
        (2, 1, cores),
        *((2, 1, n) for n in (8, 4, 2) if n < cores),
        (1, 1, cores),
        (2, 4, cores),
    ]:
        rates = {
            name: rate(clip, nvdec=nvdec, stride=stride, at_once=at_once, cores=limit) for name, nvdec in ways.items()
        }
        say(stride=stride, at_once=at_once, cores=limit, **rates)
        numbers = " against ".join(f"{name} {numbers['frames_per_s']}" for name, numbers in rates.items())
        found.append(f"{limit} cores{', four at once' if at_once > 1 else ''}, stride {stride}: {numbers}")
    finish(OK, "frames/s, " + "; ".join(found))


if __name__ == "__main__":
    main()
