"""What the filter along time does to the keypoints of a video: jitter and plausibility before and after."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.common import every_frame, report
from gateway.inference.outputs import keypoints_from_rows
from gateway.tracking.keypoints import KeypointTracker
from touchline.answer_quality import plausibility
from touchline.contract import KEYPOINTS, PITCH_MODEL

STRIDES = (1, 2, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("--confidence", type=float, default=0.5, help="KEYPOINT_CONFIDENCE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    arguments = parser.parse_args()
    answers, letterbox = every_frame(arguments.video, PITCH_MODEL, KEYPOINTS)
    observed = keypoints_from_rows(answers, letterbox, min_confidence=arguments.confidence)
    size = letterbox.source_size
    frames = len(observed)
    ways = {"as the model says": observed.astype(np.float64)}
    for stride in STRIDES:
        tracker = KeypointTracker()
        for number in sorted({*range(0, frames, stride), frames - 1}):
            tracker.add(number, observed[number])
        ways[f"filtered, every {stride}"] = tracker.finish(size).at(np.arange(frames))
    table = Table("keypoints", "jitter px", "a frame", "inliers", "stability")
    figures = {}
    for name, points in ways.items():
        rows = [{"frame_number": n, "keypoints": frame.tolist(), "objects": []} for n, frame in enumerate(points)]
        plausible = plausibility({"frames": rows}, *size)
        jitter, seen = shaking(points), float((points != 0).any(axis=2).sum(axis=1).mean())
        table.add_row(
            name, f"{jitter:.2f}", f"{seen:.1f}", f"{plausible.inlier_ratio:.1%}", f"{plausible.keypoint_stability:.3f}"
        )
        figures[name] = {"jitter_px": jitter, "keypoints": seen, "inliers": plausible.inlier_ratio}
    report(Console(), table, ["Jitter: mean length of the second difference of a point's place."], figures, arguments)


def shaking(points: npt.NDArray[np.float64]) -> float:
    """Mean length of the second difference over frames in a row, in px."""
    seen = (points != 0).any(axis=2)
    always = seen[2:] & seen[1:-1] & seen[:-2]
    return float(np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=2)[always].mean())


if __name__ == "__main__":
    main()
