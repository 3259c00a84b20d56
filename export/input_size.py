"""Which input size all models share where nobody says, and what to say where it is none they were made for."""

from __future__ import annotations

from collections.abc import Iterable

from export.errors import WeightsError
from export.weights import Weights
from touchline.contract import DEFAULT_SIZE

SAME_SCALE = 0.15
"""Part by which a size may differ from that of the training without a note."""


def input_size(weights: Iterable[Weights], asked: tuple[int, int] | None) -> tuple[int, int]:
    """H, W of the input that all models share: what was asked for, else what the first file can look at alone, else
    what the first was trained at, made widescreen.

    WeightsError where a file cannot look at that.
    """
    weights = list(weights)
    fixed = [entry for entry in weights if entry.fixed_size]
    trained = [entry for entry in weights if entry.trained_at]
    size = asked or (fixed[0].fixed_size if fixed else widescreen(trained[0]) if trained else None) or DEFAULT_SIZE
    for entry in fixed:
        if entry.fixed_size and entry.fixed_size != size:
            height, width = entry.fixed_size
            raise WeightsError(
                f"{entry.path}: made for {height}x{width} pixels, and all models share one input. "
                f"Say --imgsz {height}x{width} or give the .pt."
            )
    return size


def portrait(size: tuple[int, int] | None) -> str:
    """A question about an input that is taller than wide, as it is where height and width were taken for each other."""
    if size is None or size[0] <= size[1]:
        return ""
    height, width = size
    return f"--imgsz {height}x{width} is taller than wide (height comes first): was {width}x{height} meant?"


def training_note(weights: Weights, size: tuple[int, int]) -> str:
    """What to know where a network will look at pictures much smaller or larger than those of its training."""
    trained = weights.trained_at
    if not trained or abs(max(size) / trained - 1) <= SAME_SCALE:
        return ""
    flag = "--pitch-imgsz" if weights.task == "pose" else "--imgsz"
    height, width = widescreen(weights)
    return (
        f"trained at {trained} pixels and looks at {max(size)}, which costs accuracy, of small things like the ball "
        f"above all: {flag} {height}x{width} is what it was trained at"
    )


def widescreen(weights: Weights) -> tuple[int, int]:
    """H, W of 16 to 9, as wide as the pictures of the training, in multiples of the stride; 640 is 384 x 640."""
    wide = weights.trained_at or DEFAULT_SIZE[1]
    height, width = (-(-side // weights.stride) * weights.stride for side in (wide * 9 // 16, wide))
    return height, width
