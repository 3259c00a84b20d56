"""What a validator's public rules would give an answer, line by line.

Source of every formula: the subnet's public validator, newest state of 2025-08: validator/evaluation/
keypoint_scoring.py, bbox_clip.py, evaluation.py and calculate_score.py; the function of each is named where it is used.
Its quirks are kept, for they are what pays: some are marked below.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from touchline.answer import FrameAnswer
from touchline.contract import BALL, CLASS_NAMES, KEYPOINT_COUNT, PLAYER
from touchline.pitch import KEYPOINTS_CM, LENGTH_CM, WIDTH_CM
from touchline.pitch_lines import PITCH, Sight

QUALITY_WEIGHT: Final = 0.65
SPEED_WEIGHT: Final = 0.35
SLOWEST_S: Final = 15.0
SPEED_DECAY: Final = 5.0
"""A validator's final score: 0.65 quality + 0.35 exp(-5 t), t = (time - fastest) / (15 s - fastest), 0 from 15 s on."""
KEYPOINTS_OF_QUALITY: Final = 0.5
FIT_WEIGHT: Final = 0.25
LINES_WEIGHT: Final = 0.40
INSIDE_WEIGHT: Final = 0.20
STABILITY_WEIGHT: Final = 0.05
MOTION_WEIGHT: Final = 0.10

MIN_KEYPOINTS: Final = 4
MIN_KEYPOINT_DISTANCE_PX: Final = 25.0
MIN_FRAMES: Final = 75
"""With fewer pictures of a pitch a challenge is not scored at all."""
MAX_STEP_PX: Final = 30.0
WALK_PX: Final = (2.0, 10.0)
"""A player's step of more than the first and up to the second earns half."""
CUT_STEP_PX: Final = 20.0
ENOUGH_FITTED: Final = 0.4
ENOUGH_BOXED: Final = 0.7
LEAST_BOXES: Final = 0.2
"""A box score up to this earns nothing for speed."""
TOP_PX: Final = 150.0
"""Boxes that reach above are not looked at, whatever the picture's height: a score board may be there."""
SMALLEST_PERSON_PX: Final = (15.0, 40.0)

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Fit:
    """A frame's keypoints on the validator's picture of the pitch."""

    homography: Floats
    """float64 [3, 3]: source pixels to pixels of that picture."""
    inliers: float
    """Share of the keypoints that agree, 0 to 1."""
    error_px: float
    """Mean distance of all of them from their places, in px of that picture."""

    @property
    def score(self) -> float:
        """0 to 1: calculate_keypoint_score."""
        return (self.inliers + max(0.0, 1 - self.error_px / 100)) / 2


@dataclass(frozen=True, slots=True)
class FrameScore:
    """One frame that a validator looks at. Shares are 0 to 1, NaN where nothing counts."""

    number: int
    fit: float
    """NaN for a frame without homography, which counts for nothing but the share of such frames."""
    on_lines: float
    """NaN too where its picture was not looked at."""
    inside: float
    scale: float
    """How far apart keypoints lie over how far apart objects do, at most 1.5."""
    steady: float
    """1 where no keypoint moved since the frame before, 0 from about 4 % of the picture's diagonal on."""
    boxes: float
    """Its points if every box is judged as it was answered; NaN without objects."""
    cost: float = 0.0
    """Points of 100 that the keypoints lose in this frame."""


@dataclass(frozen=True, slots=True)
class Part:
    """A line of the keypoint score: a share, its weight and the points of 100 that it costs."""

    name: str
    share: float
    weight: float
    """0 for a factor of the whole."""
    lost: float


