"""What an answer is worth when only every n-th frame is inferred. Written by `python -m benchmarks.trade_off --curve`.

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
    (6, 0.981),
    (8, 0.977),
    (10, 0.972),
    (11, 0.962),
    (12, 0.945),
    (13, 0.944),
    (14, 0.937),
    (15, 0.937),
    (16, 0.937),
    (18, 0.921),
    (20, 0.891),
    (25, 0.776),
    (30, 0.637),
    (40, 0.397),
    (50, 0.281),
)
"""Stride and share, ascending; between them on a line."""
