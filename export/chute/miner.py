"""A miner of the subnet's public track: one ONNX file of Touchline beside it, pictures in, boxes out.

Written by `touchline package`, the same for every model: what differs stands in the metadata of the ONNX file. A chute
imports this file alone, so nothing here is imported from the folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from pydantic import BaseModel

GREY = 114
"""Value of the padding around a picture, the one YOLO models are trained with."""
GPU_BATCH = 8
"""Pictures a run on a GPU. On a CPU a batch takes as long as its pictures one by one, and more memory."""
MOST_THREADS = 8
"""An audit allows 16 processes, and a thread counts as one."""


class BoundingBox(BaseModel):
    x1: int
    y1: int
    x2: int
    y2: int
    cls_id: int
    conf: float


class TVFrameResult(BaseModel):
    frame_id: int
    boxes: list[BoundingBox]
    keypoints: list[tuple[int, int]]


class Miner:
    """Loads the model once; predict_batch is called for every batch of pictures."""

    def __init__(self, path_hf_repo: Path) -> None:
        cv2.setNumThreads(1)
        self._path = next(iter(sorted(Path(path_hf_repo).glob("*.onnx"))))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = min(MOST_THREADS, len(os.sched_getaffinity(0)))
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(self._path), options, providers=_providers())
        notes = json.loads(self._session.get_modelmeta().custom_metadata_map["touchline"])
        self._cls_ids = np.array(notes["cls_ids"], np.int64)
        self._confidence = float(notes["confidence"])
        self._input = self._session.get_inputs()[0]
        self._height, self._width = (int(side) for side in self._input.shape[1:3])
        self._on_gpu = self._session.get_providers()[0] != "CPUExecutionProvider"
        self._run(np.full((1, self._height, self._width, 3), GREY, np.uint8))  # the first run allocates

    def __repr__(self) -> str:
        return f"Touchline {self._path.name} {self._height}x{self._width} on {self._session.get_providers()[0]}"

    def predict_batch(self, batch_images: list[np.ndarray], offset: int, n_keypoints: int) -> list[TVFrameResult]:
        """One result a picture (BGR), in their order; frame_id counts from `offset`."""
        results = []
        step = GPU_BATCH if self._on_gpu else 1
        for first in range(0, len(batch_images), step):
            pictures = batch_images[first : first + step]
            frames, places = zip(*(letterbox(picture, self._height, self._width) for picture in pictures))
            for index, (rows, place) in enumerate(zip(self._run(np.stack(frames)), places)):
                results.append(
                    TVFrameResult(
                        frame_id=offset + first + index,
                        boxes=self._boxes(rows, pictures[index].shape, place),
                        keypoints=[(0, 0)] * n_keypoints,
                    )
                )
        return results

    def _run(self, frames: np.ndarray) -> np.ndarray:
        return np.asarray(self._session.run(None, {self._input.name: frames})[0])

    def _boxes(self, rows: np.ndarray, shape: tuple[int, ...], place: tuple[int, int, int, int]) -> list[BoundingBox]:
        """Detections [K, 6] in the model's pixels, best first, to whole pixels of a picture of this shape (H, W, 3)."""
        left, top, content_width, content_height = place
        height, width = shape[:2]
        rows = rows[rows[:, 4] >= self._confidence]
        cls_ids = self._cls_ids[rows[:, 5].astype(np.int64)]
        corners = (rows[:, :4] - (left, top, left, top)) * np.tile((width / content_width, height / content_height), 2)
        corners = np.rint(np.clip(corners, 0, (width, height, width, height))).astype(np.int64)
        return [
            BoundingBox(x1=x1, y1=y1, x2=x2, y2=y2, cls_id=cls_id, conf=conf)
            for (x1, y1, x2, y2), cls_id, conf in zip(corners.tolist(), cls_ids.tolist(), rows[:, 4].tolist())
            if cls_id >= 0 and x2 > x1 and y2 > y1
        ]


def letterbox(picture: np.ndarray, height: int, width: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A BGR picture as RGB uint8 [height, width, 3], scaled by one factor and centred; left, top, width, height of it.

    The arithmetic (rounding included) is that of Ultralytics' LetterBox with auto=False, center=True.
    """
    source_height, source_width = picture.shape[:2]
    gain = min(width / source_width, height / source_height)
    size = max(1, round(source_width * gain)), max(1, round(source_height * gain))
    left, top = round((width - size[0]) / 2 - 0.1), round((height - size[1]) / 2 - 0.1)
    # Bilinear takes two pixels of a line: of a much larger picture it would leave the others out.
    way = cv2.INTER_AREA if source_width > 2 * size[0] else cv2.INTER_LINEAR
    frame = np.full((height, width, 3), GREY, np.uint8)
    content = frame[top : top + size[1], left : left + size[0]]
    cv2.cvtColor(cv2.resize(picture, size, interpolation=way), cv2.COLOR_BGR2RGB, content)
    return frame, (left, top, *size)


def _providers() -> list[str | tuple[str, dict[str, int]]]:
    """A GPU where there is one. TensorFloat-32 off: an audit compares these answers with a CPU's."""
    known = onnxruntime.get_available_providers()
    gpu = [("CUDAExecutionProvider", {"use_tf32": 0})] if "CUDAExecutionProvider" in known else []
    return [*gpu, "CPUExecutionProvider"]
