"""A keypoint network at a size of its own behind a larger input, so that it shares slots with a larger player model.

Needs torch: import this module inside functions only.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from touchline.contract import LETTERBOX_GREY


class Rescaled(nn.Module):
    """Images float [N, 3, H, W] at `size` -> keypoints float [N, K, 3] of `core`, which takes images at `core_size`.

    Width decides the scale. What height is left over at the core's size is grey, as letterboxed frames have it; what
    is too much is cropped in equal parts above and below, which is grey already when frames and inputs are both wide.
    """

    def __init__(self, core: nn.Module, size: tuple[int, int], core_size: tuple[int, int]) -> None:
        super().__init__()
        self.core = core
        height, width = size
        core_height, core_width = core_size
        self.scale = width / core_width
        # An even number of rows at the core's size that the input fully covers, and the rows of the input it covers.
        self.rows = min(core_height, int(height / self.scale) // 8 * 8)
        self.covered = round(self.rows * self.scale)
        self.top = (height - self.covered) // 2
        self.padding = (core_height - self.rows) // 2
        # The next float32 up, since the size is rounded down.
        self.factors = tuple(
            float(np.nextafter(np.float32(small / large), np.float32(2)))
            for small, large in ((self.rows, self.covered), (core_width, width))
        )

    def forward(self, images: Tensor) -> Tensor:
        inner = images[:, :, self.top : self.top + self.covered]
        # By factors, since sizes would fix the batch in the graph.
        inner = functional.interpolate(inner, scale_factor=self.factors, mode="bilinear", align_corners=False)
        inner = functional.pad(inner, (0, 0, self.padding, self.padding), value=LETTERBOX_GREY / 255)
        points = self.core(inner)
        x = points[..., 0:1] * self.scale
        y = (points[..., 1:2] - self.padding) * self.scale + self.top
        return torch.cat([x, y, points[..., 2:3]], 2)
