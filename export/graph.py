"""The exported graph: frames in, the model contract out, with pre- and post-processing inside.

Everything is written in plain ONNX operators with static shapes except for the batch, so that TensorRT, ONNX Runtime
and OpenVINO take the same file. Needs torch: import this module inside functions only.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from export.class_names import IGNORED
from export.onnx_file import free_batch
from touchline.contract import INPUT, KEYPOINT_COUNT, MAX_DETECTIONS

OPSET = 17
Suppression = Literal["operator", "rounds"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a detection graph keeps.

    `suppression` says how overlapping boxes go: "operator" is ONNX NonMaxSuppression, exact for any crowd, for engines
    on a CPU. "rounds" uses static shapes only, as TensorRT and CUDA graphs want it: exact for the best `candidates`
    boxes of a frame unless more than `rounds` of them wait for each other in a row (see greedy_keep).
    `nms_free` takes the head that needs no suppression where the network has one (YOLO26, v10).
    """

    confidence: float = 0.1
    iou: float = 0.5
    max_detections: int = MAX_DETECTIONS
    suppression: Suppression = "rounds"
    candidates: int = 512
    rounds: int = 16
    nms_free: bool = True


class Preprocessing(nn.Module):
    """Frames uint8 [N, H, W, 3] (RGB) -> images float [N, 3, H, W], 0 to 1."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames.permute(0, 3, 1, 2).float() * (1.0 / 255.0)


def with_preprocessing(core: nn.Module) -> nn.Module:
    """Put the contract's input in front of `core`, a module from float [N, 3, H, W] (0 to 1) to a contract output."""
    return nn.Sequential(Preprocessing(), core).eval()


class Detections(nn.Module):
    """Rows [N, A, 4 + classes] (x1 y1 x2 y2, class scores) -> detections float [N, K, 6], best first, zero padded.

    A box has its best class only, as in Ultralytics' predict; suppression is greedy within each class of the contract.
    """

    class_map: Tensor

    def __init__(self, class_map: Sequence[int], thresholds: Thresholds) -> None:
        super().__init__()
        self.thresholds = thresholds
        self.labels = sorted({label for label in class_map if label != IGNORED})
        self.by_rounds = StaticSuppression(thresholds)
        self.register_buffer("class_map", torch.tensor(class_map, dtype=torch.float32))

    def forward(self, rows: Tensor) -> Tensor:
        score, label = rows[..., 4:].max(2)
        found = contract_rows(rows[..., :4], score, self.class_map[label])
        limits = self.thresholds
        if limits.suppression == "rounds":
            return self.by_rounds(found)
        keep = operator_keep(found, self.labels, limits.iou, limits.confidence)
        return best_rows(found, found[..., 4] * keep, limits)


class StaticSuppression(nn.Module):
    """Rows float [N, A, 6] in any order -> detections float [N, K, 6], with suppression by rounds."""

    def __init__(self, thresholds: Thresholds) -> None:
        super().__init__()
        self.thresholds = thresholds

    def forward(self, rows: Tensor) -> Tensor:
        limits = self.thresholds
        rows = take_rows(rows, rows[..., 4].topk(min(limits.candidates, rows.shape[1]), 1).indices)
        keep = greedy_keep(rows, limits.iou, limits.confidence, limits.rounds)
        return best_rows(rows, rows[..., 4] * keep, limits)


