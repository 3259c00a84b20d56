"""How good an answer is: measured against known truth, or, on footage without truth, by how plausible it is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from touchline.answer import FrameAnswer, parse_answer
from touchline.contract import BALL, GOALKEEPER, KEYPOINT_COUNT, PLAYER
from touchline.homography import pitch_homography, project
from touchline.overlap import iou
from touchline.pitch import LENGTH_CM, WIDTH_CM
from touchline.score import MAX_STEP_PX, MIN_KEYPOINT_DISTANCE_PX, MIN_KEYPOINTS, fit_pitch

MATCH_IOU: Final = 0.5
BALL_REACH_PX: Final = 10.0
KEYPOINT_REACH: Final = 0.02
"""Share of the picture's width within which a keypoint counts as found."""

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Truth(Protocol):
    """What is true in one frame, in pixels of the source video."""

    @property
    def frame_number(self) -> int: ...
    @property
    def boxes(self) -> npt.NDArray[np.floating]:
        """float [n, 4]: x1, y1, x2, y2."""

    @property
    def classes(self) -> npt.NDArray[np.integer]:
        """int [n]: index into CLASS_NAMES."""

    @property
    def ids(self) -> npt.NDArray[np.integer]:
        """int [n]: the same number for the same object in every frame."""

    @property
    def keypoints(self) -> npt.NDArray[np.floating]:
        """float [32, 3]: x, y and > 0 for visible."""


@dataclass(frozen=True, slots=True)
class AnswerQuality:
    """An answer against the truth. Shares are 0 to 1; NaN where there was nothing to measure."""

    frames: int
    frames_answered: float
    people_found: float
    """Share of true persons with a box of IoU >= 0.5, one to one."""
    people_precision: float
    """Share of answered persons that are one."""
    class_accuracy: float
    """Share of found persons with the right class."""
    identity_switches: int
    """How often a person was found under another track id than the last time (CLEAR MOT, Bernardin 2008)."""
    balls_found: float
    """Share of true balls whose frame's first answered ball has its centre within the ball's size or 10 px."""
    ball_precision: float
    ball_iou: float
    """Mean IoU of the balls found."""
    keypoints_found: float
    """Share of visible keypoints answered within 2 % of the picture's width."""
    keypoints_false: float
    """Share of answered keypoints that are not visible or farther off than that."""
    keypoint_error_median_px: float
    keypoint_error_p95_px: float
    """Over every answered keypoint that is visible, however far off."""
    keypoint_jitter_px: float
    """Mean length of the second difference over three frames in a row of a keypoint's error: shaking, not offset."""

    def table(self) -> list[tuple[str, str]]:
        """Rows of a measure's name and its value."""
        return [
            ("frames answered", f"{_percent(self.frames_answered)} of {self.frames}"),
            ("people found (IoU 0.5)", _percent(self.people_found)),
            ("people precision", _percent(self.people_precision)),
            ("class right", _percent(self.class_accuracy)),
            ("identity switches", str(self.identity_switches)),
            ("balls found", _percent(self.balls_found)),
            ("ball precision", _percent(self.ball_precision)),
            ("ball IoU", _number(self.ball_iou)),
            ("keypoints found (2 % of width)", _percent(self.keypoints_found)),
            ("keypoints false", _percent(self.keypoints_false)),
            ("keypoint error, median", _pixels(self.keypoint_error_median_px)),
            ("keypoint error, 95th percentile", _pixels(self.keypoint_error_p95_px)),
            ("keypoint jitter", _pixels(self.keypoint_jitter_px)),
        ]


@dataclass(frozen=True, slots=True)
class AnswerPlausibility:
    """What a validator can tell of an answer without truth or pictures. Shares are 0 to 1, NaN where nothing counts."""

    frames: int
    frames_with_keypoints: float
    """Share of frames with at least four keypoints inside the picture, each two at least 25 px apart."""
    pitch_found: float
    """Share of frames whose keypoints define a homography that a camera could have: see pitch_homography."""
    inlier_ratio: float
    """Mean share of a frame's keypoints that agree with its homography, by the validator's fit: see score.fit_pitch."""
    reprojection_error_px: float
    """Mean distance of all keypoints from their place under that homography, in px of the validator's pitch picture."""
    players_in_pitch: float
    """Share of players and goalkeepers whose feet stand on the pitch, in frames where it was found."""
    keypoint_stability: float
    """exp(-10 d), d the mean relative change of the distances between keypoints from a frame to the next number."""
    plausible_motion: float
    """Share of persons' steps from a frame to the next number that are at most 30 px long."""

    def table(self) -> list[tuple[str, str]]:
        """Rows of a measure's name and its value."""
        return [
            ("frames", str(self.frames)),
            ("frames with 4 keypoints, 25 px apart", _percent(self.frames_with_keypoints)),
            ("pitch found", _percent(self.pitch_found)),
            ("keypoint inliers", _percent(self.inlier_ratio)),
            ("reprojection error", _pixels(self.reprojection_error_px)),
            ("players in the pitch", _percent(self.players_in_pitch)),
            ("keypoint stability", _number(self.keypoint_stability)),
            ("motion of 30 px a frame at most", _percent(self.plausible_motion)),
        ]


