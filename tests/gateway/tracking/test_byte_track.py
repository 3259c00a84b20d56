"""ByteTrack in arrays against the `trackers` library, on made crowds."""

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv
from trackers import ByteTrackTracker, DIoU

from gateway.tracking.byte_track import ByteTrack

FPS, CONFIDENCE, MIN_DIOU, LOST_S = 12.5, 0.35, -0.3, 1.0


@pytest.mark.parametrize("seed", range(8))
def test_it_gives_the_ids_that_the_library_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    theirs = ByteTrackTracker(
        lost_track_buffer=round(30 * LOST_S),
        frame_rate=FPS,
        track_activation_threshold=CONFIDENCE,
        high_conf_det_threshold=CONFIDENCE,
        minimum_consecutive_frames=1,
        minimum_iou_threshold=MIN_DIOU,
        iou=DIoU(),
    )
    ours = ByteTrack(frame_rate=FPS, lost_s=LOST_S, confidence=CONFIDENCE, min_diou=MIN_DIOU)
    corner, speed = rng.uniform(0, 1000, (25, 2)), rng.normal(0, 60, (25, 2))
    at_s, most = 0.0, 0
    for _ in range(120):
        at_s += float(rng.choice([1, 1, 1, 2, 5, 13])) / FPS
        places = corner + at_s * speed + rng.normal(0, 2, corner.shape)
        seen = rng.random(25) < 0.85
        xyxy = np.concatenate([places, np.add(places, (25, 60))], axis=1)[seen]
        scores = rng.uniform(0.1, 0.95, len(xyxy))
        found = sv.Detections(xyxy=xyxy, confidence=scores, class_id=np.arange(len(xyxy)))
        expected = np.full(len(xyxy), -1)
        tracked = theirs.update(found, timestamp=at_s)
        expected[tracked.class_id] = tracked.tracker_id
        ids = ours.update(at_s, np.ascontiguousarray(xyxy.T), scores)
        assert (ids - 1).tolist() == expected.tolist()
        most = max(most, int(ids.max(initial=0)))
    assert most > 25, "some were lost and began anew"


def test_nobody_and_then_somebody() -> None:
    tracker = ByteTrack(frame_rate=FPS, lost_s=LOST_S, confidence=CONFIDENCE, min_diou=MIN_DIOU)
    box, score = np.array([[10.0], [10.0], [30.0], [50.0]]), np.array([0.9])
    assert tracker.update(0.0, box[:, :0], score[:0]).tolist() == []
    assert [tracker.update(at_s, box, score).tolist() for at_s in (0.1, 0.2, 0.3)] == [[0], [1], [1]]
    assert tracker.update(0.4, box[:, :0], score[:0]).tolist() == []
    assert tracker.update(0.5, box, score).tolist() == [1]
    assert tracker.update(1.6, box, score).tolist() == [0], "lost for longer than a second"
