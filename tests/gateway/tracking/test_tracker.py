"""Tracks and keypoints of every frame from those that were inferred."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.detections import Detections
from gateway.tracking.camera_motion import camera_shift
from gateway.tracking.keypoints import KeypointTracker
from gateway.tracking.tracker import Tracker
from gateway.tracking.tracks import BALL_ID, TrackRows
from touchline.overlap import centres


def detections(*rows: tuple[float, float, float, int]) -> Detections:
    """Boxes of 20x40 px by left, top, score, class; best first."""
    ordered = sorted(rows, key=lambda row: -row[2])
    xyxy = np.array([(x, y, x + 20, y + 40) for x, y, _, _ in ordered], np.float32).reshape(-1, 4)
    return Detections(xyxy, np.array([r[2] for r in ordered], np.float32), np.array([r[3] for r in ordered], np.int64))


def tracker(stride: int = 2) -> Tracker:
    return Tracker(fps=25, width=1280, frame_stride=stride, track_buffer=30, confidence=0.35)


def finish(tracking: Tracker, frame_count: int) -> TrackRows:
    """The rows of all frames of a video whose pitch is not seen."""
    return tracking.finish(KeypointTracker().finish((1280, 720))).rows(0, frame_count)


def rows_of(tracks: TrackRows, frame: int) -> list[tuple[int, int, list[float]]]:
    chosen = tracks.frame_numbers == frame
    return [
        (int(i), int(c), box.tolist())
        for i, c, box in zip(tracks.ids[chosen], tracks.classes[chosen], tracks.xyxy[chosen], strict=True)
    ]


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_two_players_keep_their_ids_in_every_frame(stride: int) -> None:
    tracking = tracker(stride)
    for frame in range(0, 51, stride):
        tracking.update(frame, detections((100 + 2 * frame, 50, 0.9, 2), (400 - 2 * frame, 200, 0.8, 2)))
    tracks = finish(tracking, 51)
    for frame in range(51):
        (first, _, box), (second, _, _) = rows_of(tracks, frame)
        assert (first, second) == (1, 2)
        assert box == pytest.approx([100 + 2 * frame, 50, 120 + 2 * frame, 90], abs=0.01)


def test_the_first_frame_has_its_boxes() -> None:
    tracking = tracker()
    for frame in (0, 2, 4):
        tracking.update(frame, detections((100, 50, 0.9, 2)))
    assert rows_of(finish(tracking, 5), 0)


def test_a_box_that_is_seen_once_is_no_track() -> None:
    tracking = tracker()
    tracking.update(0, detections((100, 50, 0.9, 2)))
    tracking.update(2, detections((100, 50, 0.9, 2), (500, 50, 0.9, 2)))
    tracking.update(4, detections((100, 50, 0.9, 2)))
    assert set(finish(tracking, 5).ids) == {1}


def test_the_class_is_that_of_the_whole_track() -> None:
    tracking = tracker()
    for frame, class_id in zip(range(0, 10, 2), (1, 2, 1, 1, 2), strict=True):
        tracking.update(frame, detections((100, 50, 0.9, class_id)))
    assert set(finish(tracking, 9).classes) == {1}


def test_one_person_seen_as_two_classes_is_one_box() -> None:
    tracking = tracker()
    for frame in (0, 2, 4):
        tracking.update(frame, detections((100, 50, 0.9, 2), (101, 51, 0.6, 1)))
    assert [len(rows_of(finish(tracking, 5), frame)) for frame in range(5)] == [1] * 5


def test_a_weak_box_continues_a_track_and_starts_none() -> None:
    tracking = tracker()
    for frame, score in zip(range(0, 10, 2), (0.9, 0.9, 0.2, 0.2, 0.9), strict=True):
        tracking.update(frame, detections((100, 50, score, 2), (500, 50, 0.2, 2)))
    tracks = finish(tracking, 9)
    assert set(tracks.ids) == {1}
    assert len(tracks.ids) == 9


def test_a_short_gap_is_filled_and_a_long_one_is_not() -> None:
    for gap, expected in ((8, True), (40, False)):
        tracking = tracker()
        for frame in range(0, 7 + gap, 2):
            tracking.update(frame, detections(*[] if 4 < frame < 4 + gap else [(100, 50, 0.9, 2)]))
        assert bool(rows_of(finish(tracking, 7 + gap), 4 + gap // 2)) is expected


def test_frames_between_two_inferred_ones_are_filled_however_many_they_are() -> None:
    tracking = tracker(stride=20)
    for frame in (0, 20, 40):
        tracking.update(frame, detections((100, 50, 0.9, 2)))
    assert all(rows_of(finish(tracking, 41), frame) for frame in range(41))


def test_the_ball_comes_first_and_is_the_best_one() -> None:
    tracking = tracker()
    for frame in (0, 2, 4):
        tracking.update(frame, detections((100, 50, 0.9, 2), (300, 300, 0.5, 0), (10, 10, 0.4, 0)))
    (ball_id, ball_class, box), (person, _, _) = rows_of(finish(tracking, 5), 3)
    assert (ball_id, ball_class, person) == (BALL_ID, 0, 1)
    assert box[0] == 300


def test_the_rows_of_some_frames_are_those_among_all() -> None:
    tracking = tracker(stride=3)
    rng = np.random.default_rng(5)
    for frame in range(0, 91, 3):
        seen = [(100.0 * n + frame, 50.0, 0.9, 2) for n in range(6) if rng.random() < 0.7]
        tracking.update(frame, detections(*seen, *([(300 + frame, 300, 0.8, 0)] if rng.random() < 0.8 else [])))
    tracks = tracking.finish(KeypointTracker().finish((1280, 720)))
    everything = tracks.rows(0, 91)
    assert (np.diff(everything.frame_numbers) >= 0).all()
    for first, stop in ((0, 1), (17, 18), (16, 44), (80, 91)):
        chosen = (everything.frame_numbers >= first) & (everything.frame_numbers < stop)
        assert chosen.any()
        some = tracks.rows(first, stop)
        for name in ("frame_numbers", "ids", "classes", "xyxy"):
            assert np.array_equal(getattr(some, name), getattr(everything, name)[chosen])


def test_nothing_seen_gives_no_rows() -> None:
    tracking = tracker()
    for frame in (0, 2, 4):
        tracking.update(frame, detections())
    assert len(finish(tracking, 5).ids) == 0


def middles(*rows: tuple[float, float, float, int]) -> np.ndarray:
    return centres(detections(*rows).xyxy.T.astype(np.float64))


def _crowd(shift: float = 0.0) -> list[tuple[float, float, float, int]]:
    places = np.random.default_rng(3).uniform((50, 200), (1200, 650), (15, 2))
    return [(x + shift, y, 0.9, 2) for x, y in places]


@pytest.mark.parametrize("shift", [0.0, 15.0, -80.0])
def test_the_cameras_movement_is_what_most_boxes_share(shift: float) -> None:
    before, after = middles(*_crowd()), middles(*_crowd(shift)[2:], (5, 5, 0.9, 2))
    assert camera_shift(before, after, reach=200, last=np.zeros(2)).tolist() == pytest.approx([shift, 0], abs=0.01)


def test_a_shift_beyond_reach_or_of_too_few_boxes_is_none() -> None:
    crowd = middles(*_crowd())
    assert not camera_shift(crowd[:, :2], crowd[:, :2] + 5, reach=100, last=np.zeros(2)).any()
    assert abs(camera_shift(crowd, crowd + 300, reach=100, last=np.zeros(2))).max() < 100


def test_a_sudden_pan_loses_nobody() -> None:
    tracking = tracker(stride=5)
    for frame in range(0, 60, 5):
        tracking.update(frame, detections(*_crowd(shift=-9.0 * max(0, frame - 20))))
    assert set(finish(tracking, 56).ids) == set(range(1, 16))