def measure(response: Mapping[str, Any], truths: Iterable[Truth], width: int) -> AnswerQuality:
    """Compare an answer with the truth of every frame of its video, whose pictures are width pixels wide.

    Frames that the answer leaves out count as empty. Raises AnswerError for a malformed response, ValueError when
    there is no truth or the answer has a frame that the truth lacks.
    """
    answers = parse_answer(response)
    ordered = sorted(truths, key=lambda truth: truth.frame_number)
    numbers = np.array([truth.frame_number for truth in ordered])
    if not ordered or not set(answers) <= set(numbers.tolist()):
        raise ValueError(f"the answer's {len(answers)} frames are not among the truth's {len(ordered)}")
    pairs = [(truth, answers.get(truth.frame_number) or _nothing(truth.frame_number)) for truth in ordered]
    return AnswerQuality(
        len(ordered), len(answers) / len(ordered), *_people(pairs), *_balls(pairs), *_keypoints(pairs, numbers, width)
    )


def plausibility(response: Mapping[str, Any], width: int, height: int) -> AnswerPlausibility:
    """Judge an answer about a video of width x height pixels by itself. Raises AnswerError for a malformed response."""
    answers = list(parse_answer(response).values())
    numbers = np.array([answer.frame_number for answer in answers])
    keypoints = np.stack([answer.keypoints for answer in answers])
    seen = np.stack([answer.seen for answer in answers])
    seen &= ((keypoints >= 0) & (keypoints < (width, height))).all(axis=2)
    distances = np.where(seen[:, :, None] & seen[:, None, :], _pairwise_distances(keypoints), np.nan)
    apart = ~(np.nan_to_num(distances[:, *np.triu_indices(KEYPOINT_COUNT, 1)], nan=np.inf) < MIN_KEYPOINT_DISTANCE_PX)
    fits = [
        fit_pitch(here, (width, height), np.flatnonzero(those)) for here, those in zip(keypoints, seen, strict=True)
    ]
    homographies = [pitch_homography(np.column_stack(pair)) for pair in zip(keypoints, seen, strict=True)]
    return AnswerPlausibility(
        frames=len(answers),
        frames_with_keypoints=float(((seen.sum(axis=1) >= MIN_KEYPOINTS) & apart.all(axis=1)).mean()),
        pitch_found=float(np.mean([homography is not None for homography in homographies])),
        inlier_ratio=_mean([fit.inliers for fit in fits if fit is not None]),
        reprojection_error_px=_mean([fit.error_px for fit in fits if fit is not None]),
        players_in_pitch=_mean(
            np.concatenate(
                [np.empty(0, np.bool_)]
                + [
                    _on_pitch(answer, homography)
                    for answer, homography in zip(answers, homographies, strict=True)
                    if homography is not None
                ]
            )
        ),
        keypoint_stability=_stability(distances, numbers),
        plausible_motion=_mean(_steps_px(answers) <= MAX_STEP_PX),
    )


def _people(
    pairs: list[tuple[Truth, FrameAnswer]],
) -> tuple[float, float, float, int]:
    """Share found, precision, class accuracy and identity switches."""
    true = answered = found = right = switches = 0
    last_track: dict[int, int] = {}
    for truth, answer in pairs:
        there, here = truth.classes != BALL, answer.classes != BALL
        ids, tracks = truth.ids[there].tolist(), answer.ids[here]
        true, answered = true + len(ids), answered + len(tracks)
        overlap = iou(truth.boxes[there].T.astype(np.float64), answer.boxes[here].T.astype(np.float64))
        # CLEAR MOT keeps a pair from the frame before while it still overlaps enough, whatever overlaps better.
        kept = np.array([last_track.get(person, -1) for person in ids])[:, None] == tracks[None, :]
        rows, columns = linear_sum_assignment(np.where(overlap >= MATCH_IOU, overlap + kept, 0), maximize=True)
        for row, column in zip(rows, columns, strict=True):
            if overlap[row, column] < MATCH_IOU:
                continue
            found += 1
            right += int(truth.classes[there][row] == answer.classes[here][column])
            switches += last_track.get(ids[row], tracks[column]) != tracks[column]
            last_track[ids[row]] = int(tracks[column])
    return _share(found, true), _share(found, answered), _share(right, found), int(switches)


