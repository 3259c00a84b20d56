"""The contract's graph in PyTorch: FP16 in the network, FP32 around it, on a GPU a CUDA graph for each batch size.

TensorRT is faster: this is a floor, where no TensorRT is to be had. Triton's Python backend loads it, see challenge.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

ROOT = Path(os.environ.get("TOUCHLINE", Path(__file__).resolve().parents[2]))
SIZE = (576, 1024)
"""Height and width of the input."""
BATCHES = (1, 8, 16, 32)


def contract(role: str, device: str) -> nn.Module:
    """Frames uint8 [N, H, W, 3] to the role's output, on `device`."""
    from export.compose import finish
    from export.graph import Thresholds, YoloRows, with_preprocessing
    from export.weights import load as load_weights

    if role == "pitch":
        from export.rescale import Rescaled
        from touchline.contract import DEFAULT_SIZE
        from training.pitch_model import DecodedPitch, load

        model: nn.Module = Rescaled(DecodedPitch(load(ROOT / "weights/pitch.pt").to(device)), SIZE, DEFAULT_SIZE)
    else:
        with torch.device("cpu"):  # where its file says it is
            weights = load_weights(ROOT / "weights/player.pt", "player", None)
        weights.model.to(device)
        rows = YoloRows(weights.model, SIZE)
        model = nn.Sequential(rows, finish(weights, Thresholds(), end_to_end=rows.end_to_end))
    return with_preprocessing(model).to(device)


class Engine:
    """Answers batches uint8 [N, H, W, 3] with the role's rows, float32."""

    def __init__(self, role: str, device: str, *, half: bool = True) -> None:
        self.device, self.half = device, half and device != "cpu"
        self.graphs: dict[int, tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._kept: list[object] = []
        """What captured graphs read: it must outlive them."""
        whole = torch.from_numpy
        known: dict[tuple[object, ...], torch.Tensor] = {}
        self._kept.append(known)

        def constant(
            array: npt.NDArray[Any],
        ) -> torch.Tensor:  # of a forward; copied once, for a copy cannot be captured
            key = (array.shape, array.dtype.str, array.tobytes())
            if key not in known:
                known[key] = whole(array).to(device)
            return known[key]

        with torch.device(device):
            self.module = contract(role, device)
        torch.from_numpy = constant
        try:
            if device != "cpu":
                for size in BATCHES:
                    self.graphs[size] = self._captured(size)
        finally:
            torch.from_numpy = whole

    def __call__(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if self.device == "cpu":
            return np.asarray(self._forward(torch.from_numpy(np.ascontiguousarray(frames))))
        count = len(frames)
        size = next((size for size in BATCHES if size >= count), BATCHES[-1])
        if count > size:
            return np.concatenate([self(frames[:size]), self(frames[size:])])
        graph, target, rows, pinned = self.graphs[size]
        pinned.numpy()[:count] = frames
        target[:count].copy_(pinned[:count], non_blocking=True)
        graph.replay()
        return np.asarray(rows[:count].cpu())

    def _forward(self, frames: torch.Tensor) -> torch.Tensor:
        with (
            torch.inference_mode(),
            torch.device(self.device),
            torch.autocast(self.device, torch.float16, enabled=self.half, cache_enabled=False),
        ):
            return self.module(frames).float()

    def _captured(self, size: int) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:
        frames = torch.zeros(size, *SIZE, 3, dtype=torch.uint8, device=self.device)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                self._forward(frames)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            rows = self._forward(frames)
        # A network that keeps its anchors makes new ones for another batch size.
        kept = [
            value for part in self.module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor)
        ]
        self._kept.append(kept)
        return graph, frames, rows, torch.empty(frames.shape, dtype=torch.uint8, pin_memory=True)
