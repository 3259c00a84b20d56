"""What an open NVDEC decoder of the project costs: seconds and the GPU's memory, for four at once."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.gpu.decoding import SIZE, complete
from benchmarks.gpu.steps import FAILED, OK, finish, gpu_mib, need_gpu, say
from gateway.video.codec import nvdec_works
from gateway.video.decode import Decoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    clip = parser.parse_args().clip
    need_gpu()
    before, began = gpu_mib(), time.perf_counter()
    works = nvdec_works()
    say(nvdec_works=works, seconds=round(time.perf_counter() - began, 3), mib=gpu_mib() - before)
    if not works:
        finish(FAILED, "there is a GPU and nvdec_works() says no: is libnvcuvid there?")
    seconds, mib = [], [gpu_mib()]
    slot = np.zeros((32, SIZE[1], SIZE[0], 3), np.uint8)
    with ExitStack() as stack:
        for _ in range(4):
            began = time.perf_counter()
            decoder = stack.enter_context(
                Decoder(complete(clip), size=SIZE, frame_stride=1, pitch_stride=1, max_frames=20_000, nvdec=True)
            )
            decoder.open()
            seconds.append(round(time.perf_counter() - began, 3))
            decoder.fill(slot)
            mib.append(gpu_mib())
    each = [after - earlier for earlier, after in pairwise(mib)]
    say(open_s=seconds, mib_each=each, mib_before=mib[0], mib_after_close=gpu_mib())
    finish(OK, f"seconds to open each of four: {seconds}; MiB each: {each}; {mib[0]} MiB before, {gpu_mib()} after")


if __name__ == "__main__":
    main()
