"""A model repository whose models answer at once or after a set time, with what a match looks like."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from touchline.contract import DEFAULT_SIZE, KEYPOINT_COUNT, MAX_DETECTIONS, Letterbox
from touchline.homography import project
from touchline.pitch import KEYPOINTS_CM

SOURCE_SIZE = (1280, 720)
"""Width and height of the pictures in which the answers would be right."""
_VARIANTS = 64

_CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 32
input [ {{ name: "frames" data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ {rows}, {columns} ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ }}
"""

_MODEL = """
import json, time
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.output = config["output"][0]["name"]
        self.answers = np.load(Path(args["model_repository"]) / args["model_version"] / "answers.npy")

    def execute(self, requests):
        responses = []
        for request in requests:
            count = pb_utils.get_input_tensor_by_name(request, "frames").shape()[0]
            time.sleep({delay_s} * count)
            rows = np.ascontiguousarray(self.answers[:count])
            self.answers = np.roll(self.answers, -count, axis=0)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor(self.output, rows)]))
        return responses
"""


def write_quick_engine(repository: Path, size: tuple[int, int] = DEFAULT_SIZE, *, delay_s: float = 0.0) -> Path:
    """Write a player and a pitch model of input `size` (height, width) into `repository`; the folder itself.

    Each frame gets one of 64 prepared answers: a ball and 24 persons that shake by a pixel, and the keypoints that a
    camera at the touchline sees, so that tracking, keypoints and the response have as much to do as on a real match.
    Each takes `delay_s`, in which no core computes, as if a GPU did.
    """
    answers = {"player": _detections(size), "pitch": _keypoints(size)}
    for (name, rows), output in zip(answers.items(), ("detections", "keypoints"), strict=True):
        version = repository / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(_MODEL.replace("{delay_s}", str(delay_s)))
        np.save(version / "answers.npy", rows)
        (version.parent / "config.pbtxt").write_text(
            _CONFIG.format(
                name=name,
                output=output,
                height=size[0],
                width=size[1],
                rows=rows.shape[1],
                columns=rows.shape[2],
            )
        )
    return repository


def _detections(size: tuple[int, int]) -> np.ndarray:
    """float32 [64, 150, 6]."""
    rng = np.random.default_rng(44)
    rows = np.zeros((_VARIANTS, MAX_DETECTIONS, 6), np.float32)
    grid = np.stack(np.meshgrid(np.linspace(0.08, 0.9, 6), np.linspace(0.25, 0.85, 4)), axis=2).reshape(-1, 2)
    corners = grid * (size[1], size[0])
    persons = slice(1, 1 + len(grid))
    rows[:, persons, :2] = corners + rng.normal(0, 0.3, (_VARIANTS, len(grid), 2))
    rows[:, persons, 2:4] = rows[:, persons, :2] + (12, 30)
    rows[:, persons, 4] = rng.uniform(0.5, 0.9, (_VARIANTS, len(grid)))
    rows[:, persons, 5] = np.where(np.arange(len(grid)) < 22, 2, 3)
    rows[:, 0] = (size[1] / 2, size[0] / 2, size[1] / 2 + 4, size[0] / 2 + 4, 0.95, 0)
    return rows


def _keypoints(size: tuple[int, int]) -> np.ndarray:
    """float32 [64, 32, 3] under a camera that looks at the right half from the near touchline."""
    rng = np.random.default_rng(45)
    ground = np.array([(5200.0, 200.0), (12000.0, 200.0), (10500.0, 6900.0), (3500.0, 6900.0)], np.float32)
    picture = np.array([(160.0, 170.0), (1120.0, 170.0), (1650.0, 700.0), (-420.0, 700.0)], np.float32)
    rows = np.zeros((_VARIANTS, KEYPOINT_COUNT, 3), np.float32)
    points = np.nan_to_num(project(cv2.getPerspectiveTransform(ground, picture), KEYPOINTS_CM))
    inside = ((points > 0) & (points < SOURCE_SIZE)).all(axis=1)
    letterbox = Letterbox(*SOURCE_SIZE, size[1], size[0])
    shaken = points + rng.normal(0, 0.5, (_VARIANTS, KEYPOINT_COUNT, 2))
    rows[..., :2] = letterbox.to_input(shaken.astype(np.float32))
    rows[..., 2] = np.where(inside, 0.9, 0.05)
    return rows
