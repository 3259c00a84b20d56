"""The quick estimator against the library's, on random tracks with steps of any length."""

from __future__ import annotations

import numpy as np
import pytest
from trackers.core.bytetrack.tracklet import ByteTrackTracklet
from trackers.utils.predict_timing import PredictTiming

from gateway.kalman import SharedCovarianceEstimator


@pytest.mark.parametrize("seed", range(5))
def test_it_gives_what_the_librarys_filter_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    box = rng.uniform(0, 500, 4)
    theirs, ours = ByteTrackTracklet(box), ByteTrackTracklet(box, SharedCovarianceEstimator)
    for _ in range(60):
        step = float(rng.choice([1.0, 1.0, 2.0, 0.5, 3.7]))
        timing = PredictTiming(frame_step=step, elapsed_seconds=step / 12.5, frame_rate=12.5)
        assert np.allclose(ours.predict(timing), theirs.predict(timing).ravel(), atol=1e-8)
        if rng.random() < 0.8:
            box = box + rng.normal(3, 2, 4)
            theirs.update(box)
            ours.update(box)
            assert np.allclose(ours.get_state_bbox(), theirs.get_state_bbox().ravel(), atol=1e-8)
