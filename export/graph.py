"""The exported graph: frames in, the model contract out, with pre- and post-processing inside.

Everything is written in plain ONNX operators with static shapes except for the batch, so that TensorRT, ONNX Runtime
and OpenVINO take the same file. torch is imported here at module level: import this module inside functions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from touchline.contract import KEYPOINT_COUNT

IGNORED = -1
"""Entry of a class map for a class of the weights that the contract does not know."""


class WithPreprocessing(nn.Module):
    """Frames uint8 [N, H, W, 3] (RGB) -> core(float [N, 3, H, W], 0 to 1)."""

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core = core

    def forward(self, frames: Tensor) -> Tensor:
        images = frames.permute(0, 3, 1, 2).float() * (1.0 / 255.0)
        return self.core(images)  # type: ignore[no-any-return]


def with_preprocessing(core: nn.Module) -> nn.Module:
    """Put the contract's input in front of `core`, a module from float [N, 3, H, W] (0 to 1) to a contract output."""
    return WithPreprocessing(core).eval()


class Detections(nn.Module):
    """Raw rows [N, A, 4 + classes] of a YOLO network -> detections float [N, K, 6], best first, zero padded.

    A box has its best class only, as in Ultralytics' predict. With `end_to_end` the rows come from a head trained to
    give one box an object: no suppression, and a box may then appear under several classes, again as in Ultralytics.
    """

    def __init__(
        self,
        network: nn.Module,
        class_map: Sequence[int],
        *,
        end_to_end: bool,
        confidence: float,
        iou: float,
        max_detections: int,
        candidates: int,
        rounds: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.end_to_end = end_to_end
        self.confidence = confidence
        self.iou = iou
        self.max_detections = max_detections
        self.candidates = candidates
        self.rounds = rounds
        self.class_map: Tensor
        self.register_buffer("class_map", torch.tensor(class_map, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        raw = self.network(images)
        boxes, scores = raw[..., :4], raw[..., 4:]
        rows = self._end_to_end_rows(boxes, scores) if self.end_to_end else self._suppressed_rows(boxes, scores)
        return rows * (rows[..., 4:5] > self.confidence)

    def _end_to_end_rows(self, boxes: Tensor, scores: Tensor) -> Tensor:
        count = min(self.max_detections, scores.shape[1])
        classes = scores.shape[2]
        best = scores.amax(2).topk(count, 1).indices
        table = take_rows(torch.cat([boxes, scores], 2), best)
        top, index = table[..., 4:].flatten(1).topk(count, 1)
        row, label = index // classes, index % classes
        return self._pad(self._contract_rows(take_rows(table[..., :4], row), top, label))

    def _suppressed_rows(self, boxes: Tensor, scores: Tensor) -> Tensor:
        score, label = scores.max(2)
        rows = self._contract_rows(boxes, score, label)
        candidates = take_rows(rows, rows[..., 4].topk(min(self.candidates, rows.shape[1]), 1).indices)
        keep = greedy_keep(candidates, self.iou, self.confidence, self.rounds)
        kept_score = candidates[..., 4] * keep
        best = kept_score.topk(min(self.max_detections, candidates.shape[1]), 1)
        rows = take_rows(candidates, best.indices)
        return self._pad(torch.cat([rows[..., :4], best.values[..., None], rows[..., 5:]], 2))

    def _contract_rows(self, boxes: Tensor, score: Tensor, label: Tensor) -> Tensor:
        label = self.class_map[label]
        return torch.cat([boxes, (score * (label > IGNORED + 0.5))[..., None], label[..., None]], 2)

    def _pad(self, rows: Tensor) -> Tensor:
        missing = self.max_detections - rows.shape[1]
        return nn.functional.pad(rows, (0, 0, 0, missing)) if missing > 0 else rows


class BestPose(nn.Module):
    """Raw rows [N, A, 4 + classes + 32 * dims] of a YOLO pose network -> keypoints float [N, 32, 3] of the best one.

    Below the confidence everything is zero. Weights without a visibility channel get the score of the instance.
    """

    def __init__(self, network: nn.Module, classes: int, dims: int, *, confidence: float) -> None:
        super().__init__()
        self.network = network
        self.classes = classes
        self.dims = dims
        self.confidence = confidence

    def forward(self, images: Tensor) -> Tensor:
        raw = self.network(images)
        score = raw[..., 4 : 4 + self.classes].amax(2)
        top = score.topk(1, 1)
        points = take_rows(raw[..., 4 + self.classes :], top.indices).reshape(-1, KEYPOINT_COUNT, self.dims)
        seen = (top.values > self.confidence).float()[..., None]
        if self.dims == 2:
            points = torch.cat([points, top.values[..., None].expand(-1, KEYPOINT_COUNT, 1)], 2)
        return points * seen


def take_rows(table: Tensor, index: Tensor) -> Tensor:
    """Whole rows of [N, A, C] by int64 [N, K] -> [N, K, C]. An index narrower than its rows is refused by OpenVINO."""
    return table.gather(1, index[..., None].expand(-1, -1, table.shape[2]))


def greedy_keep(rows: Tensor, iou: float, confidence: float, rounds: int) -> Tensor:
    """Which rows greedy per-class suppression keeps: float [N, K] of 0 and 1 for rows [N, K, 6], best first.

    Greedy suppression is the only solution of keep(i) = no j < i with keep(j), the same class and an overlap over
    `iou`. Each round puts the last solution into the right side: after r rounds the rows at depth < r of the chain "i
    waits for j" are final, so that it is exact as soon as `rounds` reaches the longest chain of alternating
    decisions.
    """
    x1, y1, x2, y2 = (rows[..., i] for i in range(4))
    label = rows[..., 5]
    area = (x2 - x1) * (y2 - y1)

    def pairs(a: Tensor) -> tuple[Tensor, Tensor]:
        return a[:, :, None], a[:, None, :]

    width = (torch.minimum(*pairs(x2)) - torch.maximum(*pairs(x1))).clamp(min=0)
    height = (torch.minimum(*pairs(y2)) - torch.maximum(*pairs(y1))).clamp(min=0)
    overlap = width * height
    first, second = pairs(area)
    earlier = torch.ones(rows.shape[1], rows.shape[1]).triu(1)
    # overlap / union > iou without the division, which two boxes without area would turn into nan
    beats = (overlap > iou * (first + second - overlap)).float() * (label[:, :, None] == label[:, None, :]).float()
    beats = beats * earlier
    alive = (rows[..., 4] > confidence).float()[:, None, :]
    keep = alive
    for _ in range(rounds):
        keep = alive * (torch.matmul(keep, beats) < 0.5).float()
    return keep[:, 0]


def yolo_rows(model: Any, height: int, width: int) -> tuple[nn.Module, bool]:
    """An Ultralytics model as a network from [N, 3, H, W] to raw rows [N, A, C] with boxes x1 y1 x2 y2; end to end or not.

    The head's own top-K is taken out, its anchors are computed once for this size.
    """
    model = model.fuse(verbose=False).eval()
    head = model.model[-1]
    end_to_end = bool(head.end2end)
    head.export = True
    head.format = "onnx"
    head.dynamic = False
    head.xyxy = True
    head.shape = None
    head.postprocess = lambda rows: rows
    network = YoloRows(model, transpose=not end_to_end)
    with torch.inference_mode():
        network(torch.zeros(1, 3, height, width))
    return network, end_to_end


class YoloRows(nn.Module):
    """A YOLO model whose output is [N, A, C], whichever way its head lays it out."""

    def __init__(self, model: nn.Module, *, transpose: bool) -> None:
        super().__init__()
        self.model = model
        self.transpose = transpose

    def forward(self, images: Tensor) -> Tensor:
        out = self.model(images)
        return out.transpose(1, 2) if self.transpose else out  # type: ignore[no-any-return]
