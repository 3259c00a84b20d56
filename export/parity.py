"""Compares two forms of a contract model on frames: how far boxes and keypoints move, and their scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto

from export.errors import MissingPackageError
from export.onnx_file import value_types
from touchline.contract import KEYPOINTS

Rows = npt.NDArray[np.float32]

SEEN = 0.3
"""Boxes and keypoints over this score are compared."""

NEAR = (1.0, 0.01)
"""Pixels and score within which two boxes count as the same answer."""

SAME_BOX = 0.5
"""A box that overlaps no box of its class by this much (intersection over union) is lost."""


@dataclass(frozen=True, slots=True)
class Parity:
    """The largest differences between what one form of a model sees and another: pixels of the input, and score.

    `seen` boxes or keypoints were looked for in the other form, `lost` of them are not there at all. Of `swapped` the
    other form has the same box too, but where two boxes of one object score the same within its rounding, suppression
    kept the other one: their differences are those of the box before suppression.
    """

    seen: int = 0
    lost: int = 0
    swapped: int = 0
    pixels: float = 0.0
    score: float = 0.0

    @property
    def near(self) -> bool:
        """Whether nothing is lost or farther than NEAR."""
        return not self.lost and self.pixels < NEAR[0] and self.score < NEAR[1]

    def __str__(self) -> str:
        if not self.seen:
            return "nothing seen"
        text = f"{self.pixels:.2f} px, {self.score:.3f}"
        for count, what in ((self.swapped, "swapped"), (self.lost, "lost")):
            text += f", {count} of {self.seen} {what}" if count else ""
        return text

    def and_then(self, other: Parity) -> Parity:
        """Both taken together."""
        return Parity(
            self.seen + other.seen,
            self.lost + other.lost,
            self.swapped + other.swapped,
            max(self.pixels, other.pixels),
            max(self.score, other.score),
        )


def compare(
    whole: ModelProto, other: ModelProto, frames: Iterable[npt.NDArray[np.uint8]], *, over: float = SEEN
) -> Parity:
    """Run both on frames, each uint8 [H, W, 3], one by one in ONNX Runtime; what `whole` sees with a score over `over`.

    MissingPackageError without ONNX Runtime.
    """
    frames = list(frames)
    # One after the other: a large network needs gigabytes.
    first, second = answers(whole, frames), answers(with_candidates(other), frames)
    result = Parity()
    for (rows,), (others, *candidates) in zip(first, second, strict=True):
        if whole.graph.output[0].name == KEYPOINTS:
            result = result.and_then(compare_keypoints(rows, others, over))
        else:
            result = result.and_then(compare_boxes(rows, others, over, *candidates))
    return result


def with_candidates(model: ModelProto) -> ModelProto:
    """A detection model that also answers with its boxes before suppression, float [N, A, 6]; others as they are.

    They are what the last Concat of six columns makes (see contract_rows of export.graph).
    """
    types = value_types(model)
    for node in reversed(model.graph.node):
        if node.op_type == "Concat" and node.output[0] in types:
            kind = types[node.output[0]]
            dims = [dim.dim_value for dim in kind.shape.dim]
            if kind.elem_type == TensorProto.FLOAT and len(dims) == 3 and dims[2] == 6:
                result = ModelProto()
                result.CopyFrom(model)
                result.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
                result.graph.output[-1].type.tensor_type.CopyFrom(kind)
                return result
    return model


def answers(model: ModelProto, frames: Sequence[npt.NDArray[np.uint8]]) -> list[list[Rows]]:
    """All outputs of a model for each frame, without the batch."""
    run = session(model)
    name = run.get_inputs()[0].name
    return [[np.asarray(output[0]) for output in run.run(None, {name: frame[None]})] for frame in frames]


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


def compare_boxes(rows: Rows, others: Rows, over: float, candidates: Rows | None = None) -> Parity:
    """Detections [K, 6] against others [K, 6]: every box against the nearest of its class.

    Where that is farther than NEAR, the box is looked for among the others before suppression, `candidates` [A, 6].
    """
    result = Parity()
    for row in rows[rows[:, 4] > over]:
        found = nearest(row, others)
        if candidates is not None and not (found and found.near):
            before = nearest(row, candidates)
            if before and before.near:
                found = replace(before, swapped=1)
        result = result.and_then(found or Parity(seen=1, lost=1))
    return result


def nearest(row: Rows, others: Rows) -> Parity | None:
    """How far a box [6] is from the nearest of its class among others [K, 6]; None if none overlaps it."""
    same = others[(others[:, 4] > 0) & (others[:, 5] == row[5])]
    overlap = overlaps(row[:4], same[:, :4])
    if not len(same) or overlap.max() < SAME_BOX:
        return None
    shifts = np.abs(same[:, :4] - row[:4]).max(axis=1)
    scores = np.abs(same[:, 4] - row[4])
    place = int(np.maximum(shifts / NEAR[0], scores / NEAR[1]).argmin())
    return Parity(seen=1, pixels=float(shifts[place]), score=float(scores[place]))


def compare_keypoints(points: Rows, others: Rows, over: float) -> Parity:
    """Keypoints [32, 3] against others [32, 3], each against itself; one without any confidence is lost."""
    seen = points[:, 2] > over
    there = seen & (others[:, 2] > 0)
    shift = np.abs(points - others)[there]
    return Parity(
        int(seen.sum()),
        int(seen.sum() - there.sum()),
        0,
        float(shift[:, :2].max(initial=0)),
        float(shift[:, 2].max(initial=0)),
    )


def overlaps(box: Rows, others: Rows) -> Rows:
    """Intersection over union float32 [n] of a box [4] (x1 y1 x2 y2) with others [n, 4]."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    union = np.prod(box[2:] - box[:2]) + (others[:, 2:] - others[:, :2]).prod(axis=1) - common
    return np.asarray(common / np.maximum(union, 1e-9), np.float32)
