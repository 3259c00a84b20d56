"""Write synthetic views with their truth to disk: `python -m training.make_views --out DIR --count 8000`."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from demo.views import random_view


def write_view(folder: Path, seed: int, index: int, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Write a view as NAME.jpg, its boxes as NAME.npy float32 [n, 5] (class x1 y1 x2 y2); returns keypoints [32, 3]."""
    cv2.setNumThreads(1)
    image, truth = random_view(np.random.default_rng((seed, index)), size)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(folder / f"{index:06d}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])
    rows = np.column_stack([truth.classes, truth.boxes]).astype(np.float32)
    np.save(folder / f"{index:06d}.npy", rows)
    return truth.keypoints


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8000)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    count, size = options.count, (options.height, options.width)
    with ProcessPoolExecutor(options.workers) as pool:
        work = pool.map(
            write_view, [options.out] * count, [options.seed] * count, range(count), [size] * count, chunksize=16
        )
        keypoints = []
        for row in work:
            keypoints.append(row)
            if len(keypoints) % 500 == 0 or len(keypoints) == count:
                # Written as it grows, so that a training can begin with what there is.
                np.save(options.out / "keypoints.npy", np.stack(keypoints))
                print(f"{len(keypoints)} of {count}", flush=True)


if __name__ == "__main__":
    main()