@dataclass(frozen=True, slots=True)
class Score:
    """What an answer would be given. Shares are 0 to 1."""

    frames: tuple[FrameScore, ...]
    """Those that a validator would look at, by number."""
    video_frames: int
    pitch_frames: int
    """Pictures that pass for a pitch; below MIN_FRAMES `frames` has all of the video."""
    parts: tuple[Part, ...]
    keypoints: float
    boxes_at_best: float
    """If every box is judged as it was answered: what is lost here is lost without any judge."""
    seconds: float
    fastest_s: float
    speed: float
    keypoint_costs: tuple[tuple[int, float], ...]
    """Keypoints (1 to 32) far from any line and the points of 100 that leaving each out would earn, most first."""

    @property
    def quality(self) -> float:
        return KEYPOINTS_OF_QUALITY * self.keypoints + (1 - KEYPOINTS_OF_QUALITY) * self.boxes_at_best

    @property
    def total(self) -> float:
        """calculate_score, its boxes at best."""
        return final_score(self.quality, self.speed)


def final_score(quality: float, speed: float) -> float:
    """calculate_score: 0 to 1."""
    return QUALITY_WEIGHT * quality + SPEED_WEIGHT * speed


def speed_score(elapsed_s: float, fastest_s: float) -> float:
    """calculate_speed_score: exp(-5 t) with t = (elapsed - fastest) / (15 s - fastest).

    0 from 15 s on, unless the fastest is as slow, so that slow machines can be compared too.
    """
    if elapsed_s <= fastest_s:
        return 1.0
    return 0.0 if elapsed_s >= SLOWEST_S else speed_without_end(elapsed_s, fastest_s)


def speed_without_end(elapsed_s: float, fastest_s: float) -> float:
    """The same for a fastest miner of less than 15 s, without the step to 0 there: for plans, which shall not jump."""
    return math.exp(-SPEED_DECAY * max(0.0, elapsed_s - fastest_s) / (SLOWEST_S - fastest_s))


def score_answer(
    answers: Mapping[int, FrameAnswer],
    sights: Mapping[int, Sight],
    size: tuple[int, int],
    video_frames: int,
    *,
    seconds: float,
    fastest_s: float,
) -> Score:
    """Score the answers (by frame number) about a video of `size` (width, height) pixels and `video_frames` frames.

    `sights`: what was seen in the pictures of all frames, or of some: a frame without one passes for a pitch if the
    nearest frame with one does. Raises ValueError when there is none.
    """
    if not sights:
        raise ValueError("no picture of the video was looked at")
    pitch = _pitch_frames(sights, video_frames)
    numbers = pitch if len(pitch) >= MIN_FRAMES else list(range(video_frames))
    looked_at = {number: answers[number] for number in numbers if number in answers}
    fits = {number: fit for number, answer in looked_at.items() if (fit := fit_pitch(answer.keypoints, size))}
    distances = {
        number: line_distances(looked_at[number].keypoints, sights[number].segments, size)
        for number in fits.keys() & sights.keys()
    }
    frames = []
    for number, before in zip(numbers, [None, *numbers[:-1]], strict=True):
        answer, fit = answers.get(number), fits.get(number)
        steady = 1.0 if before != number - 1 else _steadiness(answers.get(before), answer, size)
        frames.append(
            FrameScore(
                number,
                *(math.nan if fit is None else fit.score, math.nan),
                *(_frame_geometry(answer, fit, size) if answer and fit else (math.nan, math.nan)),
                *(steady, math.nan if answer is None else boxes_at_best(answer, size)),
            )
        )
    lines = {number: _closeness(found) for number, found in distances.items()}
    frames = [replace(frame, on_lines=lines.get(frame.number, math.nan)) for frame in frames]
    scenes = _scenes(looked_at)
    parts = _parts(
        frames, _mean_of(fits, scenes, _stability(looked_at, fits, scenes)), _motion(looked_at, fits, scenes)
    )
    keypoints = _keypoint_score(parts)
    boxed = [frame.boxes for frame in frames if not math.isnan(frame.boxes)]
    best = min(1.0, sum(boxed) / len(boxed)) if boxed else 0.0
    boxes = max(0.0, round(best * min(1.0, len(boxed) / len(frames) / ENOUGH_BOXED), 2))
    too_slow = boxes <= LEAST_BOXES or seconds >= SLOWEST_S
    return Score(
        tuple(_with_costs(frames, parts)),
        video_frames,
        len(pitch),
        parts,
        keypoints,
        boxes,
        seconds,
        fastest_s,
        0.0 if too_slow else speed_score(seconds, fastest_s),
        _keypoint_costs(distances, parts),
    )


