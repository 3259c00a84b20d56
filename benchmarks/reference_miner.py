"""A stand-in for the reference miner: OpenCV, Ultralytics on PyTorch, ByteTrack, one frame after the other.

Run by benchmarks.reference with the export environment's Python; prints one JSON object. It does what the subnet's
reference miner does with a frame: the player model at 1280 px, the pitch model at its default size, ByteTrack over the
persons, and the frame's entry in the answer. Models are loaded and warm before the clock starts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import supervision as sv
import torch
from trackers import ByteTrackTracker
from ultralytics import YOLO

from touchline.contract import BALL, DEFAULT_SIZE, Letterbox

Image = np.ndarray
WARM_UP_FRAMES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("--player", type=Path, required=True)
    parser.add_argument("--pitch", type=Path, required=True)
    parser.add_argument("--player-size", type=int, nargs="+", default=[1280])
    parser.add_argument("--frames", type=int, default=40)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    cv2.setNumThreads(cores)
    player, pitch = YOLO(arguments.player), pitch_model(arguments.pitch)
    answers = {size: answer(arguments.video, arguments.frames, player, pitch, size) for size in arguments.player_size}
    print(json.dumps({"torch": torch.__version__, "threads": cores, "sizes": answers}))


def answer(video: Path, frames: int, player: YOLO, pitch: Callable[[Image], Image], player_size: int) -> dict[str, Any]:
    """Time of the loop over `frames` frames of the video, and what it answered."""
    capture = cv2.VideoCapture(str(video))
    tracker = ByteTrackTracker()
    entries: list[dict[str, Any]] = []
    began = spent = 0.0
    stages = {"decode": 0.0, "player": 0.0, "pitch": 0.0, "track": 0.0}
    for number in range(-WARM_UP_FRAMES, frames):
        if number == 0:
            stages = dict.fromkeys(stages, 0.0)
            began = time.perf_counter()
        marks = [time.perf_counter()]
        there, image = capture.read()
        if not there:
            raise SystemExit(f"{video} has fewer than {frames + WARM_UP_FRAMES} frames")
        marks.append(time.perf_counter())
        result = player(image, imgsz=player_size, verbose=False)[0]
        detections = sv.Detections.from_ultralytics(result)
        marks.append(time.perf_counter())
        keypoints = pitch(image)
        marks.append(time.perf_counter())
        ball = detections[detections.class_id == BALL]
        tracked = tracker.update(detections[detections.class_id != BALL])
        objects = [(0, box, BALL) for box in ball.xyxy]
        objects += list(zip(tracked.tracker_id, tracked.xyxy, tracked.class_id, strict=True))
        entries.append(
            {
                "frame_number": number + WARM_UP_FRAMES,
                "keypoints": [[float(x), float(y)] for x, y in keypoints[:, :2]],
                "objects": [
                    {"id": int(name), "bbox": [float(side) for side in box], "class_id": int(kind)}
                    for name, box, kind in objects
                ],
            }
        )
        marks.append(time.perf_counter())
        for stage, (start, stop) in zip(stages, itertools.pairwise(marks), strict=True):
            stages[stage] += stop - start
    spent = time.perf_counter() - began
    capture.release()
    measured = entries[WARM_UP_FRAMES:]
    return {
        "frames": frames,
        "elapsed_s": spent,
        "frames_per_s": frames / spent,
        "boxes_a_frame": sum(len(entry["objects"]) for entry in measured) / frames,
        "answer": measured,
        **{f"{stage}_ms": 1000 * seconds / frames for stage, seconds in stages.items()},
    }


def pitch_model(weights: Path) -> Callable[[Image], Image]:
    """A function from an image BGR [H, W, 3] to keypoints [32, 3] in its pixels, by an Ultralytics pose model at its
    default size, or by the project's own network at the size it was trained for."""
    stored = torch.load(weights, map_location="cpu", weights_only=False)
    if "state" in stored:
        return heatmap_model(weights)
    model = YOLO(weights)

    def infer(image: Image) -> Image:
        found = model(image, verbose=False)[0].keypoints
        return found.data[0].numpy() if found is not None and len(found.data) else np.zeros((32, 3), np.float32)

    return infer


def heatmap_model(weights: Path) -> Callable[[Image], Image]:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from training.pitch_model import DecodedPitch, load  # noqa: PLC0415  needs what only these weights need

    model = DecodedPitch(load(weights)).eval()
    height, width = DEFAULT_SIZE

    def infer(image: Image) -> Image:
        letterbox = Letterbox(image.shape[1], image.shape[0], width, height)
        canvas = letterbox.placed(cv2.resize(image, letterbox.content_size)[..., ::-1])
        with torch.inference_mode():
            rows = model(torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255)[0].numpy()
        return np.column_stack([letterbox.to_source(rows[:, :2]), rows[:, 2]])

    return infer


if __name__ == "__main__":
    main()
