"""What everybody is over a whole clip: the model's word in every box, the rarer word counting more, and their place."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.detections import Floats
from gateway.tracking.camera_motion import CameraMotion
from touchline.contract import CLASS_NAMES, GOALKEEPER, REFEREE

REFEREE_WORTH: Final = 7.0
"""Votes for a player that one for a referee outweighs. Most people are players, and a model that is not sure says
player: on synthetic clips referees between the players were called so in 4 to 97 % of what was said of them, players
referees in 0.7 % at most. So somebody is a referee from an eighth on."""
KEEPER_WORTH: Final = 2.0
"""The same of goalkeepers, where somebody is the last man before a goal for LAST_SHARE of the time: from a third on.
Others in front of the goal are called goalkeepers in up to 24 %."""
LAST_SHARE: Final = 0.5
REACH_CM: Final = 1100.0
"""From the middle of the goal as far as the penalty spot; who is further away may have a keeper behind him."""
OFF_CM: Final = 100.0
"""Feet are off by so much."""

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


def roles(ids: Integers, classes: Integers, scores: Floats, last: Flags) -> npt.NDArray[np.intp]:
    """The class of each id from 0 to the largest, intp [m], by its boxes: ids, classes, scores and last_men [n]."""
    worth = np.ones(len(CLASS_NAMES))
    worth[REFEREE] = REFEREE_WORTH
    count = ids.max(initial=0) + 1
    votes = np.zeros((count, len(CLASS_NAMES)))
    np.add.at(votes, (ids, classes), scores * worth[classes])
    keeping = np.bincount(ids, last, count) >= LAST_SHARE * np.maximum(np.bincount(ids, minlength=count), 1)
    votes[keeping, GOALKEEPER] *= KEEPER_WORTH
    return np.asarray(votes.argmax(axis=1), np.intp)


def last_men(
    samples: npt.NDArray[np.intp],
    feet: Points,
    classes: Integers,
    to_picture: Points,
    *,
    size: tuple[int, int],
    ground: Points,
) -> Flags:
    """Bool [n]: which people are the last man before a goal that is in the picture.

    `samples` intp [n]: in which frame each was seen, `feet` float64 [n, 2] in cm (NaN where not known), `classes` what
    the model called them; `to_picture` float64 [frames, 3, 3], `size` of the picture, `ground` float64 [32, 2]: the
    keypoints' places. Referees and who is off the pitch do not count.
    """
    length, width = ground.max(axis=0).tolist()
    on_pitch = ((feet > -OFF_CM) & (feet < np.array([length, width]) + OFF_CM)).all(axis=1) & (classes != REFEREE)
    last = np.zeros(len(samples), bool)
    for goal in np.array([(0.0, width / 2), (length, width / 2)]):
        seen = CameraMotion.in_picture(np.tile(goal, (len(to_picture), 1)), to_picture)
        in_sight = np.asarray(((seen > 0) & (seen < size)).all(axis=1))
        rows = np.flatnonzero(on_pitch & in_sight[samples])
        depth = np.abs(feet[rows, 0] - goal[0])
        least = np.full(len(to_picture), np.inf)
        np.minimum.at(least, samples[rows], depth)
        near = np.hypot(*(feet[rows] - goal).T) <= REACH_CM
        last[rows] |= near & (depth <= least[samples[rows]])
    return last
