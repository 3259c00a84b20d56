"""The pitch network: one probability map per keypoint, decoded to x, y, confidence inside the graph.

Layers 0 to 16 of YOLO11n (backbone and the top-down half of its neck) feed a light head at stride 4. For each keypoint
a softmax runs over all cells of its map and one extra cell that means "not in view", so the maps are probabilities and
the mass around the peak is the probability that the keypoint is there: a confidence that needs no calibration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from ultralytics.nn.modules import C2PSA, SPPF, C3k2, Conv

from touchline.contract import KEYPOINT_COUNT
from training.geometry import LINE_CLASSES, STRIDE

WINDOW_RADIUS: Final = 3
"""Cells on each side of the peak whose mass makes the confidence and whose mean makes the position."""


def _trunk() -> nn.ModuleList:
    """Layers 0 to 16 of yolo11n, so that its checkpoints initialise them by index."""
    return nn.ModuleList(
        [
            Conv(3, 16, 3, 2),
            Conv(16, 32, 3, 2),
            C3k2(32, 64, 1, False, 0.25),
            Conv(64, 64, 3, 2),
            C3k2(64, 128, 1, False, 0.25),
            Conv(128, 128, 3, 2),
            C3k2(128, 128, 1, True),
            Conv(128, 256, 3, 2),
            C3k2(256, 256, 1, True),
            SPPF(256, 256, 5),
            C2PSA(256, 256, 1),
            nn.Upsample(scale_factor=2.0, mode="nearest"),
            nn.Identity(),
            C3k2(384, 128, 1, False),
            nn.Upsample(scale_factor=2.0, mode="nearest"),
            nn.Identity(),
            C3k2(256, 64, 1, False),
        ]
    )


class PitchNet(nn.Module):
    """Float32 [N, 3, H, W] in 0..1 to keypoint logits, absence logits and line logits."""

    def __init__(self, width: int = 64) -> None:
        """Build with `width` channels in the head at stride 4."""
        super().__init__()
        self.width = width
        self.model = _trunk()
        self.lateral = Conv(64, width // 2, 1)
        self.context = Conv(64, width, 3)
        self.fuse = Conv(width + width // 2, width, 3)
        self.points = nn.Conv2d(width, KEYPOINT_COUNT, 1)
        self.absent = nn.Linear(256, KEYPOINT_COUNT)
        self.lines = nn.Conv2d(width, LINE_CLASSES, 1)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Head features float32 [N, width, H/4, W/4] and pooled deep features float32 [N, 256]."""
        kept: dict[int, Tensor] = {}
        x = images
        for index, layer in enumerate(self.model):
            if index == 12:
                x = torch.cat([x, kept[6]], 1)
            elif index == 15:
                x = torch.cat([x, kept[4]], 1)
            else:
                x = layer(x)
            if index in (2, 4, 6, 10):
                kept[index] = x
        x = functional.interpolate(self.context(x), scale_factor=2.0, mode="nearest")
        return self.fuse(torch.cat([x, self.lateral(kept[2])], 1)), kept[10].mean((2, 3))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits: keypoints float32 [N, 32, H/4, W/4], absence float32 [N, 32], lines float32 [N, 6, H/4, W/4]."""
        head, pooled = self.features(images)
        return self.points(head), self.absent(pooled), self.lines(head)


def decode(points: Tensor, absent: Tensor) -> Tensor:
    """Maps to keypoints: float32 [N, 32, 3], x, y in input pixels and the probability of being within the window.

    The peak is taken after a 3x3 mean, the position is the mean of the mass in the window round it. Only comparisons,
    sums and products follow the argmax, so every engine takes the graph.
    """
    count, channels, height, width = points.shape
    logits = torch.cat([points.flatten(2), absent.unsqueeze(2)], 2)
    mass = logits.softmax(2)[..., : height * width].reshape(count, channels, height, width)
    blurred = functional.avg_pool2d(mass, 3, 1, 1)
    # The row and the column of the peak by themselves: OpenVINO sorts, and 15,360 cells take it a millisecond.
    row, column = blurred.amax(3).argmax(2).to(mass.dtype), blurred.amax(2).argmax(2).to(mass.dtype)
    rows = torch.arange(height, device=mass.device, dtype=mass.dtype)
    columns = torch.arange(width, device=mass.device, dtype=mass.dtype)
    in_rows = ((rows - row.unsqueeze(2)).abs() <= WINDOW_RADIUS).to(mass.dtype)
    in_columns = ((columns - column.unsqueeze(2)).abs() <= WINDOW_RADIUS).to(mass.dtype)
    by_row = (mass * in_columns.unsqueeze(2)).sum(3) * in_rows
    by_column = (mass * in_rows.unsqueeze(3)).sum(2) * in_columns
    confidence = by_row.sum(2)
    scale = STRIDE / confidence.clamp(min=1e-6)
    x = (by_column * (columns + 0.5)).sum(2) * scale
    y = (by_row * (rows + 0.5)).sum(2) * scale
    return torch.stack([x, y, confidence], 2)


class DecodedPitch(nn.Module):
    """The core of the exported graph: images float32 [N, 3, H, W] in 0..1 to keypoints float32 [N, 32, 3]."""

    def __init__(self, net: PitchNet) -> None:
        """Wrap a trained network."""
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Run and decode."""
        head, pooled = self.net.features(images)
        return decode(self.net.points(head), self.net.absent(pooled))


def initialise(net: PitchNet, weights: Path) -> int:
    """Copy what fits of an Ultralytics checkpoint (the trunk) or of one of `save`; returns how many tensors fitted."""
    checkpoint = torch.load(weights, map_location="cpu", weights_only=False)
    source = (
        checkpoint["state"] if "state" in checkpoint else (checkpoint.get("ema") or checkpoint["model"]).state_dict()
    )
    own = net.state_dict()
    taken = {k: v.to(own[k].dtype) for k, v in source.items() if k in own and v.shape == own[k].shape}
    net.load_state_dict(taken, strict=False)
    return len(taken)


def save(net: PitchNet, path: Path, **notes: Any) -> None:
    """Write state (half precision), head width and notes."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    torch.save({"width": net.width, "state": state, "notes": notes}, path)


def load(path: Path) -> PitchNet:
    """Read what `save` wrote, ready for inference."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    net = PitchNet(stored["width"])
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored["state"].items()})
    net.eval()
    return net
