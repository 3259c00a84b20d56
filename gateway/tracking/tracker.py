"""A whole clip: takes what was inferred in frame order and, looking both ways, gives the tracks of every frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gateway.detections import Detections, Floats
from gateway.tracking.association import OnPitch, tracks_on_pitch
from gateway.tracking.ball import MAX_SPEED, ball_flights, not_on_a_spot
from gateway.tracking.camera_motion import CameraMotion, slopes_along
from gateway.tracking.keypoints import Keypoints
from gateway.tracking.people import People
from gateway.tracking.tracks import NO_TRACKS, Tracks
from touchline.contract import BALL, CLASS_NAMES
from touchline.pitch import LENGTH_CM, WIDTH_CM

BALL_ID = 0
"""The ball is one object; persons are numbered from 1."""
BALL_CANDIDATES = 5
"""Boxes a frame, the best ones, that may be the ball."""
FILL_GAP_S = 0.5
"""A track that comes back within this time is filled in between."""
FILL_ON_PITCH_S = 1.0
_TRACK_BUFFER_FPS = 30.0
SHAPE_S = 0.6
SHORT_S = 0.18
LONGEST_STEP_S = 2.0
EDGE = 0.3
SINGLE_S = 0.5
"""What is seen once counts where the inferred frames beside it are further away."""
AROUND_CM = 1500.0
PLACE_SD_CM = 15.0
"""How far a homography is off."""
FOOT_SD = 0.08
"""How far the foot of a box is off, in heights of the box."""
RUN_CM_PER_S = 1000.0
_FRAMES_AT_ONCE = 250

Integers = npt.NDArray[np.int64]
Points = npt.NDArray[np.float64]


class Tracker:
    """Takes the detections of inferred frames in frame order and gives the boxes of every frame."""

    def __init__(self, *, fps: float, width: int, frame_stride: int, track_buffer: int, confidence: float) -> None:
        """`width` of a frame in pixels, `track_buffer` in frames at 30 a second."""
        self._people = People(fps=fps, frame_stride=frame_stride, track_buffer=track_buffer, confidence=confidence)
        self._lost_s = track_buffer / _TRACK_BUFFER_FPS
        self._confidence = confidence
        self._fill_gap = round(FILL_GAP_S * fps)
        self._frames: list[int] = []
        self._persons: list[Detections] = []
        self._ids: list[npt.NDArray[np.int64]] = []
        self._ball_candidates: list[Detections] = []
        self._fps, self._width = fps, width

    def update(self, frame_number: int, detections: Detections) -> None:
        """Take the detections of the next inferred frame; the distance to the last one may be any."""
        is_ball = detections.classes == BALL
        self._ball_candidates.append(detections.only(np.flatnonzero(is_ball)[:BALL_CANDIDATES]))
        named = self._people.update(frame_number, detections.only(~is_ball))
        if len(named.earlier):
            self._ids[-1][named.earlier] = named.earlier_ids
        self._frames.append(frame_number)
        self._persons.append(named.persons)
        self._ids.append(named.ids)

    def finish(self, keypoints: Keypoints) -> Tracks:
        """The tracks so far. The keypoints say where the pitch is, and where no ball is to be believed."""
        frames = np.array(self._frames, np.int64)
        ball, persons = self._ball(frames, keypoints), self._people_tracks(frames, keypoints.motion)
        return Tracks(
            *(
                np.concatenate([getattr(ball, name), getattr(persons, name)])
                for name in ("frame_numbers", "ids", "classes", "xyxy", "lengths", "feet", "speeds", "shapes")
            ),
            motion=keypoints.motion,
            fps=self._fps,
        )

    def _people_tracks(self, frames: Integers, motion: CameraMotion) -> Tracks:
        counts = np.array([len(persons) for persons in self._persons], int)
        if not counts.sum():
            return NO_TRACKS
        samples = np.repeat(np.arange(len(frames)), counts)
        xyxy = np.concatenate([persons.xyxy for persons in self._persons])
        scores = np.concatenate([persons.scores for persons in self._persons])
        classes = np.concatenate([persons.classes for persons in self._persons])
        feet, variances = on_pitch(xyxy, motion.at(frames)[samples])
        places = np.isfinite(feet).all(axis=1)
        seen_strong = scores >= self._confidence
        chains = np.full(len(samples), -1, np.int64)
        # Who was out of sight for longer may be anywhere.
        times_s = np.cumsum(np.minimum(np.diff(frames, prepend=frames[0]) / self._fps, LONGEST_STEP_S))
        # Where inferred frames follow each other fast, boxes overlap and ByteTrack has joined them well already.
        here = np.bincount(samples[places], minlength=len(frames)) > 0
        for run in stretches(here[:-1] & here[1:] & (np.diff(frames) > SHORT_S * self._fps)):
            chosen = np.flatnonzero(places & (samples >= run.start) & (samples < run.stop))
            starts = np.searchsorted(samples[chosen], np.arange(run.start, run.stop + 1))
            seen = OnPitch(
                times_s[run], starts, feet[chosen].T / 100, variances[chosen].T / 1e4, seen_strong[chosen]
            )
            found = tracks_on_pitch(seen, lost_s=max(self._lost_s, 1.0))
            chains[chosen] = np.where(found >= 0, found + 1 + chains.max(initial=0), -1)
        ids = joined_up(chains, np.concatenate(self._ids))
        ids = self._believed(ids, samples, frames, scores)
        votes = np.zeros((ids.max(initial=0) + 1, len(CLASS_NAMES)), np.float32)
        np.add.at(votes, (ids, classes), scores)
        order = np.lexsort((samples, ids))
        order = order[ids[order] > 0]
        samples, ids, feet, xyxy = samples[order], ids[order], feet[order], xyxy[order]
        beyond = self._beyond(samples, ids, feet, xyxy, frames, motion)
        samples, ids, feet, xyxy = (
            np.concatenate(pair) for pair in zip((samples, ids, feet, xyxy), beyond, strict=True)
        )
        order = np.lexsort((samples, ids))
        samples, ids, feet, xyxy = samples[order], ids[order], feet[order], xyxy[order]
        numbers = frames[samples]
        gaps = np.diff(numbers)
        filled = (np.diff(ids) == 0) & ((gaps <= self._fill_gap) | (np.diff(samples) <= 2) & (gaps <= FILL_ON_PITCH_S * self._fps) | (np.diff(samples) <= 1))
        lengths = np.append(np.where(filled, gaps, 1), 1)[: len(ids)].astype(np.int32)
        speeds = slopes_along(numbers.astype(np.float64), feet, np.append(filled, False)[: len(ids)])
        speeds *= np.minimum(1, RUN_CM_PER_S / self._fps / np.maximum(np.hypot(*speeds.T), 1e-9))[:, None]
        return Tracks(
            numbers.astype(np.int32),
            ids.astype(np.int32),
            votes.argmax(axis=1)[ids].astype(np.int8),
            xyxy,
            lengths,
            feet.astype(np.float32),
            speeds.astype(np.float32),
            usual_shapes(numbers, ids, xyxy, SHAPE_S * self._fps).astype(np.float32),
            motion,
            self._fps,
        )

    def _beyond(
        self, samples: Integers, ids: Integers, feet: Points, xyxy: Floats, frames: Integers, motion: CameraMotion
    ) -> tuple[Integers, Integers, Points, Floats]:
        """Where tracks lie in the inferred frame before their first and after their last, if that is out of sight.

        The picture's edge then says when they came and went. Rows are in the order of tracks and frames.
        """
        found = []
        joint = np.concatenate([[False], np.diff(ids) == 0, [False]])
        for step, first in ((1, ~joint[1:]), (-1, ~joint[:-1])):
            rows = np.flatnonzero(first & (samples + step >= 0) & (samples + step < len(frames)))
            if not len(rows):
                continue
            inner = np.where(joint[1:][rows] if step < 0 else joint[:-1][rows], rows - step, rows)
            span = np.maximum(np.abs(frames[samples[rows]] - frames[samples[inner]]), 1)
            ahead = np.abs(frames[samples[rows] + step] - frames[samples[rows]])
            speed = (feet[rows] - feet[inner]) / span[:, None]
            speed *= np.minimum(1, RUN_CM_PER_S / self._fps / np.maximum(np.hypot(*speed.T), 1e-9))[:, None]
            there = feet[rows] + speed * ahead[:, None]
            views = motion.at(frames[samples[rows] + step])
            seen = np.einsum("nij,nj->ni", views[:, :, :2], there) + views[:, :, 2]
            with np.errstate(divide="ignore", invalid="ignore"):
                place = seen[:, :2] / seen[:, 2:]
            size = xyxy[rows, 2:] - xyxy[rows, :2]
            width, height = motion.size
            gone = np.isfinite(place).all(axis=1) & (seen[:, 2] > 0)
            gone &= (
                (place[:, 0] < size[:, 0] * EDGE) | (place[:, 0] > width - size[:, 0] * EDGE)
                | (place[:, 1] < size[:, 1] * EDGE) | (place[:, 1] > height + size[:, 1] * (1 - EDGE))
            )
            box = np.stack(
                [place[:, 0] - size[:, 0] / 2, place[:, 1] - size[:, 1], place[:, 0] + size[:, 0] / 2, place[:, 1]], 1
            )
            found.append((samples[rows][gone] + step, ids[rows][gone], there[gone], box[gone].astype(np.float32)))
        if not found:
            return samples[:0], ids[:0], feet[:0], xyxy[:0]
        return tuple(np.concatenate(each) for each in zip(*found, strict=True))

    def _believed(self, ids: Integers, samples: Integers, frames: Integers, scores: Floats) -> Integers:
        """The tracks that are shown, numbered from 1 in order of appearance; 0 for all others."""
        counts = np.bincount(ids)
        single = counts[ids] == 1
        edge = np.concatenate([[-np.inf], frames, [np.inf]])
        apart = np.minimum(edge[samples + 1] - edge[samples], edge[samples + 2] - edge[samples + 1]) / self._fps
        shown = np.where(single, (scores >= self._confidence) & (apart > SINGLE_S), True)
        _, first, inverse = np.unique(ids[shown], return_index=True, return_inverse=True)
        named = np.zeros(len(ids), np.int64)
        named[shown] = np.argsort(np.argsort(first))[inverse] + 1
        return named

    def _ball(self, inferred: Integers, keypoints: Keypoints) -> Tracks:
        numbers = np.repeat(inferred, [len(found) for found in self._ball_candidates])
        if not len(numbers):
            return NO_TRACKS
        xyxy = np.concatenate([found.xyxy for found in self._ball_candidates])
        scores = np.concatenate([found.scores for found in self._ball_candidates])
        blocks = (slice(first, first + _FRAMES_AT_ONCE) for first in range(0, len(numbers), _FRAMES_AT_ONCE))
        free = [not_on_a_spot(xyxy[block], keypoints.at(numbers[block]), self._width) for block in blocks]
        open_play = np.concatenate(free)
        numbers, xyxy, scores = numbers[open_play], xyxy[open_play], scores[open_play]
        flights = ball_flights(
            numbers,
            xyxy,
            scores,
            reach=MAX_SPEED * self._width / self._fps,
            gap=max(self._fill_gap, int(np.diff(inferred).max(initial=0))),
            start_cost=self._confidence,
        )
        if not flights:
            return NO_TRACKS
        chosen = np.concatenate(flights)
        lengths = np.concatenate([np.append(np.diff(numbers[flight]), 1) for flight in flights])
        count = len(chosen)
        ids, classes = np.full(count, BALL_ID, np.int32), np.full(count, BALL, np.int8)
        nowhere = np.full((count, 2), np.nan, np.float32)
        return Tracks(
            numbers[chosen].astype(np.int32),
            ids,
            classes,
            xyxy[chosen],
            lengths.astype(np.int32),
            nowhere,
            nowhere,
            nowhere[:, 0],
            keypoints.motion,
            self._fps,
        )


def on_pitch(xyxy: Floats, to_picture: Points) -> tuple[Points, Points]:
    """Where the feet of boxes float32 [n, 4] stand, and the variances of that: float64 [n, 2] in cm and cm2, else NaN.

    `to_picture` float64 [n, 3, 3]: the pitch in the picture of each box, NaN where it is not known.
    """
    known = np.isfinite(to_picture).all(axis=(1, 2))
    to_pitch = np.full_like(to_picture, np.nan)
    to_pitch[known] = np.linalg.inv(to_picture[known])
    boxes = xyxy.astype(np.float64)
    feet = np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3], np.ones(len(boxes))], axis=1)
    mapped = np.einsum("nij,nj->ni", to_pitch, feet)
    with np.errstate(divide="ignore", invalid="ignore"):
        places = mapped[:, :2] / mapped[:, 2:]
        slopes = (to_pitch[:, :2, :2] - places[:, :, None] * to_pitch[:, 2:, :2]) / mapped[:, 2, None, None]
    variances = (FOOT_SD * (boxes[:, 3] - boxes[:, 1]))[:, None] ** 2 * (slopes**2).sum(axis=2) + PLACE_SD_CM**2
    standing = ((places > -AROUND_CM) & (places < np.array([LENGTH_CM, WIDTH_CM]) + AROUND_CM)).all(axis=1)
    return np.where(standing[:, None], places, np.nan), variances


def usual_shapes(numbers: Integers, ids: Integers, xyxy: Floats, sigma: float) -> Points:
    """Logarithm of width over height of boxes, float64 [n], as a mean along each track: Gaussian, `sigma` in frames."""
    shapes = np.log((xyxy[:, 2] - xyxy[:, 0]) / np.maximum(xyxy[:, 3] - xyxy[:, 1], 1e-3)).astype(np.float64)
    total, weight = shapes.copy(), np.ones(len(shapes))
    # About four neighbours within sigma are enough, where every frame was inferred too.
    apart = np.diff(numbers)[np.diff(ids) == 0]
    step = max(1, int(sigma / 4 / np.median(apart))) if len(apart) else 1
    for back in range(step, 12 * step, step):
        same = np.flatnonzero((ids[back:] == ids[:-back]) & (numbers[back:] - numbers[:-back] <= 2.5 * sigma))
        if not len(same):
            break
        near = np.exp(-0.5 * ((numbers[same + back] - numbers[same]) / sigma) ** 2)
        total[same] += near * shapes[same + back]
        total[same + back] += near * shapes[same]
        weight[same] += near
        weight[same + back] += near
    return np.asarray(total / weight)


def stretches(steps: npt.NDArray[np.bool_]) -> list[slice]:
    """The frames that bool [n - 1], from each of n frames to the next, joins."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], steps, [False]])))
    return [slice(first, stop + 1) for first, stop in edges.reshape(-1, 2).tolist()]


def joined_up(chains: Integers, online: Integers) -> Integers:
    """Tracks int64 [n], from 0 on, in order of appearance: of `chains`, and of the `online` ids where those end.

    Both int64 [n], by detection in frame order. A chain (-1: none) is right about its own detections; what it does not
    say, an online id (0: none) does: it carries on where a chain ends, or where there is none.
    """
    ends = {chain: index for index, chain in enumerate(chains.tolist()) if chain >= 0}
    begun: dict[int, int] = {}
    last: dict[int, tuple[int, int]] = {}
    tracks = []
    for index, (chain, name) in enumerate(zip(chains.tolist(), online.tolist(), strict=True)):
        track = begun.get(chain)
        if track is None:
            before, at = last.get(name, (-1, -1)) if name else (-1, -1)
            free = before >= 0 and (chains[at] < 0 or (ends[int(chains[at])] == at and chain < 0))
            track = before if free else index
        if chain >= 0:
            begun[chain] = track
        if name:
            last[name] = track, index
        tracks.append(track)
    return np.array(tracks, np.int64)
