"""A pinhole camera over the pitch: world metres (x along, y towards the camera's touchline, z up) to pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """Position in metres, angles in radians, focal length in pixels.

    Pan 0 looks along -y (straight across the pitch), positive turns towards +x; tilt is positive downwards.
    """

    position: tuple[float, float, float]
    pan: float
    tilt: float
    focal: float
    width: int
    height: int
    roll: float = 0.0
    aspect: float = 1.0
    """Vertical over horizontal focal length: a picture that was stretched."""

    @cached_property
    def matrix(self) -> Array:
        """float64 [3, 4]: homogeneous world metres to homogeneous pixels; the third row is the depth in metres."""
        sp, cp, st, ct = math.sin(self.pan), math.cos(self.pan), math.sin(self.tilt), math.cos(self.tilt)
        forward = np.array([sp * ct, -cp * ct, -st])
        right = np.array([cp, sp, 0.0])
        down = np.array([-sp * st, cp * st, -ct])
        cr, sr = math.cos(self.roll), math.sin(self.roll)
        axes = np.stack([cr * right + sr * down, cr * down - sr * right, forward])
        optics = np.array(
            [[self.focal, 0, self.width / 2], [0, self.focal * self.aspect, self.height / 2], [0, 0, 1.0]]
        )
        matrix = optics @ np.column_stack([axes, -axes @ np.array(self.position)])
        return np.asarray(matrix, np.float64)

    @cached_property
    def ground(self) -> Array:
        """float64 [3, 3]: metres on the ground (z = 0) to pixels."""
        return self.matrix[:, [0, 1, 3]]

    @cached_property
    def homography_cm(self) -> Array:
        """float64 [3, 3]: centimetres on the ground to pixels."""
        return np.asarray(self.ground @ np.diag([0.01, 0.01, 1.0]), np.float64)

    def plane(self, origin: Array, along: Array, up: Array) -> Array:
        """Homography from (u, v) on the plane origin + u * along + v * up, all in metres, to pixels."""
        directions = np.zeros((4, 3))
        directions[:3, 0], directions[:3, 1], directions[:3, 2], directions[3, 2] = along, up, origin, 1
        return np.asarray(self.matrix @ directions, np.float64)

    def project(self, points: Array) -> tuple[Array, Array]:
        """World points [..., 3] to pixels [..., 2] and depths [...] in metres (not positive: behind the camera)."""
        homogeneous = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        depth = homogeneous[..., 2]
        safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
        return homogeneous[..., :2] / safe[..., None], depth

    def pixels_per_metre(self, depth: float) -> float:
        """How large a metre across the view appears at this depth."""
        return self.focal / max(depth, 1e-6)


def keypoint_rows(camera: Camera, landmarks: Array) -> npt.NDArray[np.float32]:
    """Landmarks [32, 2] in metres as `Truth.keypoints` rows, float32 [32, 3]."""
    points, depth = camera.project(np.column_stack([landmarks, np.zeros(len(landmarks))]))
    x, y = points[:, 0], points[:, 1]
    seen = (depth > 0) & (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
    return np.where(seen[:, None], np.column_stack([x, y, seen]), 0).astype(np.float32)
