"""What an answer is worth when only every n-th frame is inferred. Written by `python -m benchmarks.trade_off --curve`.

Measured on the clip of `make demo` (750 frames, 25 frames/s) with the bundled models: share of the people found.
"""

from __future__ import annotations

from typing import Final

MEASURED_FPS: Final = 25.0
PEOPLE_FOUND: Final = (
    (1, 0.986),
    (2, 0.986),
    (4, 0.984),
    (6, 0.981),
    (8, 0.977),
    (10, 0.967),
    (15, 0.942),
    (20, 0.885),
    (25, 0.769),
    (50, 0.3),
)
"""Stride and share, ascending; between them on a line."""
