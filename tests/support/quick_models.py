"""Models for the real Triton that answer at once: what they say depends on the frame's own pixels."""

from __future__ import annotations

from pathlib import Path

HEIGHT, WIDTH, MAX_BATCH = 96, 160, 32

_CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: {max_batch}
input [ {{ name: "frames" data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ {rows}, {columns} ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ }}
parameters {{ key: "delay_s" value {{ string_value: "{delay_s}" }} }}
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
        self.delay_s = float(config["parameters"]["delay_s"]["string_value"])
        self.slower = Path(args["model_repository"]) / "slower"

    def execute(self, requests):
        responses = []
        slower = float(self.slower.read_text()) if self.slower.exists() else 1.0
        for request in requests:
            frames = pb_utils.get_input_tensor_by_name(request, "frames").as_numpy()
            time.sleep(slower * self.delay_s * len(frames))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor(self.output, self.answer(frames))]))
        return responses

    def answer(self, frames):
        height, width = frames.shape[1:3]
        if self.output == "keypoints":
            rows = np.zeros((len(frames), 32, 3), np.float32)
            rows[:, :, 0] = np.linspace(5, width - 5, 32)
            rows[:, :, 1] = height / 2
            rows[:, :16, 2] = 0.9
            return rows
        # One player whose score is the mean brightness of its own frame, one goalkeeper, one ball.
        rows = np.zeros((len(frames), 150, 6), np.float32)
        rows[:, 0] = [20, 20, 30, 44, 0, 2]
        rows[:, 0, 4] = 0.5 + frames.mean(axis=(1, 2, 3)) / 512
        rows[:, 1] = [100, 30, 110, 54, 0.6, 1]
        rows[:, 2] = [60, 60, 64, 64, 0.5, 0]
        return rows
"""


def write_quick_models(repository: Path, *, delay_s: float = 0.0, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """Write a player and a pitch model; each sleeps `delay_s` a frame, or as often as its file `slower` says."""
    for name, output, rows, columns in (("player", "detections", 150, 6), ("pitch", "keypoints", 32, 3)):
        version = repository / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(_MODEL)
        (version.parent / "config.pbtxt").write_text(
            _CONFIG.format(
                name=name,
                output=output,
                rows=rows,
                columns=columns,
                height=height,
                width=width,
                max_batch=MAX_BATCH,
                delay_s=delay_s,
            )
        )
    return repository
