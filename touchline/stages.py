"""The stages of a challenge, as metrics, Server-Timing, the console and tables name them."""

from __future__ import annotations

from typing import Final

STAGES: Final = {
    "download": "until the last byte",
    "decode": "waits for bytes included",
    "infer": "at least one batch in Triton",
    "track": "ByteTrack, interpolation",
    "respond": "JSON",
}
"""What each stage's seconds count, in the order in which they begin; they overlap."""
TIMES: Final = (*STAGES, "first_frame", "total")
"""All that is timed: the stages, the first reply of Triton, and the whole."""