class EndToEndDetections(nn.Module):
    """Rows [N, A, 4 + classes] of a head that gives one box an object -> detections float [N, K, 6]: no suppression.

    One anchor may appear under several classes, as in Ultralytics' own top-K for these heads.
    """

    class_map: Tensor

    def __init__(self, class_map: Sequence[int], thresholds: Thresholds) -> None:
        super().__init__()
        self.thresholds = thresholds
        self.register_buffer("class_map", torch.tensor(class_map, dtype=torch.float32))

    def forward(self, rows: Tensor) -> Tensor:
        classes = rows.shape[2] - 4
        count = min(self.thresholds.max_detections, rows.shape[1])
        table = take_rows(rows, rows[..., 4:].amax(2).topk(count, 1).indices)
        score, index = table[..., 4:].flatten(1).topk(count, 1)
        boxes = take_rows(table, index // classes)[..., :4]
        found = contract_rows(boxes, score, self.class_map[index % classes])
        return best_rows(found, found[..., 4], self.thresholds)


class ListedDetections(nn.Module):
    """Finished rows [N, M, 6] (x1 y1 x2 y2, score, class of the weights) -> detections float [N, K, 6]."""

    class_map: Tensor

    def __init__(self, class_map: Sequence[int], thresholds: Thresholds) -> None:
        super().__init__()
        self.thresholds = thresholds
        self.register_buffer("class_map", torch.tensor(class_map, dtype=torch.float32))

    def forward(self, rows: Tensor) -> Tensor:
        found = contract_rows(rows[..., :4], rows[..., 4], self.class_map[rows[..., 5].long()])
        return best_rows(found, found[..., 4], self.thresholds)


class BestPose(nn.Module):
    """Rows [N, A, ...] (box, `scores` class scores, ..., 32 * dims values from column `first`) -> keypoints [N, 32, 3].

    Those of the best instance; all zero below the confidence. Weights without a visibility channel (dims 2) get the
    score of the instance as the confidence of every keypoint.
    """

    def __init__(self, scores: int, first: int, dims: int, confidence: float) -> None:
        super().__init__()
        self.scores = scores
        self.first = first
        self.dims = dims
        self.confidence = confidence

    def forward(self, rows: Tensor) -> Tensor:
        top = rows[..., 4 : 4 + self.scores].amax(2).topk(1, 1)
        points = take_rows(rows, top.indices)[..., self.first :].reshape(-1, KEYPOINT_COUNT, self.dims)
        if self.dims == 2:
            points = torch.cat([points, top.values[..., None].expand(len(rows), KEYPOINT_COUNT, 1)], 2)
        return points * (top.values > self.confidence).float()[..., None]


class CornerRows(nn.Module):
    """Ultralytics' raw ONNX output [N, C, A] with boxes as centre and size -> rows [N, A, C] with x1 y1 x2 y2."""

    def forward(self, raw: Tensor) -> Tensor:
        rows = raw.transpose(1, 2)
        half = rows[..., 2:4] * 0.5
        return torch.cat([rows[..., :2] - half, rows[..., :2] + half, rows[..., 4:]], 2)


class YoloRows(nn.Module):
    """An Ultralytics detect or pose model: images float [N, 3, H, W] -> rows [N, A, C], boxes as x1 y1 x2 y2.

    The head's own top-K is taken out and its anchors are computed once, for this size. YOLO26 and v10 have two heads;
    with `nms_free` theirs that gives one box an object is taken. `end_to_end` says whether it was.
    """

    def __init__(self, model: Any, size: tuple[int, int], *, nms_free: bool = True) -> None:
        super().__init__()
        if getattr(model.model[-1], "one2one_cv2", None) is not None:
            model.model[-1].end2end = nms_free
        self.model = model.fuse(verbose=False).eval()
        head = self.model.model[-1]
        self.end_to_end = bool(head.end2end)
        head.export = True
        head.format = "onnx"
        head.dynamic = False
        head.xyxy = True
        head.shape = None
        head.postprocess = lambda rows: rows
        with torch.inference_mode():
            self.model(torch.zeros(1, 3, *size))

    def forward(self, images: Tensor) -> Tensor:
        out = self.model(images)
        return out if self.end_to_end else out.transpose(1, 2)


def contract_rows(boxes: Tensor, score: Tensor, label: Tensor) -> Tensor:
    """Rows [N, A, 6] from boxes [N, A, 4], scores and contract classes [N, A]; a class that is ignored scores 0."""
    return torch.cat([boxes, (score * (label > IGNORED + 0.5).float())[..., None], label[..., None]], 2)


def best_rows(rows: Tensor, score: Tensor, limits: Thresholds) -> Tensor:
    """The max_detections rows [N, A, 6] with the highest `score` [N, A], zero where that is not over the confidence."""
    best = score.topk(min(limits.max_detections, rows.shape[1]), 1)
    rows = take_rows(rows, best.indices) * (best.values > limits.confidence).float()[..., None]
    missing = limits.max_detections - rows.shape[1]
    return nn.functional.pad(rows, (0, 0, 0, missing)) if missing > 0 else rows


def take_rows(table: Tensor, index: Tensor) -> Tensor:
    """Whole rows of [N, A, C] by int64 [N, K] -> [N, K, C]. An index narrower than its rows is refused by OpenVINO."""
    return table.gather(1, index[..., None].expand(*index.shape, table.shape[2]))


def greedy_keep(rows: Tensor, iou: float, confidence: float, rounds: int) -> Tensor:
    """Which rows [N, K, 6], best first, greedy per-class suppression keeps: float [N, K] of 0 and 1, by static shapes.

    Greedy suppression is the only solution of: i is kept when no kept j < i has its class and overlaps it by more than
    `iou`. Each round puts the last answer into the right side of that. After r rounds every row is right whose
    decision hangs on fewer than r others in a row, so crowds settle in a few rounds, and only a chain of more than
    `rounds` boxes, each the next one's only reason, is cut short (from there on every other box is wrong).
    """
    x1, y1, x2, y2 = (rows[..., column] for column in range(4))
    label = rows[..., 5]
    area = (x2 - x1) * (y2 - y1)
    width = (torch.minimum(x2[:, :, None], x2[:, None]) - torch.maximum(x1[:, :, None], x1[:, None])).clamp(min=0)
    height = (torch.minimum(y2[:, :, None], y2[:, None]) - torch.maximum(y1[:, :, None], y1[:, None])).clamp(min=0)
    overlap = width * height
    # overlap / union > iou without the division, which two boxes without area would turn into nan
    beats = (overlap > iou * (area[:, :, None] + area[:, None] - overlap)).float()
    rank = torch.from_numpy(np.arange(rows.shape[1], dtype=np.float32))
    beats = beats * (label[:, :, None] == label[:, None]).float() * (rank[:, None] < rank).float()
    alive = (rows[..., 4] > confidence).float()[:, None]
    keep = alive
    for _ in range(rounds):
        keep = alive * (torch.matmul(keep, beats) < 0.5).float()
    return keep[:, 0]


def operator_keep(rows: Tensor, labels: Sequence[int], iou: float, confidence: float) -> Tensor:
    """The same answer as greedy_keep, for rows [N, A, 6] in any order and any number, by ONNX NonMaxSuppression."""
    wanted = torch.tensor(labels, dtype=torch.float32)[None, :, None]
    by_class = rows[..., 4][:, None] * (rows[..., 5][:, None] == wanted).float()
    kept = NonMaxSuppression.apply(rows[..., :4], by_class, iou, confidence)
    places = kept[:, 0] * rows.shape[1] + kept[:, 2]
    keep = (rows[..., 4] * 0.0).flatten().scatter(0, places, torch.ones_like(places, dtype=torch.float32))
    return keep.reshape(-1, rows.shape[1])


class NonMaxSuppression(torch.autograd.Function):
    """The ONNX operator of this name; in torch, greedy suppression in plain loops."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, iou: float, confidence: float) -> Tensor:
        """Kept (frame, class, box) int64 [kept, 3] of boxes float [N, A, 4] and scores float [N, classes, A]."""
        if torch.onnx.is_in_onnx_export():
            return torch.zeros(1, 3, dtype=torch.int64)  # only the operator is recorded, never its answer
        kept = []
        for frame, by_class in enumerate(scores):
            for label, score in enumerate(by_class):
                left = score.argsort(descending=True, stable=True)
                left = left[score[left] > confidence]
                while len(left):
                    best, left = left[0], left[1:]
                    kept.append((frame, label, int(best)))
                    left = left[overlaps(boxes[frame, best], boxes[frame, left]) <= iou]
        return torch.tensor(kept, dtype=torch.int64).reshape(-1, 3)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, iou: float, confidence: float) -> Any:
        """How torch writes it into an ONNX file."""
        limits = (torch.tensor([2**31 - 1]), torch.tensor([iou]), torch.tensor([confidence]))
        return g.op("NonMaxSuppression", boxes, scores, *(g.op("Constant", value_t=limit) for limit in limits))


def overlaps(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union float [n] of a box [4] with others [n, 4]; 0 where neither has an area."""
    low, high = torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - common
    return torch.where(union > 0, common / union.clamp(min=1e-12), torch.zeros_like(union))


def to_onnx(module: nn.Module, path: Path, size: tuple[int, int], output: str) -> None:
    """Write a module from frames uint8 [N, H, W, 3] to one contract output as ONNX: N free, the same bytes every time.

    `size` is H, W in pixels; `output` the name of the output, as in touchline.contract.
    """
    model = traced(module, (*size, 3), torch.uint8, INPUT, output)
    path.write_bytes(model.SerializeToString(deterministic=True))


def traced(
    module: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, input_name: str, output_name: str
) -> onnx.ModelProto:
    """A module with one input [N, *shape] and one output as an ONNX model in which N is free."""
    module = module.eval()

    def export(batch: int) -> onnx.ModelProto:
        buffer = io.BytesIO()
        # Where it fails, torch prints the whole graph.
        with torch.inference_mode(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # The trace-based exporter on purpose: its graphs do not change with every release of torch.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.zeros(batch, *shape, dtype=dtype),),
                buffer,
                input_names=[input_name],
                output_names=[output_name],
                opset_version=OPSET,
                dynamo=False,
            )
        return onnx.load_from_string(buffer.getvalue())

    return free_batch(export(2), export(3))
