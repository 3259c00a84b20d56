"""Painting into a frame: warped planes, antialiased strokes on the ground and in the air, blended patches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from demo.camera import Array, Camera

Image = npt.NDArray[np.uint8]
Colour = tuple[float, float, float]

_NEAR = 1.0
_SHIFT = 4
_LIMIT = 1 << 15


def warp_into(image: Image, texture: Image, to_image: Array, outline: Array) -> None:
    """Warp a texture into the frame, in place.

    `to_image` maps continuous texture pixels to continuous frame pixels, `outline` float64 [n, 2] bounds the result.
    """
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(outline.min(axis=0)).astype(int), 0, (width, height))
    x1, y1 = np.clip(np.ceil(outline.max(axis=0)).astype(int) + 1, 0, (width, height))
    if x1 <= x0 or y1 <= y0:
        return
    # OpenCV puts the centre of a pixel at whole numbers, this package at halves.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    shift = np.array([[1, 0, -x0 - 0.5], [0, 1, -y0 - 0.5], [0, 0, 1]])
    target = image[y0:y1, x0:x1]
    cv2.warpPerspective(
        texture,
        shift @ to_image @ half,
        (int(x1 - x0), int(y1 - y0)),
        dst=target,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_TRANSPARENT,
    )


def warp_plane(image: Image, camera: Camera, texture: Image, origin: Array, sides: tuple[Array, Array]) -> None:
    """Hang a texture, in place, on the parallelogram at `origin` with sides (along, up) in metres, last row at origin.

    The parallelogram must not reach behind the camera.
    """
    height, width = texture.shape[:2]
    along, up = sides
    corners = np.stack([origin, origin + along, origin + along + up, origin + up])
    outline, depth = camera.project(corners)
    if (depth < _NEAR).all() or _beside(camera, outline, depth):
        return
    if (depth < _NEAR).any():
        outline = np.array([[0.0, 0.0], [camera.width, camera.height]])
    texture_to_plane = np.array([[1 / width, 0, 0], [0, -1 / height, 1], [0, 0, 1]])
    warp_into(image, texture, camera.plane(origin, along, up) @ texture_to_plane, outline)


def _beside(camera: Camera, outline: Array, depth: Array) -> bool:
    """Whether an outline before the camera lies wholly beside the picture."""
    if (depth < _NEAR).any():
        return False
    low, high = outline.min(axis=0), outline.max(axis=0)
    return bool(high[0] < 0 or high[1] < 0 or low[0] > camera.width or low[1] > camera.height)


def fill_ground(image: Image, camera: Camera, corners: Array, colour: Colour) -> None:
    """Fill a convex polygon on the ground, float64 [n, 2] in metres before the camera, in place."""
    points, depth = camera.project(np.column_stack([corners, np.zeros(len(corners))]))
    if (depth > 0).all():
        cv2.fillConvexPoly(image, _fixed(points, 1), colour, cv2.LINE_8, _SHIFT)


def _clipped(camera: Camera, start: Array, stop: Array) -> tuple[Array, Array] | None:
    """The part of a segment (metres, [3]) that lies before the camera."""
    row = camera.matrix[2]
    a, b = row[:3] @ start + row[3] - _NEAR, row[:3] @ stop + row[3] - _NEAR
    if a < 0 and b < 0:
        return None
    if a < 0:
        start = start + (stop - start) * (a / (a - b))
    elif b < 0:
        stop = stop + (start - stop) * (b / (b - a))
    return start, stop


def ground_strokes(
    camera: Camera,
    polylines: Iterable[Array],
    discs: Sequence[tuple[float, float]],
    *,
    line_width: float,
    scale: int,
) -> Image:
    """Coverage of the painted lines, uint8 [height, width].

    Every stroke is a quad on the ground, filled at `scale` times the resolution and then averaged, so that a far line
    fades as it does in a real picture instead of breaking up.
    """
    mask = np.zeros((camera.height * scale, camera.width * scale), np.uint8)
    half = line_width / 2
    quads: list[Array] = []
    for polyline in polylines:
        for start, stop in pairwise(polyline):
            clipped = _clipped(camera, np.append(start, 0.0), np.append(stop, 0.0))
            if clipped is None:
                continue
            a, b = clipped[0][:2], clipped[1][:2]
            along = b - a
            along = along * (half / max(float(np.hypot(*along)), 1e-9))
            side = np.array([-along[1], along[0]])
            quads.append(np.stack([a - along + side, b + along + side, b + along - side, a - along - side]))
    turn = np.linspace(0, 2 * np.pi, 4, endpoint=False)
    radius = max(half * 1.8, 0.1)
    quads.extend(np.array(disc) + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1) for disc in discs)
    if not quads:
        return np.zeros((camera.height, camera.width), np.uint8)
    corners = np.concatenate(quads)
    points, depth = camera.project(np.column_stack([corners, np.zeros(len(corners))]))
    points, depth = points.reshape(-1, 4, 2), depth.reshape(-1, 4)
    outside = (
        (points[..., 0].max(1) < 0)
        | (points[..., 0].min(1) > camera.width)
        | (points[..., 1].max(1) < 0)
        | (points[..., 1].min(1) > camera.height)
        | (depth.min(1) <= 0)
    )
    fixed = _fixed(points[~outside], scale)
    for quad in fixed:
        cv2.fillConvexPoly(mask, quad, 255, cv2.LINE_8, _SHIFT)
    return np.asarray(cv2.resize(mask, (camera.width, camera.height), interpolation=cv2.INTER_AREA), np.uint8)


def _fixed(points: Array, scale: int) -> npt.NDArray[np.int32]:
    """Continuous pixels to OpenCV's fixed-point coordinates of the enlarged picture."""
    enlarged = np.clip(points * scale - 0.5, -_LIMIT, _LIMIT)
    return np.round(enlarged * (1 << _SHIFT)).astype(np.int32)


