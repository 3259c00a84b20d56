"""What every n-th frame alone is worth. Written by `python -m benchmarks.long_strides --curve`.

Share of the people found on the clip of `make demo` (750 frames, 25 frames/s) with the bundled models, from recorded
outputs of every frame, the pitch model as often as a plan takes it; of a stride and those below it the lowest.
"""

from __future__ import annotations

from typing import Final

MEASURED_FPS: Final = 25.0
PEOPLE_FOUND: Final = (
    (1, 0.985),
    (2, 0.984),
    (4, 0.984),
    (6, 0.98),
    (8, 0.977),
    (10, 0.973),
    (11, 0.962),
    (12, 0.949),
    (13, 0.949),
    (14, 0.943),
    (15, 0.943),
    (16, 0.94),
    (18, 0.926),
    (20, 0.905),
    (22, 0.849),
    (25, 0.809),
    (30, 0.697),
    (40, 0.422),
    (50, 0.29),
)
"""Stride and share, ascending; between them on a line."""
