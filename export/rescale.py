"""A keypoint network at a size of its own behind a larger input, so that it shares slots with a larger player model.

Needs torch: import this module inside functions only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from touchline.contract import LETTERBOX_GREY


class Rescaled(nn.Module):
    """Images float [N, 3, H, W] at `size` -> keypoints float [N, K, 3] of `core`, which takes images at `core_size`.

    Width decides the scale. What height is left over at the core's size is grey, as letterboxed frames have it; what
    is too much is cropped in equal parts above and below, which is grey already when frames and inputs are both wide.
    """

    by_row: Tensor
    by_column: Tensor

    def __init__(self, core: nn.Module, size: tuple[int, int], core_size: tuple[int, int]) -> None:
        super().__init__()
        self.core = core
        height, self.width = size
        core_height, self.core_width = core_size
        self.scale = self.width / self.core_width
        # An even number of rows at the core's size that the input fully covers, and the rows of the input it covers.
        self.rows = min(core_height, int(height / self.scale) // 8 * 8)
        self.covered = round(self.rows * self.scale)
        self.top = (height - self.covered) // 2
        self.padding = (core_height - self.rows) // 2
        self.register_buffer("by_row", scaling(self.covered, self.rows))
        self.register_buffer("by_column", scaling(self.width, self.core_width).T.contiguous())

    def forward(self, images: Tensor) -> Tensor:
        inner = images[:, :, self.top : self.top + self.covered]
        # Products of small matrices: a Resize takes OpenVINO twice as long as these do.
        inner = self.by_row @ inner.reshape(-1, self.by_row.shape[1], self.width)
        inner = inner.reshape(-1, len(self.by_column)) @ self.by_column
        inner = inner.reshape(-1, 3, self.rows, self.core_width)
        inner = functional.pad(inner, (0, 0, self.padding, self.padding), value=LETTERBOX_GREY / 255)
        points = self.core(inner)
        x = points[..., 0:1] * self.scale
        y = (points[..., 1:2] - self.padding) * self.scale + self.top
        return torch.cat([x, y, points[..., 2:3]], 2)


def scaling(size: int, scaled: int) -> Tensor:
    """Weights float32 [scaled / n, size / n] of bilinear scaling (pixel centres at 0.5) of a line, n pieces alike.

    Made smaller, 8 to 5 say, no pixel looks over the edge of its piece; made larger it does, and there is one piece.
    """
    pieces = math.gcd(size, scaled) if size >= scaled else 1
    one = torch.eye(size // pieces)[None]
    return functional.interpolate(one, size=scaled // pieces, mode="linear", align_corners=False)[0].T.contiguous()
