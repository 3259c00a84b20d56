"""A camera's tracker: ids at once, classes by the last seconds, places on the pitch, and nothing that grows."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from gateway.detections import Detections
from gateway.tracking.live import PITCH_S, LiveTracker, _Votes
from touchline.contract import BALL, GOALKEEPER, PLAYER
from touchline.homography import project
from touchline.pitch import KEYPOINTS_CM

TO_PITCH = np.array([[12.0, 3.0, -2000.0], [0.0, 30.0, -1500.0], [0.0, 0.002, 1.0]])


def crowd(step: int, count: int = 10, classes: int = PLAYER) -> Detections:
    left = 60.0 * np.arange(count) + 2 * step
    top = 100 + 20.0 * (np.arange(count) % 3)
    xyxy = np.stack([left, top, left + 20, top + 50], axis=1).astype(np.float32)
    return Detections(xyxy, np.full(count, 0.9, np.float32), np.full(count, classes, np.int64))


def test_everybody_has_an_id_from_the_second_frame_on_and_keeps_it_whatever_the_rate() -> None:
    tracker = LiveTracker(track_buffer=30, confidence=0.35)
    at_s, seen = 100.0, []
    for step in (0, 1, 2, 4, 7, 8, 12, 13):
        seen.append(tracker.update(at_s + step / 25, crowd(step), None).tracks.ids)
    assert not seen[0].any()
    assert all(sorted(ids) == list(range(1, 11)) for ids in seen[1:])
    assert tracker.next_id == 11


def test_ids_go_on_after_those_of_a_tracker_before() -> None:
    tracker = LiveTracker(track_buffer=30, confidence=0.35, first_id=41)
    for step in range(3):
        placed = tracker.update(step / 25, crowd(step), None)
    assert sorted(placed.tracks.ids) == list(range(41, 51))


def test_a_class_seen_wrong_for_a_moment_is_outvoted_and_one_that_stays_wins() -> None:
    tracker = LiveTracker(track_buffer=30, confidence=0.35)
    said = []
    for step in range(400):
        wrong = step % 5 == 4 or step >= 100
        found = tracker.update(step / 25, crowd(step, 1, GOALKEEPER if wrong else PLAYER), None)
        said.append(int(found.tracks.detections.classes[0]))
    assert set(said[:100]) == {PLAYER}
    assert set(said[300:]) == {GOALKEEPER}


def test_the_best_ball_is_answered_without_an_id() -> None:
    people = crowd(0, 2)
    both = Detections(
        np.concatenate([np.array([[5, 5, 9, 9], [50, 5, 54, 9]], np.float32), people.xyxy]),
        np.concatenate([np.array([0.8, 0.6], np.float32), people.scores]),
        np.concatenate([np.array([BALL, BALL]), people.classes]),
    )
    placed = LiveTracker(track_buffer=30, confidence=0.35).update(0.0, both, None)
    assert placed.tracks.detections.classes.tolist() == [BALL, PLAYER, PLAYER]
    assert placed.tracks.detections.xyxy[0].tolist() == [5, 5, 9, 9]


def test_feet_are_placed_on_the_pitch_while_it_was_seen_a_moment_ago() -> None:
    points = project(np.linalg.inv(TO_PITCH), KEYPOINTS_CM)
    shown = np.all((points > 0) & (points < (1280, 720)), axis=1)
    assert shown.sum() >= 8
    keypoints = np.where(shown[:, None], points, 0.0).astype(np.float32)
    tracker = LiveTracker(track_buffer=30, confidence=0.35)
    people = crowd(0)
    assert np.isnan(tracker.update(0.0, people, None).positions).all()
    placed = tracker.update(0.04, people, keypoints)
    boxes = placed.tracks.detections.xyxy
    feet = np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]], axis=1)
    np.testing.assert_allclose(placed.positions, project(TO_PITCH, feet), atol=60)
    later = tracker.update(0.04 + 0.9 * PITCH_S, people, np.zeros((32, 2), np.float32))
    assert later.homography is not None
    assert tracker.update(0.1 + PITCH_S, people, None).homography is None


def size_of(thing: Any, seen: set[int] | None = None) -> int:
    """Bytes of everything that is reached from `thing`."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, type):
        return 0
    seen.add(id(thing))
    inner = (
        [*thing.items()] if isinstance(thing, dict) else list(thing) if isinstance(thing, (list, tuple, set)) else []
    )
    inner += [vars(thing)] if hasattr(thing, "__dict__") else []
    inner += [getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ())]
    return sys.getsizeof(thing) + sum(size_of(one, seen) for one in inner)


def test_an_hour_costs_no_more_memory_than_a_minute() -> None:
    tracker = LiveTracker(track_buffer=30, confidence=0.35)
    sizes = []
    for step in range(1500):  # all others every six frames, with minutes between
        people = crowd(step % 6, 12)
        boxes = people.xyxy + 700 * (step // 6 % 5)
        tracker.update(step * 0.04 + step // 6, Detections(boxes, people.scores, people.classes), None)
        if step in (101, 1499):
            sizes.append(size_of(tracker))
    assert tracker.next_id > 500
    assert sizes[1] < 1.5 * sizes[0]


def test_votes_of_who_is_gone_are_forgotten() -> None:
    votes = _Votes()
    people = crowd(0, 3)
    for step in range(100):
        votes.counted(step * 1.0, np.arange(3) + 3 * step, people)
    assert len(votes._of) <= 3 * 12
