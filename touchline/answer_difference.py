"""Two answers about one video beside each other: what the new one lost and gained, and whether it is worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from touchline.answer import FrameAnswer, parse_answer
from touchline.answer_quality import measure
from touchline.contract import BALL
from touchline.pitch_lines import Picture, grass_mask

POINTS: Final = 1.0
"""Of 100: quality that differs by less is the same."""
FEWER: Final = 0.05
"""Share of people or keypoints that a worse answer lost and has nothing new for."""
FEWER_BALLS: Final = 0.20
"""The same of balls, which come and go with any change: of one clip 15 % were new with less sure keypoints."""
OTHER_CLASSES: Final = 0.05
"""Share of people from which on another class is worth a look: goalkeepers and referees are a fifth of all."""
WRONG_CLASSES: Final = 0.5
ON_GRASS: Final = 0.03
"""Share of people by which more boxes hold nothing but grass."""
OTHER: Final = 0.10
"""Share of people from which on two answers are others, better or worse."""
_BARE: Final = 0.95
"""A box of so much grass in its middle holds nobody. Kits are green seldom, and then in both answers."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A new answer against a kept one. Shares are 0 to 1, NaN where there was nothing to compare."""

    people_lost: float
    """Share of the kept answer's people that no box of the new one overlaps by half."""
    people_new: float
    """Share of the new answer's people that no box of the kept one overlaps by half."""
    class_changed: float
    balls_lost: float
    balls_new: float
    keypoints_lost: float
    """Share of the kept answer's keypoints that are gone, or 2 % of the picture's width away."""
    keypoints_new: float
    on_grass_before: float
    """Share of the kept answer's people, in the pictures that were looked at, on bare grass."""
    on_grass: float


@dataclass(frozen=True, slots=True)
class _AsTruth:
    frame_number: int
    boxes: npt.NDArray[np.floating]
    classes: npt.NDArray[np.integer]
    ids: npt.NDArray[np.integer]
    keypoints: npt.NDArray[np.floating]


def difference(
    kept: Mapping[str, Any], new: Mapping[str, Any], width: int, grasses: Mapping[int, npt.NDArray[np.uint8]]
) -> Difference:
    """Compare two responses about one video whose pictures are `width` pixels wide.

    `grasses`: masks of some pictures by frame number (grass_of). Raises AnswerError or ValueError
    when one is malformed or they answer other frames.
    """
    before, after = parse_answer(kept), parse_answer(new)
    truths = [
        _AsTruth(
            number, frame.boxes, frame.classes, frame.ids, np.column_stack([frame.keypoints, frame.seen.astype(float)])
        )
        for number, frame in before.items()
    ]
    found = measure(new, truths, width)
    return Difference(
        1 - found.people_found,
        1 - found.people_precision,
        1 - found.class_accuracy,
        1 - found.balls_found,
        1 - found.ball_precision,
        1 - found.keypoints_found,
        found.keypoints_false,
        _on_grass(before, grasses),
        _on_grass(after, grasses),
    )


def mean_difference(each: Sequence[Difference]) -> Difference:
    """Over several videos, each counting the same."""
    columns = zip(*((getattr(one, name) for name in Difference.__slots__) for one in each), strict=True)
    return Difference(*(_mean(column) for column in columns))


def verdict(change_points: float, found: Difference) -> tuple[str, str]:
    """One word for a new answer against the kept one, worse, other, same or better, and why.

    `change_points`: of the quality, of 100, that a validator's public rules give. They judge boxes by a model that is
    not here, so people are judged by what was lost without a gain, by their classes and by boxes that hold nothing but
    grass.
    """
    reasons = []
    if change_points < -POINTS:
        reasons.append(f"quality falls by {-change_points:.1f} points")
    for what, lost, new, fewer in (
        ("people", found.people_lost, found.people_new, FEWER),
        ("balls", found.balls_lost, found.balls_new, FEWER_BALLS),
        ("keypoints", found.keypoints_lost, found.keypoints_new, FEWER),
    ):
        if _known(lost) - _known(new) > fewer:
            reasons.append(f"{lost:.0%} of the {what} are lost, {_known(new):.0%} are new")
    if _known(found.on_grass) - _known(found.on_grass_before) > ON_GRASS:
        reasons.append(
            f"{found.on_grass:.0%} of the boxes hold nothing but grass, {_known(found.on_grass_before):.0%} did"
        )
    other_class = f"{_known(found.class_changed):.0%} of the people have another class"
    if _known(found.class_changed) > WRONG_CLASSES:
        reasons.append(other_class)
    if reasons:
        return "worse", "; ".join(reasons)
    if _known(found.people_lost) > OTHER:
        return "other", (
            f"{found.people_lost:.0%} of the people are lost and {_known(found.people_new):.0%} are new; "
            "look at pictures of both: touchline render"
        )
    if _known(found.class_changed) > OTHER_CLASSES:
        return "other", f"{other_class}; look at pictures of both: touchline render"
    if change_points > POINTS:
        return "better", f"quality rises by {change_points:.1f} points"
    return "same", f"quality within {POINTS:g} point, people, balls and keypoints as they were"


def grass_of(picture: Picture) -> npt.NDArray[np.uint8]:
    """A mask uint8 [h / 2, w / 2], 1 where a picture shows grass."""
    small = np.asarray(cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    return (grass_mask(small) > 0).astype(np.uint8)


def _on_grass(answers: Mapping[int, FrameAnswer], grasses: Mapping[int, npt.NDArray[np.uint8]]) -> float:
    """Share of people whose box, the middle half of its width and height, is bare."""
    bare = []
    for number, mask in grasses.items():
        if number in answers:
            frame = answers[number]
            for x1, y1, x2, y2 in frame.boxes[frame.classes != BALL].astype(float) / 2:
                wide, high = (x2 - x1) / 4, (y2 - y1) / 4
                middle = mask[max(0, int(y1 + high)) : int(y2 - high) + 1, max(0, int(x1 + wide)) : int(x2 - wide) + 1]
                bare.append(middle.size > 0 and float(middle.mean()) > _BARE)
    return float(np.mean(bare)) if bare else math.nan


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _known(share: float) -> float:
    return 0.0 if math.isnan(share) else share
