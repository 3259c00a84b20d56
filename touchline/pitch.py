"""The pitch as the subnet defines it: 32 keypoints and the painted lines, in centimetres.

x runs along the length (0 to 12000), y across it (0 to 7000). Source: the subnet's public keypoint table.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

LENGTH_CM: Final = 12000
WIDTH_CM: Final = 7000

KEYPOINTS_CM: Final[npt.NDArray[np.float64]] = np.array(
    [
        (0, 0), (0, 1450), (0, 2584), (0, 4416), (0, 5550), (0, 7000),
        (550, 2584), (550, 4416), (1100, 3500),
        (2015, 1450), (2015, 2584), (2015, 4416), (2015, 5550),
        (6000, 0), (6000, 2585), (6000, 4415), (6000, 7000),
        (9985, 1450), (9985, 2584), (9985, 4416), (9985, 5550),
        (10900, 3500), (11450, 2584), (11450, 4416),
        (12000, 0), (12000, 1450), (12000, 2584), (12000, 4416), (12000, 5550), (12000, 7000),
        (5085, 3500), (6915, 3500),
    ],
    dtype=np.float64,
)  # fmt: skip
"""float64 [32, 2]: x, y of each keypoint in cm; index 0 is keypoint 1 of the subnet's table."""

MIRRORED: Final[npt.NDArray[np.intp]] = np.array(
    [24, 25, 26, 27, 28, 29, 22, 23, 21, 17, 18, 19, 20, 13, 14, 15, 16,
     9, 10, 11, 12, 8, 6, 7, 0, 1, 2, 3, 4, 5, 31, 30]
)  # fmt: skip
"""intp [32]: which keypoint each one becomes when the picture is mirrored left to right (its own inverse)."""

CIRCLE_RADIUS_CM: Final = 915


def _by_the_laws(length: float = 10500.0, width: float = 6800.0) -> npt.NDArray[np.float64]:
    """The landmarks on a ground by the Laws of the Game, where people who label pictures put them.

    They take keypoints 11, 12, 19 and 20 for the points where the penalty arc meets the box.
    """
    middle, box, spot = width / 2, 1650.0, 1100.0
    arc = float(np.sqrt(CIRCLE_RADIUS_CM**2 - (box - spot) ** 2))
    left = [(0.0, y) for y in (0.0, middle - 2016, middle - 916, middle + 916, middle + 2016, width)]
    left += [(550.0, middle - 916), (550.0, middle + 916), (spot, middle)]
    left += [(box, y) for y in (middle - 2016, middle - arc, middle + arc, middle + 2016)]
    half = length / 2
    centre = [(half, y) for y in (0.0, middle - CIRCLE_RADIUS_CM, middle + CIRCLE_RADIUS_CM, width)]
    right = [(length - left[mirrored][0], left[mirrored][1]) for mirrored in MIRRORED[17:30]]
    circle = [(half - CIRCLE_RADIUS_CM, middle), (half + CIRCLE_RADIUS_CM, middle)]
    return np.array([*left, *centre, *right, *circle], np.float64)


REAL_KEYPOINTS_CM: Final = _by_the_laws()
"""float64 [32, 2]: the same landmarks on a real ground of 105 x 68 m, in cm.

The table above is no real pitch: its boxes are 20.15 m deep. Keypoints seen on real footage fit this ground to about a
pixel and the table only to some ten; the subnet scores against the table all the same.
"""
PENALTY_SPOTS_CM: Final = ((1100.0, 3500.0), (10900.0, 3500.0))

LINES_CM: Final[tuple[tuple[tuple[float, float], tuple[float, float]], ...]] = (
    ((0, 0), (12000, 0)), ((0, 7000), (12000, 7000)), ((0, 0), (0, 7000)), ((12000, 0), (12000, 7000)),
    ((6000, 0), (6000, 7000)),
    ((0, 1450), (2015, 1450)), ((2015, 1450), (2015, 5550)), ((2015, 5550), (0, 5550)),
    ((0, 2584), (550, 2584)), ((550, 2584), (550, 4416)), ((550, 4416), (0, 4416)),
    ((12000, 1450), (9985, 1450)), ((9985, 1450), (9985, 5550)), ((9985, 5550), (12000, 5550)),
    ((12000, 2584), (11450, 2584)), ((11450, 2584), (11450, 4416)), ((11450, 4416), (12000, 4416)),
)  # fmt: skip
"""Straight lines: pairs of end points in cm."""


def centre_circle(step_degrees: float = 3.0) -> npt.NDArray[np.float64]:
    """The centre circle as a closed polyline, float64 [n, 2] in cm.

    There are no penalty arcs: with this table's box depth of 2015 cm the circle of 915 cm round the spot at 1100 cm
    only touches the box line.
    """
    angles = np.radians(np.linspace(0, 360, round(360 / step_degrees) + 1))
    circle = CIRCLE_RADIUS_CM * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(np.array([LENGTH_CM / 2, WIDTH_CM / 2]) + circle, np.float64)