def countable(keypoints: Floats, size: tuple[int, int] | None = None) -> Indices:
    """Which of float64 [32, 2] count, intp [n]: get_valid_keypoints.

    Those not at (0, 0), inside the picture of `size` if given, and 25 px from every earlier one that counts.
    """
    seen = (keypoints != 0).any(axis=1)
    if size is not None:
        seen &= ((keypoints >= 0) & (keypoints < size)).all(axis=1)
    kept: list[int] = []
    for index in np.flatnonzero(seen).tolist():
        apart = np.linalg.norm(keypoints[kept] - keypoints[index], axis=1)
        if (apart >= MIN_KEYPOINT_DISTANCE_PX).all():
            kept.append(index)
    return np.array(kept, np.intp)


def fit_pitch(keypoints: Floats, size: tuple[int, int], counted: Indices | None = None) -> Fit | None:
    """estimate_homography_ransac of keypoints float64 [32, 2], None where no homography can be fitted.

    The pitch's picture has width / 7000 px a cm along the pitch and height / 12000 across it; a keypoint agrees within
    1 % of the width, at least 12 px. `counted`, intp [n]: which keypoints take part, else those that are `countable`.
    """
    width, height = size
    counted = countable(keypoints, size) if counted is None else counted
    if len(counted) < MIN_KEYPOINTS:
        return None
    pitch = KEYPOINTS_CM[counted] * (width / WIDTH_CM, height / LENGTH_CM)
    homography, mask = cv2.findHomography(keypoints[counted], pitch, cv2.RANSAC, max(12.0, 0.01 * width))
    if homography is None or mask is None:
        return None
    projected = cv2.perspectiveTransform(keypoints[counted][None], homography)[0]
    return Fit(homography, float(mask.mean()), float(np.linalg.norm(projected - pitch, axis=1).mean()))


def line_distances(keypoints: Floats, segments: Floats, size: tuple[int, int]) -> Floats:
    """How far each counted keypoint lies from the nearest of segments float64 [n, 4]: float64 [32], else NaN.

    In shares of the picture's width and height: mean_keypoint_to_line_distance_score. Infinite without segments.
    """
    distances = np.full(KEYPOINT_COUNT, np.nan)
    counted = countable(keypoints, size)
    points = (keypoints[counted] / size)[:, None]
    start, end = segments[:, :2] / size, segments[:, 2:] / size
    along = end - start
    place = np.clip(((points - start) * along).sum(axis=2) / np.maximum((along**2).sum(axis=1), 1e-18), 0, 1)
    offsets = np.linalg.norm(points - (start + place[..., None] * along), axis=2)
    distances[counted] = offsets.min(axis=1, initial=np.inf)
    return distances


def boxes_at_best(answer: FrameAnswer, size: tuple[int, int]) -> float:
    """evaluate_frame of bbox_clip, if the judge finds in every box what was answered; NaN without objects.

    The n-th box of a class earns 1 / 2^n, a second ball loses as much; the sum is divided by the classes and one.
    """
    if not len(answer.classes):
        return math.nan
    counted = _counted_boxes(answer)
    counts = np.bincount(answer.classes[counted], minlength=len(CLASS_NAMES))
    if not counts.any():
        return 0.0
    more_balls = max(0, int(counts[BALL]) - 1)
    counts[BALL] = min(1, counts[BALL])
    earned = sum(_halving(int(count)) for count in counts) - _halving(more_balls)
    classes = int((counts > 0).sum()) + (more_balls > 0)
    return earned / (classes + 1) * _area_factor(answer.boxes[counted].astype(np.float64), size)


