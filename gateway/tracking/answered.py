"""Which keypoints are answered: those on lines that are seen, as many as a validator takes for right.

A validator knows no truth: it sees straight painted lines and asks how far from them the keypoints of a frame lie on
average (touchline.score: half the points at 2 % of the picture, 94 % at 1 %). A penalty spot lies on none, nor does a
crossing whose lines cannot be told in the sun; one such keypoint among ten may cost a frame most of its points. What
stands instead is in sight by the camera, on a line, and was not seen by the pitch model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.detections import Floats

MEAN_DISTANCE: Final = 0.010
"""From lines, of the answered keypoints of a frame, in shares of the picture."""
FURTHEST: Final = 0.1
"""What lies further off counts as if it were so far."""
LEAST: Final = 6
"""Keypoints that are answered however far off they lie: four define a homography, if they lie well."""
HOPELESS: Final = 0.02
"""Where even the LEAST nearest lie so far off on average, no choice earns anything: no lines are seen at all."""
UNSEEN: Final = 0.01
"""Counts as so much further off: what the model did not see is in the dark, in a crowd or behind somebody."""
SMOOTH_S: Final = 0.8
"""Standard deviation of the weights with which looks take part in a distance: a player may stand on a line."""
_ANY: Final = 1e-9
"""Weight of a look however long ago."""

Points = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class OnLines:
    """How far keypoints lay from the lines that were seen, now and then."""

    times: Points
    """float64 [n]: frame numbers, ascending."""
    distances: Points
    """float64 [n, 32] in shares of the picture, NaN for a keypoint that was not in sight."""
    reach: float
    """SMOOTH_S in frames."""

    @classmethod
    def of(cls, lines: Mapping[int, Floats], points: Points, size: tuple[int, int], fps: float) -> OnLines:
        """`lines` by frame number, ascending, float32 [k, 4] in shares of the picture; `points` float64 [n, 32, 2].

        The points are where the keypoints lie in those frames, in pixels of a picture of this `size`, or (0, 0).
        """
        distances = [_distances(here / size, pieces) for here, pieces in zip(points, lines.values(), strict=True)]
        seen = (points != 0).any(axis=2)
        return cls(
            np.array(list(lines), np.float64),
            np.where(seen, np.array(distances).reshape(seen.shape), np.nan),
            SMOOTH_S * fps,
        )

    def at(self, every: npt.NDArray[np.integer]) -> Points:
        """In the frames `every`, int [m]: float64 [m, 32]; 0 for a keypoint that no look found in sight."""
        weights = np.exp(-0.5 * ((every[:, None] - self.times) / self.reach) ** 2) + _ANY
        known = np.isfinite(self.distances)
        total = weights @ known
        mean = (weights @ np.where(known, self.distances, 0.0)) / np.where(total > 0, total, 1.0)
        return np.asarray(mean)


def worth_answering(distances: Points, seen: Flags) -> Flags:
    """Bool [n, k]: which of the keypoints of n frames to answer, the nearest to lines first.

    `distances` float64 [n, k] in shares of the picture, NaN for what is not in sight; `seen` bool [n, k] by the model,
    which are answered where no lines are.
    """
    distances = distances + UNSEEN * ~seen
    order = np.argsort(distances, axis=1, kind="stable")  # NaN comes last
    ascending = np.take_along_axis(distances, order, axis=1)
    known = np.isfinite(ascending)
    means = np.nancumsum(ascending, axis=1) / np.maximum(np.cumsum(known, axis=1), 1)
    chosen = (means <= MEAN_DISTANCE) | (np.arange(distances.shape[1]) < LEAST)
    flags = np.empty(distances.shape, bool)
    np.put_along_axis(flags, order, chosen & known, axis=1)
    return np.where(means[:, LEAST - 1, None] > HOPELESS, seen, flags)


def _distances(places: Points, pieces: Floats) -> Points:
    """float64 [32]: from each place float64 [32, 2] to the nearest of the pieces, at most FURTHEST."""
    start, along = pieces[:, :2].astype(np.float64), (pieces[:, 2:] - pieces[:, :2]).astype(np.float64)
    offsets = places[:, None] - start
    part = np.clip((offsets * along).sum(axis=2) / np.maximum((along**2).sum(axis=1), 1e-18), 0, 1)
    return np.asarray(np.linalg.norm(offsets - part[..., None] * along, axis=2).min(axis=1, initial=FURTHEST))
