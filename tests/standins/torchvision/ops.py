"""Greedy non-maximum suppression with torchvision's signature and order, in plain torch."""

from __future__ import annotations

import torch


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the kept boxes, best first: int64 [kept] from boxes float [N, 4] (x1 y1 x2 y2) and scores [N]."""
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for index in range(len(boxes)):
        if not alive[index]:
            continue
        later = slice(index + 1, None)
        sides = torch.minimum(boxes[index, 2:], boxes[later, 2:]) - torch.maximum(boxes[index, :2], boxes[later, :2])
        overlap = sides.clamp(min=0).prod(1)
        alive[later] &= overlap / (areas[index] + areas[later] - overlap) <= iou_threshold
    return order[alive]