def _halving(count: int) -> float:
    """1 + 1/2 + 1/4 ... of `count` terms."""
    return 2 - 2.0 ** (1 - count)


def _area_factor(boxes: Floats, size: tuple[int, int]) -> float:
    """multiplication_factor: 1, less for boxes of over 1.5 % of the picture on average or over 15 % together."""
    covered = float((boxes[:, 2:] - boxes[:, :2]).prod(axis=1).sum()) / (size[0] * size[1])
    mean = covered / len(boxes)
    if mean > 0.015:
        return math.exp(-80 * (mean - 0.015))
    return 1.0 if covered <= 0.15 else math.exp(-3 * (covered - 0.15))


def _counted_boxes(answer: FrameAnswer) -> npt.NDArray[np.bool_]:
    """bool [n]: is_bbox_large_enough (balls always are) and not is_touching_scoreboard_zone."""
    large = (answer.boxes[:, 2:] - answer.boxes[:, :2] >= SMALLEST_PERSON_PX).all(axis=1) | (answer.classes == BALL)
    return np.asarray(large & (answer.boxes[:, 1] > TOP_PX), np.bool_)


def _pitch_frames(sights: Mapping[int, Sight], video_frames: int) -> list[int]:
    known = np.array(sorted(sights))
    every = np.arange(video_frames)
    after = np.clip(np.searchsorted(known, every), 0, len(known) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(known[before] - every) <= np.abs(known[after] - every), known[before], known[after])
    return [number for number, like in enumerate(nearest.tolist()) if sights[like].pitch >= PITCH]


def _frame_geometry(answer: FrameAnswer, fit: Fit, size: tuple[int, int]) -> tuple[float, float]:
    """fraction_objects_inside and calculate_keypoint_to_player_scale_ratio.

    The first projects the middles of boxes to the picture of the pitch and asks whether they lie on the pitch in cm:
    objects beyond its far or right line count as inside.
    """
    boxes = answer.boxes[_counted_boxes(answer)].astype(np.float64)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    counted = answer.keypoints[countable(answer.keypoints, size)]
    scale = 1.0 if len(counted) < 2 or len(middles) < 2 else _mean_distance(counted) / (_mean_distance(middles) + 1e-6)
    if not len(middles):
        return 0.0, min(scale, 1.5)
    ground = cv2.perspectiveTransform(middles[None].astype(np.float32), fit.homography)[0]
    inside = ((ground >= 0) & (ground <= (LENGTH_CM, WIDTH_CM))).all(axis=1)
    return float(inside.mean()), min(scale, 1.5)


def _mean_distance(points: Floats) -> float:
    return float(_distances(points).mean())


def _distances(points: Floats) -> Floats:
    """float64 [n (n - 1) / 2]: between each two of float64 [n, 2]."""
    first, second = np.triu_indices(len(points), 1)
    return np.asarray(np.linalg.norm(points[first] - points[second], axis=1), np.float64)


def distance_change(before: Floats, here: Floats) -> float | None:
    """Mean relative change of the distances between keypoints float64 [32, 2] of two frames; None with under two."""
    common = np.intersect1d(countable(before), countable(here))
    if len(common) < 2:
        return None
    apart = _distances(before[common])
    return float((np.abs(apart - _distances(here[common])) / (apart + 1e-6)).mean())


def steadiness_of(change: float) -> float:
    """What a distance_change earns, 0 to 1: exp(-10 d) of check_keypoint_stability."""
    return math.exp(-10 * change)


def _closeness(distances: Floats) -> float:
    counted = distances[~np.isnan(distances)]
    return _falling(float(counted.mean())) if len(counted) else 0.5


def _falling(distance: float) -> float:
    """The validator's sigmoid: 0.9955 at 0, a half at 2 %, 0.005 at 4 %."""
    return 1 / (1 + math.exp(min((distance - 0.02) / 0.0037, 700.0)))