def air_strokes(
    image: Image,
    camera: Camera,
    segments: Array,
    thickness: float,
    colour: Colour,
    *,
    opacity: float = 1.0,
    scale: int = 3,
) -> None:
    """Draw bars in the air, in place: segments float64 [n, 2, 3] in metres, thickness in metres."""
    points, depth = camera.project(segments)
    keep = (depth > _NEAR).all(axis=1)
    points, depth = points[keep], depth[keep]
    if not len(points):
        return
    low = np.floor(points.min(axis=(0, 1))).astype(int) - 3
    high = np.ceil(points.max(axis=(0, 1))).astype(int) + 3
    x0, y0 = np.clip(low, 0, (camera.width, camera.height))
    x1, y1 = np.clip(high, 0, (camera.width, camera.height))
    if x1 <= x0 or y1 <= y0:
        return
    mask = np.zeros(((y1 - y0) * scale, (x1 - x0) * scale), np.uint8)
    fixed = _fixed(points - np.array([x0, y0]), scale)
    for (start, stop), near in zip(fixed, depth.mean(axis=1), strict=True):
        pixels = max(1, round(thickness * camera.pixels_per_metre(float(near)) * scale))
        cv2.line(mask, start.tolist(), stop.tolist(), 255, pixels, cv2.LINE_8, _SHIFT)
    small = cv2.resize(mask, (int(x1 - x0), int(y1 - y0)), interpolation=cv2.INTER_AREA)
    blend(image[y0:y1, x0:x1], np.asarray(small, np.uint8), colour, opacity)


def blend(target: Image, mask: Image, colour: Colour, opacity: float = 1.0) -> None:
    """Lay a colour (0 to 255) over the frame where a uint8 mask says so, in place."""
    found = cv2.findNonZero(mask)
    if found is None:
        return
    columns, rows = found.reshape(-1, 2).T
    alpha = mask[rows, columns][:, None].astype(np.float32) * (opacity / 255)
    under = target[rows, columns]
    target[rows, columns] = (under + (np.array(colour, np.float32) - under) * alpha + 0.5).astype(np.uint8)
