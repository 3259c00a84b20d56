"""Boxes of one frame: what models answer and tracking takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes of one frame, best first: xyxy float32 [n, 4] in source pixels, scores float32 [n], classes int64 [n]."""

    xyxy: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def only(self, chosen: npt.NDArray[np.bool_ | np.intp]) -> Detections:
        """Those that a mask, or indices, choose."""
        return Detections(self.xyxy[chosen], self.scores[chosen], self.classes[chosen])
