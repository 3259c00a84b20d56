"""The painted pitch in metres: the subnet table's dimensions, or those of a real ground."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from touchline.pitch import LENGTH_CM, WIDTH_CM

Segment = tuple[tuple[float, float], tuple[float, float]]

GOAL_WIDTH: Final = 7.32
GOAL_HEIGHT: Final = 2.44
GOAL_DEPTH: Final = 2.0


@dataclass(frozen=True)
class Geometry:
    """Dimensions in metres; `arcs` says whether the penalty arcs are painted."""

    length: float = LENGTH_CM / 100
    width: float = WIDTH_CM / 100
    box_depth: float = 20.15
    box_half_width: float = 20.5
    area_depth: float = 5.5
    area_half_width: float = 9.16
    spot: float = 11.0
    radius: float = 9.15
    arcs: bool = False

    def keypoints(self) -> npt.NDArray[np.float64]:
        """float64 [32, 2]: the landmarks of the subnet's table on this pitch, in metres."""
        middle = self.width / 2
        box = (middle - self.box_half_width, middle + self.box_half_width)
        area = (middle - self.area_half_width, middle + self.area_half_width)
        # Where arcs are painted, people label the points where they meet the box instead of those before the goal area.
        arc = math.sqrt(max(0.0, self.radius**2 - (self.box_depth - self.spot) ** 2))
        inner = (middle - arc, middle + arc) if self.arcs else area
        front = (box[0], *inner, box[1])
        across = (0.0, box[0], area[0], area[1], box[1], self.width)

        def from_goal_line(x: float, ys: tuple[float, ...]) -> list[tuple[float, float]]:
            return [(x, y) for y in ys]

        left = [
            *from_goal_line(0.0, across),
            *from_goal_line(self.area_depth, area),
            (self.spot, middle),
            *from_goal_line(self.box_depth, front),
        ]
        half = self.length / 2
        halfway = [(half, 0.0), (half, middle - self.radius), (half, middle + self.radius), (half, self.width)]
        right = [
            *from_goal_line(self.length - self.box_depth, front),
            (self.length - self.spot, middle),
            *from_goal_line(self.length - self.area_depth, area),
            *from_goal_line(self.length, across),
        ]
        circle = [(half - self.radius, middle), (half + self.radius, middle)]
        return np.array(left + halfway + right + circle, np.float64)

    def segments(self) -> list[Segment]:
        """Straight lines as pairs of end points in metres."""
        length, width, middle = self.length, self.width, self.width / 2
        lines: list[Segment] = [
            ((0, 0), (length, 0)),
            ((0, width), (length, width)),
            ((0, 0), (0, width)),
            ((length, 0), (length, width)),
            ((length / 2, 0), (length / 2, width)),
        ]
        for goal_line, inward in ((0.0, 1.0), (length, -1.0)):
            for depth, half in ((self.box_depth, self.box_half_width), (self.area_depth, self.area_half_width)):
                x, near, far = goal_line + inward * depth, middle + half, middle - half
                lines += [((goal_line, far), (x, far)), ((x, far), (x, near)), ((x, near), (goal_line, near))]
        return lines

    def curves(self, step: float = math.radians(4)) -> list[npt.NDArray[np.float64]]:
        """Centre circle, and penalty arcs where painted, as polylines float64 [n, 2] in metres."""

        def arc(x: float, start: float, stop: float) -> npt.NDArray[np.float64]:
            angles = np.linspace(start, stop, max(2, round((stop - start) / step)) + 1)
            return np.stack([x + self.radius * np.cos(angles), self.width / 2 + self.radius * np.sin(angles)], axis=1)

        curves = [arc(self.length / 2, 0, 2 * math.pi)]
        reach = self.box_depth - self.spot
        if self.arcs and reach < self.radius:
            opening = math.acos(reach / self.radius)
            curves.append(arc(self.spot, -opening, opening))
            curves.append(arc(self.length - self.spot, math.pi - opening, math.pi + opening))
        return curves

    def spots(self) -> tuple[tuple[float, float], ...]:
        """Penalty spots and the centre spot in metres."""
        middle = self.width / 2
        return (self.spot, middle), (self.length - self.spot, middle), (self.length / 2, middle)


TABLE: Final = Geometry()
"""The pitch exactly as `touchline.pitch` has it."""
