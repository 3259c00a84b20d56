"""Compares two forms of a contract model on frames: how far boxes and keypoints move, and their scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from export.errors import MissingPackageError
from touchline.contract import KEYPOINTS

Rows = npt.NDArray[np.float32]

SEEN = 0.3
"""Boxes and keypoints over this score are compared."""

SAME_BOX = 0.5
"""A box that overlaps no box of its class by this much (intersection over union) is lost."""


@dataclass(frozen=True, slots=True)
class Parity:
    """The largest differences between what one form of a model sees and another: pixels of the input, and score.

    `seen` boxes or keypoints were looked for in the other's answer, `lost` of them are not there at all.
    """

    seen: int = 0
    lost: int = 0
    pixels: float = 0.0
    score: float = 0.0

    def __str__(self) -> str:
        if not self.seen:
            return "nothing seen"
        text = f"{self.pixels:.2f} px, {self.score:.3f}"
        return f"{text}, {self.lost} of {self.seen} lost" if self.lost else text

    def and_then(self, other: Parity) -> Parity:
        """Both taken together."""
        return Parity(
            self.seen + other.seen,
            self.lost + other.lost,
            max(self.pixels, other.pixels),
            max(self.score, other.score),
        )


def compare(
    whole: ModelProto, other: ModelProto, frames: Iterable[npt.NDArray[np.uint8]], *, over: float = SEEN
) -> Parity:
    """Run both on frames, each uint8 [H, W, 3], one by one in ONNX Runtime; what `whole` sees with a score over `over`.

    MissingPackageError without ONNX Runtime.
    """
    keypoints = whole.graph.output[0].name == KEYPOINTS
    first, second = session(whole), session(other)
    result = Parity()
    for frame in frames:
        rows, others = (
            np.asarray(run.run(None, {run.get_inputs()[0].name: frame[None]})[0][0]) for run in (first, second)
        )
        result = result.and_then((compare_keypoints if keypoints else compare_boxes)(rows, others, over))
    return result


def session(model: ModelProto) -> Any:
    """ONNX Runtime on two threads of the CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError(
            f"comparing models needs onnxruntime ({error}), see requirements/export.in."
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def compare_boxes(rows: Rows, others: Rows, over: float) -> Parity:
    """Detections [K, 6] against others [K, 6]: every box against the nearest of its class."""
    result = Parity()
    for row in rows[rows[:, 4] > over]:
        same = others[(others[:, 4] > 0) & (others[:, 5] == row[5])]
        overlap = overlaps(row[:4], same[:, :4])
        if not len(same) or overlap.max() < SAME_BOX:
            result = result.and_then(Parity(seen=1, lost=1))
            continue
        shifts = np.abs(same[:, :4] - row[:4]).max(axis=1)
        nearest = int(shifts.argmin())
        result = result.and_then(Parity(1, 0, float(shifts[nearest]), float(abs(same[nearest, 4] - row[4]))))
    return result


def compare_keypoints(points: Rows, others: Rows, over: float) -> Parity:
    """Keypoints [32, 3] against others [32, 3], each against itself; one without any confidence is lost."""
    seen = points[:, 2] > over
    there = seen & (others[:, 2] > 0)
    shift = np.abs(points - others)[there]
    return Parity(
        int(seen.sum()),
        int(seen.sum() - there.sum()),
        float(shift[:, :2].max(initial=0)),
        float(shift[:, 2].max(initial=0)),
    )


def overlaps(box: Rows, others: Rows) -> Rows:
    """Intersection over union float32 [n] of a box [4] (x1 y1 x2 y2) with others [n, 4]."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    union = np.prod(box[2:] - box[:2]) + (others[:, 2:] - others[:, :2]).prod(axis=1) - common
    return np.asarray(common / np.maximum(union, 1e-9), np.float32)
