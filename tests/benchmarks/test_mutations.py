"""Damaged videos of 16 formats give at least cv2's frames, as many at every stride, or a sentence; nothing stays."""

from __future__ import annotations

import threading

from benchmarks.mutations import FORMATS, run
from tests.support.watch import descriptors


def test_no_damage_costs_more_frames_than_cv2_loses() -> None:
    descriptors_before, threads_before = descriptors(), threading.active_count()
    outcomes = list(run(60, 20_000))
    assert {outcome.name for outcome in outcomes} == set(FORMATS)
    for outcome in outcomes:
        assert outcome.frames >= outcome.by_cv2, outcome
        assert outcome.frames == outcome.at_stride, outcome
        assert bool(outcome.frames) != bool(outcome.said), outcome
        assert "Errno" not in outcome.said, outcome
    assert descriptors() == descriptors_before
    assert threading.active_count() == threads_before