def _steadiness(before: FrameAnswer | None, answer: FrameAnswer | None, size: tuple[int, int]) -> float:
    """compute_scene_keypoint_consistency of a frame and the number before it."""
    if before is None or answer is None:
        return 0.0
    if not before.seen.any() and not answer.seen.any():
        return 1.0
    common = np.intersect1d(countable(before.keypoints, size), countable(answer.keypoints, size))
    if not len(common):
        return 0.0
    moved = np.linalg.norm(answer.keypoints[common] - before.keypoints[common], axis=1).mean()
    return _falling(float(moved) / math.hypot(*size))


def is_walk(step_px: float) -> bool:
    return WALK_PX[0] < step_px <= WALK_PX[1]


def players(answer: FrameAnswer) -> dict[int, Floats]:
    """The middles of the players' boxes by id: goalkeepers, referees and balls are not looked at."""
    mine = answer.classes == PLAYER
    boxes = answer.boxes[mine].astype(np.float64)
    return dict(zip(answer.ids[mine].tolist(), (boxes[:, :2] + boxes[:, 2:]) / 2, strict=True))


def _scenes(answers: Mapping[int, FrameAnswer]) -> dict[int, int]:
    """detect_scene_transitions: a scene ends with a frame half of whose players moved over 20 px."""
    scenes: dict[int, int] = {}
    scene, before = 0, dict[int, Floats]()
    for number, answer in answers.items():
        scenes[number] = scene
        here = players(answer)
        jumps = sum(bool(np.linalg.norm(here[who] - before[who]) > CUT_STEP_PX) for who in here.keys() & before.keys())
        people = int((answer.classes == PLAYER).sum())
        scene += bool(people and jumps / people >= 0.5)
        before = here
    return scenes


def _by_scene(scenes: Mapping[int, int]) -> list[tuple[int, list[int]]]:
    return [(scene, list(group)) for scene, group in itertools.groupby(scenes, key=scenes.__getitem__)]


def _stability(
    answers: Mapping[int, FrameAnswer], fits: Mapping[int, Fit], scenes: Mapping[int, int]
) -> dict[int, float]:
    """check_keypoint_stability by scene: exp(-10 d), d the mean relative change of distances between keypoints.

    The validator compares frames in the order of their numbers as text: 9 after 89, and 10 before 100.
    """
    stability = {}
    for scene, numbers in _by_scene(scenes):
        fitted = sorted((number for number in numbers if number in fits), key=str)
        if len(numbers) < 2 or len(fitted) < 2:
            stability[scene] = 1.0 if len(numbers) < 2 else 0.5
            continue
        neighbours = itertools.pairwise(answers[number].keypoints for number in fitted)
        changes = [change for pair in neighbours if (change := distance_change(*pair)) is not None]
        stability[scene] = steadiness_of(sum(changes) / len(changes)) if changes else 0.5
    return stability


def _motion(answers: Mapping[int, FrameAnswer], fits: Mapping[int, Fit], scenes: Mapping[int, int]) -> float:
    """Half check_player_plausibility, half score_player_positions, 0 to 1.

    The first counts steps of at most 30 px between neighbours within a scene, the second gives steps of up to 2 px and
    of over 10 px a whole point and those between them half a point.
    """
    plausible = {}
    for scene, numbers in _by_scene(scenes):
        steps = [
            float(np.linalg.norm(here[who] - before[who]))
            for (one, before), (other, here) in itertools.pairwise(
                (number, players(answers[number])) for number in numbers
            )
            if other - one <= 2
            for who in here.keys() & before.keys()
        ]
        plausible[scene] = float(np.mean(np.array(steps) <= MAX_STEP_PX)) if steps else 1.0 if len(numbers) < 2 else 0.5
    last: dict[int, Floats] = {}
    points = []
    for answer in answers.values():
        for who, place in players(answer).items():
            if who in last:
                points.append(0.5 if is_walk(float(np.linalg.norm(place - last[who]))) else 1.0)
            last[who] = place
    return (_mean_of(fits, scenes, plausible) + (float(np.mean(points)) if points else 0.0)) / 2


