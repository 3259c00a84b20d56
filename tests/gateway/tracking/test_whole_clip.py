"""People of a whole clip whose pitch is seen: ids and boxes at any stride, on synthetic tracks without any model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from gateway.detections import Detections
from gateway.tracking.camera_fit import turning_camera
from gateway.tracking.keypoints import KeypointTracker
from gateway.tracking.tracker import Tracker
from gateway.tracking.tracks import TrackRows
from touchline.contract import GOALKEEPER, PLAYER
from touchline.homography import pitch_homography, project
from touchline.pitch import REAL_KEYPOINTS_CM

FPS, SIZE, FRAMES = 25, (1280, 720), 251
PLACE = np.array([52.0, 100.0, -18.0])
"""The camera in metres: behind the near touchline, 18 m above it; z points down."""
Points = npt.NDArray[np.float64]


def camera(frame: int, fps: float = FPS, *, place: Points = PLACE) -> Points:
    """Pitch centimetres to pixels, [3, 3], of a camera that pans to and fro."""
    pan = 0.25 * np.sin(2 * np.pi * frame / fps / 9)
    zoom = 1300 + 150 * np.sin(2 * np.pi * frame / fps / 13)
    ahead = np.array([np.sin(pan), -np.cos(pan), 0.27])
    ahead /= np.linalg.norm(ahead)
    right = np.array([np.cos(pan), np.sin(pan), 0.0])
    turn = np.stack([right, np.cross(ahead, right), ahead])
    lens = np.array([[zoom, 0, SIZE[0] / 2], [0, zoom, SIZE[1] / 2], [0, 0, 1]])
    return np.asarray(lens @ np.column_stack([turn[:, 0] / 100, turn[:, 1] / 100, -turn @ place]))


def keypoints(frame: int, rng: np.random.Generator, fps: float = FPS) -> npt.NDArray[np.float32]:
    points = project(camera(frame, fps), REAL_KEYPOINTS_CM) + rng.normal(0, 1.0, (32, 2))
    inside = np.all((points > 0) & (points < SIZE), axis=1)
    return np.where(inside[:, None], points, 0.0).astype(np.float32)


def runs(count: int, frames: int, fps: float, rng: np.random.Generator) -> Points:
    """Places of people on the pitch, float64 [frames, count, 2] in cm: a few metres a second, turning softly."""
    times = np.arange(frames)[:, None] / fps
    place = rng.uniform((1500, 500), (9000, 6300), (count, 2))
    phase, speed = rng.uniform(0, 2 * np.pi, (2, count)), rng.uniform(100, 500, count)
    turning = rng.uniform(0.3, 0.8, (2, count))
    swing = [speed / turning[axis] * np.sin(turning[axis] * times + phase[axis]) for axis in (0, 1)]
    return np.asarray(place + np.stack(swing, axis=2))


def boxes(places: Points, frame: int, fps: float = FPS) -> tuple[Points, npt.NDArray[np.intp]]:
    """Boxes of those in the picture, 1.8 m high, and who they are."""
    matrix = camera(frame, fps)
    feet = project(matrix, places)
    zoom = 180 / 100 * np.linalg.norm(project(matrix, places + np.array((100.0, 0.0))) - feet, axis=1)
    box = np.stack([feet[:, 0] - zoom / 5, feet[:, 1] - zoom, feet[:, 0] + zoom / 5, feet[:, 1]], axis=1)
    who = np.flatnonzero((box[:, :2] > 0).all(axis=1) & (box[:, 2:] < SIZE).all(axis=1))
    return box[who], who


class Clip:
    def __init__(self, *, count: int = 18, frames: int = FRAMES, fps: float = FPS, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.fps, self.frames = fps, frames
        self.places = runs(count, frames, fps, rng)
        self.truth = [boxes(self.places[frame], frame, fps) for frame in range(frames)]
        self.seen = [box + rng.normal(0, 0.5, box.shape) for box, _ in self.truth]
        self.keypoints = [keypoints(frame, rng, fps) for frame in range(frames)]

    def answer(self, stride: int, *, track_buffer: int = 30, pitch: bool = True) -> TrackRows:
        tracker = Tracker(fps=self.fps, width=SIZE[0], frame_stride=stride, track_buffer=track_buffer, confidence=0.35)
        points = KeypointTracker()
        for frame in sorted({*range(0, self.frames, stride), self.frames - 1}):
            box = self.seen[frame].astype(np.float32)
            tracker.update(frame, Detections(box, np.full(len(box), 0.9, np.float32), np.full(len(box), 2)))
            if pitch:
                points.add(frame, self.keypoints[frame])
        return tracker.finish(points.finish(SIZE)).rows(0, self.frames)

    def found(self, rows: TrackRows) -> tuple[float, int]:
        """Share of true boxes with an IoU of at least 0.5, and how often a person in the picture changes the id."""
        hits = total = switches = 0
        last: dict[int, int] = {}
        for frame, (box, who) in enumerate(self.truth):
            here = rows.frame_numbers == frame
            overlap = _iou(box, rows.xyxy[here])
            total += len(who)
            last = {person: name for person, name in last.items() if person in who}
            for row in np.flatnonzero(overlap.max(axis=1, initial=0) >= 0.5):
                hits += 1
                name = int(rows.ids[here][overlap[row].argmax()])
                switches += last.get(int(who[row]), name) != name
                last[int(who[row])] = name
        return hits / total, switches


def _iou(first: Points, second: Points) -> Points:
    sides = np.minimum(first[:, None, 2:], second[None, :, 2:]) - np.maximum(first[:, None, :2], second[None, :, :2])
    shared = np.maximum(sides, 0).prod(axis=2)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (first, second)]
    return np.asarray(shared / (areas[0][:, None] + areas[1] - shared))


@pytest.mark.parametrize(
    ("stride", "least", "most"), [(2, 0.98, 4), (6, 0.98, 4), (10, 0.98, 4), (15, 0.97, 4), (25, 0.91, 10)]
)
def test_people_keep_boxes_and_ids_however_far_inferred_frames_lie_apart(stride: int, least: float, most: int) -> None:
    clip = Clip()
    found, switches = clip.found(clip.answer(stride))
    assert found >= least
    assert switches <= most


@pytest.mark.parametrize("fps", [10, 24, 50, 60])
def test_what_counts_is_time_and_not_frames(fps: int) -> None:
    clip = Clip(fps=fps, frames=8 * fps + 1, seed=2)
    found, switches = clip.found(clip.answer(round(fps * 0.6)))
    assert found >= 0.96
    assert switches <= 4


@pytest.mark.parametrize("track_buffer", [0, 30])
@pytest.mark.parametrize(("fps", "stride"), [(1, 2), (1, 25), (24, 25), (25, 2), (25, 50)])
@pytest.mark.parametrize("pitch", [True, False])
def test_who_stands_is_one_person_in_every_frame(track_buffer: int, fps: int, stride: int, pitch: bool) -> None:
    clip = Clip(fps=fps, frames=120)
    clip.truth, clip.seen, clip.keypoints = [clip.truth[0]] * 120, [clip.seen[0]] * 120, [clip.keypoints[0]] * 120
    rows = clip.answer(stride, track_buffer=track_buffer, pitch=pitch)
    count = len(clip.truth[0][1])
    assert (np.bincount(rows.frame_numbers) == count).all()
    assert set(rows.ids) == set(range(1, count + 1))


def test_a_clip_of_one_frame_has_its_people() -> None:
    clip = Clip(frames=1)
    rows = clip.answer(2)
    assert len(set(rows.ids)) == len(rows.ids) == len(clip.truth[0][1])


def test_without_a_pitch_in_sight_people_are_still_followed_in_the_picture() -> None:
    clip = Clip()
    found, _ = clip.found(clip.answer(5, pitch=False))
    assert found >= 0.95


def test_where_the_pitch_is_lost_for_a_while_ids_stay() -> None:
    clip = Clip()
    for frame in range(80, 160):
        clip.keypoints[frame] = np.zeros((32, 2), np.float32)
    found, switches = clip.found(clip.answer(5))
    assert found >= 0.95
    assert switches <= 8


def test_who_leaves_the_picture_is_answered_up_to_its_edge() -> None:
    clip = Clip()
    rows = clip.answer(25)
    assert (rows.xyxy >= 0).all()
    assert (rows.xyxy <= np.tile(SIZE, 2)).all()
    last = [max(rows.frame_numbers[rows.ids == name]) for name in set(rows.ids)]
    assert any(frame % 25 for frame in last if frame < FRAMES - 1)


def test_a_standing_camera_makes_one_frames_homography_right_far_from_its_keypoints() -> None:
    clip = Clip()
    frames = list(range(0, FRAMES, 10))
    points = np.array([clip.keypoints[frame] for frame in frames], np.float64)
    alone = [pitch_homography(each, 100.0, REAL_KEYPOINTS_CM) for each in points]
    steady, _ = turning_camera(points, (points != 0).any(axis=2), REAL_KEYPOINTS_CM, alone, SIZE)

    def worst(found: list[Points | None]) -> float:
        off = []
        for frame, homography in zip(frames, found, strict=True):
            assert homography is not None
            feet = clip.truth[frame][0][:, [0, 3]]
            true: Points = np.linalg.inv(camera(frame)).astype(np.float64)
            apart = np.subtract(project(homography, feet), project(true, feet))
            off.append(np.linalg.norm(apart, axis=1).max())
        return float(np.max(off))

    assert worst(steady) < 60
    assert worst(steady) < worst(alone) / 2


def test_a_camera_that_does_not_stand_is_left_as_it_is() -> None:
    rng = np.random.default_rng(4)
    points, alone = [], []
    for frame in range(0, 200, 10):
        matrix = camera(frame, place=PLACE + rng.normal(0, (25, 15, 6)))
        seen = project(matrix, REAL_KEYPOINTS_CM)
        inside = np.all((seen > 0) & (seen < SIZE), axis=1)
        points.append(np.where(inside[:, None], seen, 0.0))
        alone.append(pitch_homography(points[-1], 100.0, REAL_KEYPOINTS_CM))
    array = np.array(points)
    steady, _ = turning_camera(array, (array != 0).any(axis=2), REAL_KEYPOINTS_CM, alone, SIZE)
    for homography, seen in zip(steady, array, strict=True):
        if homography is not None:
            off = np.linalg.norm(project(homography, seen) - REAL_KEYPOINTS_CM, axis=1)[(seen != 0).any(axis=1)]
            assert np.median(off) < 100


def test_no_keypoints_and_a_single_frame_make_no_camera() -> None:
    nothing = np.zeros((3, 32, 2))
    assert turning_camera(nothing, nothing[..., 0] > 0, REAL_KEYPOINTS_CM, [None] * 3, SIZE)[0] == [None] * 3
    one = keypoints(0, np.random.default_rng(1)).astype(np.float64)[None]
    alone = [pitch_homography(one[0], 100.0, REAL_KEYPOINTS_CM)]
    assert turning_camera(one, (one != 0).any(axis=2), REAL_KEYPOINTS_CM, alone, SIZE)[0] is alone


def test_rows_of_some_frames_are_those_among_all() -> None:
    clip = Clip()
    tracker = Tracker(fps=FPS, width=SIZE[0], frame_stride=10, track_buffer=30, confidence=0.35)
    points = KeypointTracker()
    for frame in range(0, FRAMES, 10):
        box = clip.seen[frame].astype(np.float32)
        tracker.update(frame, Detections(box, np.full(len(box), 0.9, np.float32), np.full(len(box), 2)))
        points.add(frame, clip.keypoints[frame])
    tracks = tracker.finish(points.finish(SIZE))
    everything, some = tracks.rows(0, FRAMES), tracks.rows(83, 117)
    chosen = (everything.frame_numbers >= 83) & (everything.frame_numbers < 117)
    assert np.array_equal(some.ids, everything.ids[chosen])
    assert np.allclose(some.xyxy, everything.xyxy[chosen])


def test_frames_whose_keypoints_no_camera_shows_cost_little() -> None:
    clip = Clip()
    middle = np.array(SIZE) / 2
    for frame in (50, 120, 200):
        points = clip.keypoints[frame]
        stretched = (points - middle) @ np.array([[1.15, -0.08], [0.1, 0.9]]) + middle
        clip.keypoints[frame] = np.where(points != 0, stretched, 0.0).astype(np.float32)
    found, _ = clip.found(clip.answer(10))
    assert found >= 0.92


def test_where_no_one_camera_explains_the_pitch_people_are_followed_in_the_picture_at_short_steps() -> None:
    clip = Clip()
    rng = np.random.default_rng(7)
    for frame in range(FRAMES):
        matrix = camera(frame, place=PLACE + rng.normal(0, (25, 15, 6)))
        points = project(matrix, REAL_KEYPOINTS_CM)
        inside = np.all((points > 0) & (points < SIZE), axis=1)
        clip.keypoints[frame] = np.where(inside[:, None], points, 0.0).astype(np.float32)
    found, _ = clip.found(clip.answer(5))
    without, _ = clip.found(clip.answer(5, pitch=False))
    assert found >= without


@pytest.mark.parametrize(("called_keeper", "role"), [(False, PLAYER), (True, GOALKEEPER)])
def test_the_last_man_before_a_goal_keeps_it_if_the_model_half_says_so(called_keeper: bool, role: int) -> None:
    tracker = Tracker(fps=FPS, width=SIZE[0], frame_stride=2, track_buffer=30, confidence=0.35)
    pitch = KeypointTracker()
    feet = np.array([(300.0, 3300.0), (1200.0, 3000.0), (4000.0, 3000.0)])
    view = np.diag([0.5, 0.5, 1.0]) @ camera(0)
    view[:2] += np.outer((SIZE[0] / 4, SIZE[1] / 4), view[2])
    points = project(view, REAL_KEYPOINTS_CM)
    inside = np.all((points > 0) & (points < SIZE), axis=1, keepdims=True)
    x, y = project(view, feet).T
    box = np.stack([x - 5, y - 30, x + 5, y], axis=1).astype(np.float32)
    for index, frame in enumerate(range(0, 41, 2)):
        pitch.add(frame, np.where(inside, points, 0.0).astype(np.float32))
        said = np.array([GOALKEEPER if called_keeper and index % 5 < 2 else PLAYER, PLAYER, PLAYER])
        tracker.update(frame, Detections(box, np.full(3, 0.8, np.float32), said))
    rows = tracker.finish(pitch.finish(SIZE)).rows(0, 41)
    named = zip(rows.ids.tolist(), rows.classes.tolist(), strict=True)
    assert dict(named) == {1: role, 2: PLAYER, 3: PLAYER}
