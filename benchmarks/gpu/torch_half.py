"""FP16 against FP32 on the GPU in PyTorch: how far boxes and keypoints move, milliseconds a batch, memory.

Run it with the Python that has torch, built for CUDA, and the packages of requirements/export.txt.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from benchmarks.gpu.steps import FAILED, OK, SKIPPED, finish, need_gpu, say


def main() -> None:
    device = "cpu" if sys.argv[1:] == ["--cpu"] else "cuda"
    if device == "cuda":
        need_gpu()
    os.environ.setdefault("YOLO_OFFLINE", "true")
    try:
        import torch

        from benchmarks.gpu import torch_engine
        from export.errors import MissingPackageError
        from export.frames import parity_frames
        from export.parity import Parity, compare_boxes, compare_keypoints
    except ImportError as error:
        finish(SKIPPED, f"no PyTorch here: {error}")
    if device == "cuda" and not torch.cuda.is_available():
        finish(SKIPPED, f"torch {torch.__version__} has no CUDA")
    pictures = np.stack(parity_frames(None, torch_engine.SIZE))
    try:
        engines = {role: torch_engine.Engine(role, device) for role in ("player", "pitch")}
    except MissingPackageError as error:
        finish(SKIPPED, str(error))
    far, found = False, []
    for role, compare, over in (("player", compare_boxes, 0.35), ("pitch", compare_keypoints, 0.5)):
        engine = engines[role]
        whole = torch_engine.Engine(role, device, half=False)
        apart = Parity()
        for rows, others in zip(whole(pictures), engine(pictures), strict=True):
            apart = apart.and_then(compare(rows, others, over))
        far |= apart.lost > 0 or not apart.seen
        del whole
        ms: dict[int, tuple[float, float]] = {}
        for size in torch_engine.BATCHES if device == "cuda" else ():
            batch = np.resize(pictures, (size, *torch_engine.SIZE, 3))
            engine(batch)
            graph = engine.graphs[size][0]
            began = time.perf_counter()
            for _ in range(20):
                graph.replay()
            torch.cuda.synchronize()
            alone = time.perf_counter() - began
            began = time.perf_counter()
            for _ in range(20):
                engine(batch)
            ms[size] = (round(50 * alone, 2), round(50 * (time.perf_counter() - began), 2))
        say(role=role, against_fp32=str(apart), seen=apart.seen, lost=apart.lost, ms_alone_and_with_copies=ms)
        text = f"{role} {apart.pixels:.2f} px, {apart.score:.3f} from FP32, {apart.lost} of {apart.seen} lost"
        found.append(text + (f"; batch 32 {ms[32][0]} ms, {ms[32][1]} with copies" if 32 in ms else ""))
    reserved = f"; {torch.cuda.memory_reserved() // 2**20} MiB reserved" if device == "cuda" else ""
    finish(FAILED if far else OK, "; ".join(found) + reserved)


if __name__ == "__main__":
    main()
