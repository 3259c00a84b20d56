"""Whether sampling fast scenes more and still ones less beats a fixed stride, at equal numbers of inferences.

Every frame of the demo clip is inferred once by the bundled player model; then the tracker is given the frames that
each way of sampling would have chosen. Adaptive sampling sets the next stride to `threshold` over the median speed of
the boxes (px a frame) between the last two inferred frames, within bounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import demo_clip, every_frame, report
from demo.clip import load_truth
from demo.match import Match
from demo.truth import Truth
from gateway.detections import Detections
from gateway.inference.outputs import detections_from_rows
from gateway.tracking.keypoints import KeypointTracker
from gateway.tracking.tracker import Tracker
from touchline.answer_quality import AnswerQuality, measure
from touchline.contract import BALL, DETECTIONS, PLAYER_MODEL

FPS = 25
FIXED = (1, 2, 3, 4)
THRESHOLDS = (4.0, 5.0, 6.0, 8.0, 10.0)
BOUNDS = ((1, 4), (1, 6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    arguments = parser.parse_args()
    console = Console()
    clip = demo_clip(console)
    truth = load_truth(clip.truth)
    rows, letterbox = every_frame(clip.video, PLAYER_MODEL, DETECTIONS)
    detections = detections_from_rows(rows, letterbox, min_score=0.1)
    table = Table("sampling", "inferences", "people found", "precision", "identity switches")
    numbers = {}
    ways = {f"every {stride}": fixed(len(detections), stride) for stride in FIXED}
    for least, most in BOUNDS:
        for threshold in THRESHOLDS:
            ways[f"{least} to {most}, threshold {threshold:g}"] = adaptive(detections, threshold, least, most)
    for name, samples in sorted(ways.items(), key=lambda way: len(way[1])):
        quality = tracked(detections, samples, truth)
        table.add_row(
            name,
            str(len(samples)),
            f"{quality.people_found:.2%}",
            f"{quality.people_precision:.2%}",
            str(quality.identity_switches),
        )
        numbers[name] = {
            "inferences": len(samples),
            "found": quality.people_found,
            "precision": quality.people_precision,
        }
    report(console, table, [], numbers, arguments)


def fixed(frames: int, stride: int) -> list[int]:
    """Every `stride`-th frame and the last one."""
    return sorted({*range(0, frames, stride), frames - 1})


def adaptive(detections: list[Detections], threshold: float, least: int, most: int) -> list[int]:
    """Frames chosen by the speed of the boxes."""
    samples, stride = [0], least
    while samples[-1] < len(detections) - 1:
        before, after = samples[-1], min(len(detections) - 1, samples[-1] + stride)
        speed = box_speed(detections[before], detections[after]) / (after - before)
        stride = int(np.clip(round(threshold / max(speed, 0.1)), least, most))
        samples.append(after)
    return samples


def box_speed(before: Detections, after: Detections) -> float:
    """Median distance in px from a person's box to the nearest one later; 0 where one frame shows nobody."""
    first, second = (each.xyxy[each.classes != BALL] for each in (before, after))
    if not (len(first) and len(second)):
        return 0.0
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (first, second)]
    return float(np.median(np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2).min(axis=1)))


def tracked(detections: list[Detections], samples: list[int], truth: list[Truth]) -> AnswerQuality:
    """The quality of the answer when only `samples` are inferred."""
    tracker = Tracker(fps=FPS, width=Match().width, frame_stride=2, track_buffer=30, confidence=0.35)
    for number in samples:
        tracker.update(number, detections[number])
    tracks = tracker.finish(KeypointTracker().finish((Match().width, Match().height))).rows(0, len(detections))
    frames = [
        {"frame_number": number, "keypoints": [[0.0, 0.0]] * 32, "objects": []} for number in range(len(detections))
    ]
    for number, track, class_id, box in zip(
        tracks.frame_numbers.tolist(), tracks.ids.tolist(), tracks.classes.tolist(), tracks.xyxy.tolist(), strict=True
    ):
        frames[number]["objects"].append({"id": track, "bbox": box, "class_id": class_id})
    return measure({"frames": frames}, truth, Match().width)


if __name__ == "__main__":
    main()