def _balls(pairs: list[tuple[Truth, FrameAnswer]]) -> tuple[float, float, float]:
    """Share found, precision and mean IoU of the first ball of each frame."""
    true = [truth.boxes[truth.classes == BALL][:1].astype(np.float64) for truth, _ in pairs]
    answered = [answer.boxes[answer.classes == BALL][:1].astype(np.float64) for _, answer in pairs]
    both = [(one, other) for one, other in zip(true, answered, strict=True) if len(one) and len(other)]
    empty = np.empty((0, 4))
    there, here = (np.concatenate([empty, *boxes]) for boxes in (zip(*both, strict=True) if both else ((), ())))
    offset = np.linalg.norm((there[:, :2] + there[:, 2:] - here[:, :2] - here[:, 2:]) / 2, axis=1)
    found = offset <= np.maximum((there[:, 2:] - there[:, :2]).max(axis=1, initial=0), BALL_REACH_PX)
    hits = int(found.sum())
    return (
        _share(hits, sum(map(len, true))),
        _share(hits, sum(map(len, answered))),
        _mean(np.diagonal(iou(there[found].T, here[found].T))),
    )


def _keypoints(
    pairs: list[tuple[Truth, FrameAnswer]], numbers: npt.NDArray[np.integer], width: int
) -> tuple[float, float, float, float, float]:
    """Share found, false share, median and p95 error, jitter."""
    true = np.stack([np.asarray(truth.keypoints, np.float64) for truth, _ in pairs])
    visible = true[:, :, 2] > 0
    seen = np.stack([answer.seen for _, answer in pairs])
    offset = np.stack([answer.keypoints for _, answer in pairs]) - true[:, :, :2]
    both = visible & seen
    errors = np.linalg.norm(offset, axis=2)
    hits = int((both & (errors <= KEYPOINT_REACH * width)).sum())
    median, p95 = np.percentile(errors[both], [50, 95]).tolist() if both.any() else (math.nan, math.nan)
    # The second difference is linear: that of the answer less that of the truth is that of the offset.
    second = np.linalg.norm(offset[2:] - 2 * offset[1:-1] + offset[:-2], axis=2)
    in_a_row = (numbers[2:] - numbers[:-2] == 2)[:, None] & both[2:] & both[1:-1] & both[:-2]
    return (
        _share(hits, int(visible.sum())),
        _share(int(seen.sum()) - hits, int(seen.sum())),
        median,
        p95,
        _mean(second[in_a_row]),
    )


def _on_pitch(answer: FrameAnswer, homography: Floats) -> Flags:
    """bool [n]: which players and goalkeepers stand on the pitch."""
    boxes = answer.boxes[np.isin(answer.classes, (GOALKEEPER, PLAYER))].astype(np.float64)
    ground = project(homography, np.stack([boxes[:, [0, 2]].mean(axis=1), boxes[:, 3]], axis=1))
    return np.asarray(((ground >= 0) & (ground <= (LENGTH_CM, WIDTH_CM))).all(axis=1), np.bool_)


def _pairwise_distances(keypoints: Floats) -> Floats:
    """float64 [f, 32, 32] in px between the keypoints float64 [f, 32, 2] of each frame."""
    return np.asarray(np.linalg.norm(keypoints[:, :, None] - keypoints[:, None], axis=3), np.float64)


def _stability(distances: Floats, numbers: npt.NDArray[np.integer]) -> float:
    """distances: float64 [f, 32, 32], NaN where one of the two is unseen. Frames without a common pair do not count."""
    next_one = np.diff(numbers) == 1
    before, after = (
        half[:, *np.triu_indices(KEYPOINT_COUNT, 1)] for half in (distances[:-1][next_one], distances[1:][next_one])
    )
    common = np.isfinite(before) & np.isfinite(after) & (before > 0)
    change = np.where(common, np.abs(after - before) / np.where(common, before, 1), 0)
    counted = common.any(axis=1)
    return math.exp(-10 * _mean(change[counted].sum(axis=1) / common[counted].sum(axis=1)))


def _steps_px(answers: list[FrameAnswer]) -> Floats:
    """float64 [n]: how far each person's box centre moved from a frame to the next frame number, under one id."""
    people = [answer.classes != BALL for answer in answers]
    boxes = np.concatenate([answer.boxes[mask] for answer, mask in zip(answers, people, strict=True)]).astype(
        np.float64
    )
    ids = np.concatenate([answer.ids[mask] for answer, mask in zip(answers, people, strict=True)])
    frames = np.repeat([answer.frame_number for answer in answers], [mask.sum() for mask in people])
    order = np.lexsort((frames, ids))
    steps = np.linalg.norm(np.diff((boxes[order, :2] + boxes[order, 2:]) / 2, axis=0), axis=1)
    return np.asarray(steps[(np.diff(ids[order]) == 0) & (np.diff(frames[order]) == 1)], np.float64)


def _nothing(frame_number: int) -> FrameAnswer:
    none = np.empty(0, np.intp)
    return FrameAnswer(frame_number, np.zeros((KEYPOINT_COUNT, 2)), np.empty((0, 4), np.float32), none, none)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: npt.ArrayLike) -> float:
    array = np.asarray(values, np.float64)
    return float(array.mean()) if array.size else math.nan


def _percent(share: float) -> str:
    return "\u2013" if math.isnan(share) else f"{share:.1%}"


def _number(value: float) -> str:
    return "\u2013" if math.isnan(value) else f"{value:.2f}"


def _pixels(value: float) -> str:
    return "\u2013" if math.isnan(value) else f"{value:.2f} px"