def _mean_of(fits: Mapping[int, Fit], scenes: Mapping[int, int], values: Mapping[int, float]) -> float:
    """The mean of what the scene of each frame with a homography has."""
    return float(np.mean([values[scenes[number]] for number in fits])) if fits else 0.0


def _parts(frames: Sequence[FrameScore], stability: float, motion: float) -> tuple[Part, ...]:
    """calculate_final_score_keypoints: the weighted sum's five lines, then its three factors."""
    columns = np.array([(frame.fit, frame.on_lines, frame.inside, frame.scale, frame.steady) for frame in frames])
    fit, lines, inside, scale, steady = (
        float(column[~np.isnan(column)].mean()) if not np.isnan(column).all() else 0.0 for column in columns.T
    )
    fitted = min(1.0, float((~np.isnan(columns[:, 0])).mean()) / ENOUGH_FITTED)
    scale = min(1.0, scale)
    weighted = {
        "homography": (fit, FIT_WEIGHT),
        "on lines": (lines, LINES_WEIGHT),
        "inside": (inside, INSIDE_WEIGHT),
        "stability": (stability, STABILITY_WEIGHT),
        "motion": (motion, MOTION_WEIGHT),
    }
    total = sum(share * weight for share, weight in weighted.values())
    factor = steady * (scale + fitted) / 2
    return (
        *(Part(name, share, weight, 100 * weight * (1 - share) * factor) for name, (share, weight) in weighted.items()),
        Part("scene stability", steady, 0.0, 100 * total * (1 - steady) * (scale + fitted) / 2),
        Part("scale", scale, 0.0, 100 * total * steady * (1 - scale) / 2),
        Part("frames with homography", fitted, 0.0, 100 * total * steady * (1 - fitted) / 2),
    )


def _keypoint_score(parts: Sequence[Part]) -> float:
    steady, scale, fitted = (part.share for part in parts[5:])
    if round(parts[1].share, 2) <= 0:
        return 0.0
    return sum(part.share * part.weight for part in parts[:5]) * steady * (scale + fitted) / 2


def _with_costs(frames: Sequence[FrameScore], parts: Sequence[Part]) -> list[FrameScore]:
    """Share what homography, lines, inside and scene stability lose among the frames."""
    steady, scale, fitted = (part.share for part in parts[5:])
    total = sum(part.share * part.weight for part in parts[:5])
    factor = 100 * (scale + fitted) / 2
    weights = FIT_WEIGHT, LINES_WEIGHT, INSIDE_WEIGHT
    counts = [sum(not math.isnan(value) for value in column) for column in zip(*map(_shares, frames), strict=True)]
    costed = []
    for frame in frames:
        lost = sum(
            weight * (1 - share) / count
            for weight, share, count in zip(weights, _shares(frame), counts, strict=True)
            if not math.isnan(share)
        )
        costed.append(replace(frame, cost=factor * (lost * steady + total * (1 - frame.steady) / len(frames))))
    return costed


def _shares(frame: FrameScore) -> tuple[float, float, float]:
    return frame.fit, frame.on_lines, frame.inside


def _keypoint_costs(distances: Mapping[int, Floats], parts: Sequence[Part]) -> tuple[tuple[int, float], ...]:
    """What `on lines` would gain without each keypoint, all else as it is."""
    steady, scale, fitted = (part.share for part in parts[5:])
    worth = 100 * LINES_WEIGHT * steady * (scale + fitted) / 2 / max(1, len(distances))
    gains = np.zeros(KEYPOINT_COUNT)
    for found in distances.values():
        now = _closeness(found)
        for index in np.flatnonzero(~np.isnan(found)):
            gains[index] += _closeness(np.delete(found, index)) - now
    order = np.argsort(-gains, kind="stable").tolist()
    return tuple((index + 1, float(worth * gains[index])) for index in order if worth * gains[index] >= 0.05)
