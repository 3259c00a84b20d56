"""A whole clip: takes what was inferred in frame order and, looking both ways, gives the tracks of every frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gateway.detections import Detections, Floats
from gateway.tracking.association import OnPitch, joined_up, on_pitch, stretches, tracks_on_pitch
from gateway.tracking.ball import FAST_S, MAX_SPEED, ball_flights, not_on_a_spot
from gateway.tracking.camera_motion import NO_MOTION, CameraMotion
from gateway.tracking.filling import FILL_GAP_S, Sightings, filled_tracks
from gateway.tracking.keypoints import Keypoints
from gateway.tracking.people import People
from gateway.tracking.roles import last_men, roles
from gateway.tracking.tracks import Tracks, no_tracks, with_ball
from touchline.contract import BALL

BALL_CANDIDATES = 5
"""Boxes a frame, the best ones, that may be the ball."""
OVERLAPPING_S = 0.18
"""Inferred frames that are closer show a person in boxes that overlap."""
UNSURE_STEP_S = 0.38
"""Up to this step people are followed in the picture where no one camera explains what is seen of the pitch: at every
6th frame of 25 a second 96.6 % are found there and 90.8 % on the pitch by each frame's own homography, at every 10th
88.9 and 90.1 %, at every 15th 69.0 and 84.8 %."""
LONGEST_STEP_S = 2.0
"""Who was out of sight for longer may be anywhere on the pitch."""
LOST_S = 1.0
"""For so long at least a person is looked for on the pitch, where the camera does not matter."""
SINGLE_S = 0.5
"""A box that is seen once is believed where the inferred frames beside it are further away."""
_TRACK_BUFFER_FPS = 30.0
_FRAMES_AT_ONCE = 250

Integers = npt.NDArray[np.int64]
Points = npt.NDArray[np.float64]


class Tracker:
    """Takes the detections of inferred frames in frame order and gives the boxes of every frame."""

    def __init__(self, *, fps: float, width: int, frame_stride: int, track_buffer: int, confidence: float) -> None:
        """`width` of a frame in pixels, `track_buffer` in frames at 30 a second."""
        self._people = People(fps=fps, frame_stride=frame_stride, track_buffer=track_buffer, confidence=confidence)
        self._lost_s = max(LOST_S, track_buffer / _TRACK_BUFFER_FPS)
        self._confidence = confidence
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
        unsure = not keypoints.motion.sure and len(frames) > 1 and np.diff(frames).mean() <= UNSURE_STEP_S * self._fps
        persons = self._people_tracks(frames, NO_MOTION if unsure else keypoints.motion, keypoints.ground)
        return with_ball(persons, *self._ball(frames, keypoints))

    def _people_tracks(self, frames: Integers, motion: CameraMotion, ground: Points) -> Tracks:
        samples = np.repeat(np.arange(len(frames)), [len(persons) for persons in self._persons])
        if not len(samples):
            return no_tracks(motion, self._fps)
        xyxy = np.concatenate([persons.xyxy for persons in self._persons])
        scores = np.concatenate([persons.scores for persons in self._persons])
        classes = np.concatenate([persons.classes for persons in self._persons])
        to_picture = motion.at(frames)
        feet, variances = on_pitch(xyxy, to_picture[samples])
        chains = self._chains(frames, samples, OnPitch(feet, variances, scores >= self._confidence))
        ids = self._believed(joined_up(chains, np.concatenate(self._ids)), samples, frames, scores)
        known = Sightings(samples, ids, feet, xyxy, scores).only(ids > 0)
        last = last_men(samples, feet, classes, to_picture, size=motion.size, ground=ground)
        return filled_tracks(known, frames, roles(ids, classes, scores, last), motion, self._fps)

    def _chains(self, frames: Integers, samples: Integers, seen: OnPitch) -> Integers:
        """Which detections the pitch says are one person, int64 [n]; -1 where it says nothing.

        Where inferred frames follow each other fast, boxes overlap, and ByteTrack has joined them well already.
        """
        times_s = np.cumsum(np.minimum(np.diff(frames, prepend=frames[0]) / self._fps, LONGEST_STEP_S))
        placed = np.isfinite(seen.places).all(axis=1)
        here = np.bincount(samples[placed], minlength=len(frames)) > 0
        chains, count = np.full(len(samples), -1, np.int64), 0
        for stretch in stretches(here[:-1] & here[1:] & (np.diff(frames) > OVERLAPPING_S * self._fps)):
            chosen = np.flatnonzero(placed & (samples >= stretch.start) & (samples < stretch.stop))
            starts = np.searchsorted(samples[chosen], np.arange(stretch.start, stretch.stop + 1))
            found = tracks_on_pitch(times_s[stretch], starts, seen.only(chosen), lost_s=self._lost_s)
            chains[chosen] = np.where(found >= 0, found + count, -1)
            count += int(found.max(initial=-1)) + 1
        return chains

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

    def _ball(self, inferred: Integers, keypoints: Keypoints) -> tuple[Integers, Floats, Floats, Integers]:
        """Frame numbers, boxes and scores of the ball, and how many frames each answers."""
        numbers = np.repeat(inferred, [len(found) for found in self._ball_candidates])
        if not len(numbers):
            return numbers, np.empty((0, 4), np.float32), np.empty(0, np.float32), numbers
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
            fast=FAST_S * self._fps,
            gap=max(round(FILL_GAP_S * self._fps), int(np.diff(inferred).max(initial=0))),
            start_cost=self._confidence,
        )
        chosen = np.concatenate([np.empty(0, np.intp), *flights])
        lengths = np.concatenate([np.empty(0, np.int64), *(np.append(np.diff(numbers[each]), 1) for each in flights)])
        return numbers[chosen], xyxy[chosen], scores[chosen], lengths
