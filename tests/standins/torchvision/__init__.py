"""Stands in for torchvision where no build of it exists beside a CPU-only torch: what Ultralytics takes from it."""

from __future__ import annotations

from torchvision import ops

__version__ = "0.28.0"
__all__ = ["ops"]
