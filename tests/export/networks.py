"""Seeded YOLO networks that answer with hundreds of boxes, and smooth random frames for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from export.command import Exported, ExportOptions, export_model

SIZE = (384, 640)
NAMES = {0: "ball", 1: "goalkeeper", 2: "player", 3: "referee"}
SHARE_FOUND = 0.04
"""Share of the anchors that score over 0.5: enough for crowds of overlapping boxes."""

UNDECIDED = 0.03
"""Share of the boxes on which two engines may differ, see strangers."""


def frames(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    """Smooth random colour frames uint8 [count, H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 24, 40, 3), dtype=np.uint8)
    return np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_CUBIC) for frame in coarse])


def checkpoint(family: str, path: Path, *, keypoints: int | None = None, names: dict[int, str] | None = None) -> Path:
    """Save a network of a family, e.g. yolo11n or yolo26n-pose, as Ultralytics saves one.

    Its weights are random but seeded; the batch norms are settled on random frames and the class biases set so that a
    share of the anchors fires, so that its answers are as crowded as those of a real network.
    """
    from ultralytics.nn.tasks import DetectionModel, PoseModel, yaml_model_load

    torch.manual_seed(7)
    names = names or ({0: "pitch"} if "pose" in family else NAMES)
    config = yaml_model_load(f"{family}.yaml")
    if "pose" in family:
        model = PoseModel(config, nc=len(names), data_kpt_shape=(keypoints or 32, 3), verbose=False)
    else:
        model = DetectionModel(config, nc=len(names), verbose=False)
    model.names = names
    model.task = "pose" if "pose" in family else "detect"
    settle(model)
    torch.save({"model": model.half(), "train_args": {"task": model.task}}, path)
    return path


def written(role: str, source: Path, options: ExportOptions) -> Exported:
    """What an export comes to that is not only to be judged."""
    (*_, done) = export_model(role, source, options)
    assert isinstance(done, Exported)
    return done


def settle(model: Any) -> None:
    """Batch norm statistics from random frames, class biases from the quantile of the logits."""
    images = torch.from_numpy(frames(8, seed=1)).permute(0, 3, 1, 2).float() / 255
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
    head = model.model[-1]
    with torch.no_grad():
        model.train()(images)
        model.eval()
        raw = model(images)[1]
        for branch, layers in (("one2many", head.cv3), ("one2one", getattr(head, "one2one_cv3", None))):
            if layers is None:
                continue
            logits = raw.get(branch, raw)["scores"].amax(1)
            middle, top = float(torch.quantile(logits.flatten(), 1 - SHARE_FOUND)), float(logits.max())
            # The best score stays well under 1: equal scores would leave the order, and so the answer, open.
            spread = 3.0 / (top - middle)
            for layer in layers:
                layer[-1].weight.mul_(spread)
                layer[-1].bias.mul_(spread).sub_(middle * spread)
    for norm in norms:
        norm.momentum = 0.03


def predicted(path: Path, images: npt.NDArray[np.uint8], **limits: Any) -> list[Any]:
    """What Ultralytics' own predict answers for RGB frames of the model's input size: one Results a frame."""
    from ultralytics import YOLO

    model = YOLO(path)
    return [
        model.predict(np.ascontiguousarray(frame[..., ::-1]), imgsz=list(frame.shape[:2]), verbose=False, **limits)[0]
        for frame in images
    ]


def strangers(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> int:
    """How many boxes of two lists [n, 6] have no twin in the other one: same class, within 1 px and 0.01, used once.

    Two engines may decide otherwise about a score at the threshold or an overlap at the limit, and a random network has
    some of both: a test allows for UNDECIDED, not for none.
    """
    free = np.ones(len(ours), bool)
    for box in theirs:
        near = free & (ours[:, 5] == box[5])
        near &= (np.abs(ours[:, :4] - box[:4]) < 1).all(1) & (np.abs(ours[:, 4] - box[4]) < 0.01)
        if near.any():
            free[np.flatnonzero(near)[0]] = False
    return int(free.sum()) + len(theirs) - int((~free).sum())


def run_onnxruntime(path: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The single output of an ONNX file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


def run_openvino(path: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The single output of an ONNX file in OpenVINO, FP32."""
    import openvino

    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
    compiled = openvino.Core().compile_model(path, "CPU", config)
    return np.asarray(compiled([images])[0])


ENGINES = {"onnxruntime": run_onnxruntime, "openvino": run_openvino}
