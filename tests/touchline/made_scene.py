"""A made-up camera over the pitch, and the answers and truths that follow from it exactly."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from touchline.contract import BALL, GOALKEEPER, PLAYER, REFEREE
from touchline.pitch import KEYPOINTS_CM
from touchline.video_write import video_writer

WIDTH, HEIGHT = 640, 360
CLASSES = np.array([BALL, GOALKEEPER, PLAYER, PLAYER, PLAYER, REFEREE])
IDS = np.array([50, 1, 2, 3, 4, 5])
STANDS_CM = np.array([(6100, 3600), (4100, 3500), (5200, 2200), (6500, 4100), (7300, 2900), (6000, 5000)], float)


@dataclass(frozen=True)
class Truth:
    frame_number: int
    boxes: np.ndarray
    classes: np.ndarray
    ids: np.ndarray
    keypoints: np.ndarray


def camera(
    aim_cm: tuple[float, float] = (6000.0, 3500.0),
    eye_cm: tuple[float, float, float] = (6000.0, 12500.0, 2500.0),
    focal: float = 700.0,
) -> np.ndarray:
    """Pitch cm -> pixels of a pinhole camera beyond the near touchline: float64 [3, 3], positive depth in front."""
    eye = np.array(eye_cm)
    forward = np.array([*aim_cm, 0.0]) - eye
    forward /= np.linalg.norm(forward)
    right = np.array([1.0, 0, 0]) - forward * forward[0]
    right /= np.linalg.norm(right)
    # Pitch x, pitch y and height are a left-handed frame, so this product points down in the picture.
    down = np.cross(right, forward)
    down *= -np.sign(down[2])
    rotation = np.stack([right, down, forward])
    lens = np.array([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
    return np.asarray(lens @ np.column_stack([rotation[:, 0], rotation[:, 1], -rotation @ eye]))


def pixels(pitch_to_image: np.ndarray, points: np.ndarray) -> np.ndarray:
    mapped = np.column_stack([points, np.ones(len(points))]) @ pitch_to_image.T
    return np.where(mapped[:, 2:] > 0, mapped[:, :2] / mapped[:, 2:], -1.0)


def keypoints(pitch_to_image: np.ndarray) -> np.ndarray:
    """float64 [32, 2]: those inside the picture, (0, 0) for the others."""
    points = pixels(pitch_to_image, KEYPOINTS_CM)
    inside = np.all((points > 0) & (points < (WIDTH, HEIGHT)), axis=1)
    return np.where(inside[:, None], points, 0.0)


def truths(count: int) -> list[Truth]:
    """A slow pan; every object walks half a metre a frame along the pitch at most."""
    frames = []
    for number in range(count):
        view = camera(aim_cm=(6000.0 + 5 * number, 3500.0))
        feet = pixels(view, STANDS_CM + np.column_stack([np.arange(6) * 4.0, np.zeros(6)]) * number)
        size = np.where(CLASSES == BALL, 3.0, 12.0)
        boxes = np.column_stack([feet[:, 0] - size / 2, feet[:, 1] - size * 1.8, feet[:, 0] + size / 2, feet[:, 1]])
        points = keypoints(view)
        visible = (points != 0).any(axis=1)
        frames.append(
            Truth(number, boxes.astype(np.float32), CLASSES, IDS, np.column_stack([points, visible]).astype(np.float32))
        )
    return frames


def answer_to(frames: list[Truth]) -> dict[str, Any]:
    """The response that says exactly the truth."""
    return {
        "challenge_id": "made-up",
        "processing_time": 1.5,
        "frames": [
            {
                "frame_number": truth.frame_number,
                "keypoints": truth.keypoints[:, :2].tolist(),
                "objects": [
                    {"id": int(track), "bbox": box.tolist(), "class_id": int(class_id)}
                    for track, box, class_id in zip(truth.ids, truth.boxes, truth.classes, strict=True)
                ],
            }
            for truth in frames
        ],
    }


def grass_video(path: Path, count: int, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """A plain green H.264 clip, 25 frames a second."""
    with video_writer(path, width, height, Fraction(25)) as add:
        for _ in range(count):
            add(np.full((height, width, 3), (60, 140, 60), np.uint8))
    return path
