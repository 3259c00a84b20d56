"""People and the ball, drawn as small bodies that run: a posed skeleton, its limbs, its shadow, its exact box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from demo.camera import Array, Camera
from demo.canvas import Colour, Image
from touchline.contract import BALL

PLAIN, STRIPES, HOOPS, HALVES, SASH = range(5)

# Joints of a skeleton, in order.
HIPS, CHEST, HEAD, KNEE_L, ANKLE_L, TOE_L, KNEE_R, ANKLE_R, TOE_R = range(9)
HIP_L, HIP_R, SHOULDER_L, ELBOW_L, WRIST_L, SHOULDER_R, ELBOW_R, WRIST_R, NECK = range(9, 18)
JOINTS: Final = 18
"""Joints of a skeleton."""
_SHIFT: Final = 3


@dataclass(frozen=True)
class Kit:
    """Colours of one person, RGB 0 to 255."""

    shirt: Colour
    shorts: Colour
    socks: Colour
    accent: Colour = (255.0, 255.0, 255.0)
    pattern: int = PLAIN
    skin: Colour = (190.0, 140.0, 110.0)
    hair: Colour = (40.0, 30.0, 25.0)
    shoes: Colour = (30.0, 30.0, 30.0)
    trousers: bool = False
    sleeves: bool = False


@dataclass(frozen=True)
class Poses:
    """The bodies of one frame, one row each: float64 [n, 2] places in metres and float64 [n] of the rest.

    Headings are radians (0 along +x), phases radians of the running cycle, speeds m/s, heights metres; raised is how
    far the arms are lifted sideways (0 to 1).
    """

    places: Array
    headings: Array
    phases: Array
    speeds: Array
    heights: Array
    raised: Array


def skeletons(poses: Poses) -> Array:
    """Joints in metres, float64 [n, 18, 3], feet on the ground.

    A hand-made running cycle: thighs swing with the phase, the knee of the leg that comes forward folds, arms swing
    against the legs, the body leans with the speed.
    """
    count = len(poses.headings)
    height, speed, phase = poses.heights, poses.speeds, poses.phases
    forward = np.stack([np.cos(poses.headings), np.sin(poses.headings), np.zeros(count)], axis=1)
    side = np.stack([-forward[:, 1], forward[:, 0], np.zeros(count)], axis=1)
    up = np.array([0.0, 0.0, 1.0])
    joints = np.zeros((count, JOINTS, 3))

    def bone(length: Array | float, angle: Array) -> Array:
        """A bone that hangs down, swung forward by an angle."""
        reach = (np.asarray(length) * height)[:, None]
        return np.asarray(reach * (np.sin(angle)[:, None] * forward - np.cos(angle)[:, None] * up), np.float64)

    lean = np.clip(0.03 * speed, 0, 0.28)
    spine = -bone(1.0, -lean)
    joints[:, CHEST] = spine * 0.29
    joints[:, NECK] = spine * 0.325
    joints[:, HEAD] = spine * 0.325 + up * (0.075 * height)[:, None] + forward * 0.03
    swing = np.clip(0.10 + 0.13 * speed, 0, 0.85)
    fold = np.clip(0.10 + 0.20 * speed, 0, 1.5)
    shoulder_width = (0.115 * height)[:, None] * side
    hip_width = (0.052 * height)[:, None] * side
    for sign, offset, hip, knee, ankle, toe in (
        (1, 0.0, HIP_L, KNEE_L, ANKLE_L, TOE_L),
        (-1, np.pi, HIP_R, KNEE_R, ANKLE_R, TOE_R),
    ):
        cycle = phase + offset
        thigh = swing * np.sin(cycle) + 0.25 * swing
        shin = thigh - fold * np.clip(np.cos(cycle - 0.5), 0, 1) - 0.08
        joints[:, hip] = sign * hip_width
        joints[:, knee] = joints[:, hip] + bone(0.25, thigh) + sign * hip_width * 0.25
        joints[:, ankle] = joints[:, knee] + bone(0.25, shin)
        joints[:, toe] = joints[:, ankle] + bone(0.10, shin + 1.35)
    for sign, offset, shoulder, elbow, wrist in (
        (1, np.pi, SHOULDER_L, ELBOW_L, WRIST_L),
        (-1, 0.0, SHOULDER_R, ELBOW_R, WRIST_R),
    ):
        arm = 0.8 * swing * np.sin(phase + offset)
        spread = (sign * (0.12 + 1.2 * poses.raised) * 0.17 * height)[:, None] * side
        bend = np.clip(0.2 + 0.22 * speed, 0, 1.4)
        lift = (poses.raised * 0.15 * height)[:, None] * up
        joints[:, shoulder] = joints[:, CHEST] + sign * shoulder_width
        joints[:, elbow] = joints[:, shoulder] + bone(0.17, arm) + spread + lift
        joints[:, wrist] = joints[:, elbow] + bone(0.16, arm + bend) + spread + 2 * lift
    lowest = np.minimum(joints[:, [ANKLE_L, ANKLE_R], 2].min(axis=1), joints[:, [TOE_L, TOE_R], 2].min(axis=1))
    joints[..., 2] += (0.05 - lowest)[:, None]
    joints[..., :2] += poses.places[:, None, :]
    return joints


@dataclass(frozen=True)
class Sprite:
    """One drawn thing before it is laid into the frame."""

    left: int
    top: int
    picture: npt.NDArray[np.float32]
    """float32 [h, w, 4]: premultiplied RGB 0 to 255 and coverage 0 to 255."""
    box: tuple[float, float, float, float]


def _sprite(canvas: Image, left: int, top: int, scale: int, light: float) -> Sprite | None:
    x, y, w, h = cv2.boundingRect(canvas[..., 3])
    if not w or not h:
        return None
    size = (canvas.shape[1] // scale, canvas.shape[0] // scale)
    picture = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    # One side of a body is lit, the other is not.
    ramp = np.linspace(1 - light, 1 + light, size[0], dtype=np.float32)[None, :, None]
    picture[..., :3] = np.minimum(picture[..., :3] * ramp, picture[..., 3:])
    box = (left + x / scale, top + y / scale, left + (x + w) / scale, top + (y + h) / scale)
    return Sprite(left, top, picture, box)


def _mix(colour: Colour, other: Colour, share: float) -> Colour:
    return (
        colour[0] + (other[0] - colour[0]) * share,
        colour[1] + (other[1] - colour[1]) * share,
        colour[2] + (other[2] - colour[2]) * share,
    )


def _darker(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def draw_person(
    points: Array, depth: Array, camera: Camera, kit: Kit, light: float, *, scale: int = 4
) -> Sprite | None:
    """A sprite of one body: points float64 [18, 2] in frame pixels and depths float64 [18] in metres.

    None where it lies outside the frame.
    """
    unit = camera.pixels_per_metre(float(depth[HIPS]))
    reach = 0.22 * unit + 2
    left, top = np.floor(points.min(axis=0) - reach).astype(int)
    right, bottom = np.ceil(points.max(axis=0) + reach).astype(int)
    if right <= 0 or bottom <= 0 or left >= camera.width or top >= camera.height or depth[HIPS] < 1:
        return None
    if unit * 1.8 > 90:
        scale = max(2, scale // 2)
    canvas = np.zeros((int(bottom - top) * scale, int(right - left) * scale, 4), np.uint8)
    placed = ((points - (left, top)) * scale - 0.5) * (1 << _SHIFT)
    at = np.round(placed).astype(np.int64).tolist()
    unit *= scale

    def limb(a: int, b: int, width: float, colour: Colour, share: float = 1.0) -> None:
        stop = at[b] if share == 1 else [int(at[a][i] + (at[b][i] - at[a][i]) * share) for i in (0, 1)]
        cv2.line(canvas, at[a], stop, (*colour, 255), max(1, round(width * unit)), cv2.LINE_8, _SHIFT)

    def arm(shoulder: int, elbow: int, wrist: int, tone: float) -> None:
        limb(elbow, wrist, 0.075, _darker(kit.shirt if kit.sleeves else kit.skin, tone))
        limb(shoulder, elbow, 0.11, _darker(kit.shirt, tone))

    def leg(hip: int, knee: int, ankle: int, toe: int, tone: float) -> None:
        limb(ankle, toe, 0.09, _darker(kit.shoes, tone))
        if kit.trousers:
            limb(knee, ankle, 0.13, _darker(kit.shorts, tone))
            limb(hip, knee, 0.18, _darker(kit.shorts, tone))
            return
        limb(hip, knee, 0.145, _darker(kit.skin, tone))
        limb(knee, ankle, 0.115, _darker(kit.socks, tone))
        limb(hip, knee, 0.20, _darker(kit.shorts, tone), 0.62)

    near_left = depth[SHOULDER_L] < depth[SHOULDER_R]
    arms = ((SHOULDER_R, ELBOW_R, WRIST_R), (SHOULDER_L, ELBOW_L, WRIST_L))
    legs = ((HIP_R, KNEE_R, ANKLE_R, TOE_R), (HIP_L, KNEE_L, ANKLE_L, TOE_L))
    far, close = (0, 1) if near_left else (1, 0)
    arm(*arms[far], 0.75)
    leg(*legs[far], 0.8)
    leg(*legs[close], 1.0)
    limb(HIP_L, HIP_R, 0.21, kit.shorts)
    _torso(canvas, at, unit, kit)
    arm(*arms[close], 0.95)
    limb(CHEST, HEAD, 0.11, _darker(kit.skin, 0.8))
    radius = max(1, round(0.105 * unit * (1 << _SHIFT)))
    cv2.circle(canvas, at[HEAD], radius, (*kit.skin, 255), -1, cv2.LINE_8, _SHIFT)
    crown = [at[HEAD][0], int(at[HEAD][1] - 0.045 * unit * (1 << _SHIFT))]
    cv2.circle(canvas, crown, max(1, round(radius * 0.93)), (*kit.hair, 255), -1, cv2.LINE_8, _SHIFT)
    return _sprite(canvas, int(left), int(top), scale, light)


def _torso(canvas: Image, at: list[list[int]], unit: float, kit: Kit) -> None:
    """Shirt with its pattern: a stroke down each side, filled between."""
    width = max(1, round(0.15 * unit))
    shoulders = (at[SHOULDER_L], at[SHOULDER_R])
    hips = (at[HIP_L], at[HIP_R])

    def between(share: float, down: float) -> tuple[int, int]:
        top = [shoulders[0][i] + (shoulders[1][i] - shoulders[0][i]) * share for i in (0, 1)]
        low = [hips[0][i] + (hips[1][i] - hips[0][i]) * share for i in (0, 1)]
        return int(top[0] + (low[0] - top[0]) * down), int(top[1] + (low[1] - top[1]) * down)

    def stroke(a: tuple[int, int], b: tuple[int, int], colour: Colour, thick: int) -> None:
        cv2.line(canvas, a, b, (*colour, 255), max(1, thick), cv2.LINE_8, _SHIFT)

    for share in (0.12, 0.5, 0.88):
        stroke(between(share, 0.08), between(share, 0.92), kit.shirt, width)
    thin = max(1, round(0.05 * unit))
    if kit.pattern == STRIPES:
        for share in (0.0, 0.5, 1.0):
            stroke(between(share, 0.0), between(share, 0.95), kit.accent, thin)
    elif kit.pattern == HOOPS:
        for down in (0.2, 0.6):
            stroke(between(0.05, down), between(0.95, down), kit.accent, round(thin * 1.4))
    elif kit.pattern == HALVES:
        stroke(between(0.12, 0.08), between(0.12, 0.92), kit.accent, width)
    elif kit.pattern == SASH:
        stroke(between(0.0, 0.1), between(1.0, 0.8), kit.accent, thin)
    else:
        # A number, a sponsor: some contrast on the chest.
        stroke(between(0.42, 0.3), between(0.58, 0.38), _mix(kit.shirt, kit.accent, 0.7), thin)


# Limbs of a shadow that are drawn in one stroke, and their width in metres.
_SHADOW_STROKES: Final = (
    (((HIP_L, KNEE_L, ANKLE_L, TOE_L), (HIP_R, KNEE_R, ANKLE_R, TOE_R)), 0.12),
    (((SHOULDER_L, ELBOW_L), (SHOULDER_R, ELBOW_R), (CHEST, HEAD)), 0.12),
    (((HIPS, CHEST),), 0.3),
)


def draw_shadows(
    image: Image,
    camera: Camera,
    bodies: Array,
    suns: Sequence[tuple[float, float]],
    *,
    strength: float,
    softness: float = 0.0,
) -> None:
    """Darken the ground, in place, where bodies float64 [n, 18, 3] keep the light off.

    A sun is how far (metres, x and y) a point one metre up throws its shadow; softness is a blur in pixels.
    """
    flat = np.concatenate([bodies + bodies[..., 2:] * (*sun, 0.0) for sun in suns])
    flat[..., 2] = 0
    points, depth = camera.project(flat)
    reach = 0.2 * camera.focal / np.maximum(depth[:, HIPS], 1) + 3 * softness + 1
    low = np.maximum(np.floor(points.min(axis=1) - reach[:, None]), 0).astype(int)
    high = np.minimum(np.ceil(points.max(axis=1) + reach[:, None]), (camera.width, camera.height)).astype(int)
    for index in np.flatnonzero((depth.min(axis=1) > 1) & (low < high).all(axis=1)):
        (left, top), (right, bottom) = low[index], high[index]
        mask = np.zeros((int(bottom - top), int(right - left)), np.uint8)
        at = np.round((points[index] - (left, top) - 0.5) * (1 << _SHIFT)).astype(np.int32)
        # A width across the view keeps its size, one along it is foreshortened: between the two.
        unit = 0.6 * camera.pixels_per_metre(float(depth[index, HIPS]))
        for strokes, width in _SHADOW_STROKES:
            lines = [at[list(stroke)] for stroke in strokes]
            cv2.polylines(mask, lines, False, 255, max(1, round(width * unit)), cv2.LINE_AA, _SHIFT)
        if softness > 0.6:
            mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), softness), np.uint8)
        part = image[top:bottom, left:right]
        part[:] = (part * (1 - mask[..., None].astype(np.float32) * (strength / 255))).astype(np.uint8)


BALL_RADIUS: Final = 0.11


def draw_ball(
    camera: Camera, centre: Array, streak: Array, colour: Colour = (245.0, 245.0, 240.0), scale: int = 6
) -> Sprite | None:
    """The ball at a world point [3] in metres; `streak` float64 [2] is its motion in pixels meanwhile."""
    points, depth = camera.project(centre)
    if depth < 1:
        return None
    # Broadcast sharpening makes the ball look a bit larger than it is.
    radius = max(BALL_RADIUS * 1.15 * camera.pixels_per_metre(float(depth)), 1.3)
    reach = radius + np.abs(streak) / 2 + 2
    left, top = np.floor(points - reach).astype(int)
    right, bottom = np.ceil(points + reach).astype(int)
    if right <= 0 or bottom <= 0 or left >= camera.width or top >= camera.height:
        return None
    canvas = np.zeros((int(bottom - top) * scale, int(right - left) * scale, 4), np.uint8)

    def place(point: Array) -> list[int]:
        return np.round(((point - (left, top)) * scale - 0.5) * (1 << _SHIFT)).astype(np.int64).tolist()  # type: ignore[no-any-return]

    length = float(np.hypot(*streak))
    thick = max(1, round(2 * radius * scale))
    fixed = round(radius * scale * (1 << _SHIFT))
    if length > 0.5:
        cv2.line(canvas, place(points - streak / 2), place(points + streak / 2), (*colour, 255), thick, 8, _SHIFT)
    else:
        cv2.circle(canvas, place(points), fixed, (*_darker(colour, 0.62), 255), -1, cv2.LINE_8, _SHIFT)
        lit = place(points - np.array([0.15, 0.25]) * radius)
        cv2.circle(canvas, lit, round(fixed * 0.75), (*colour, 255), -1, cv2.LINE_8, _SHIFT)
    sprite = _sprite(canvas, int(left), int(top), scale, 0.0)
    if sprite is not None and length > 0.5:
        # The light of the ball is spread over its path.
        sprite.picture[:] *= max(0.45, 2 * radius / (2 * radius + length * 0.6))
    return sprite


def lay(image: Image, owner: npt.NDArray[np.uint8], sprite: Sprite, number: int) -> int:
    """Blend a sprite into the frame and note who owns its pixels, in place; how many pixels it covers."""
    height, width = image.shape[:2]
    h, w = sprite.picture.shape[:2]
    x0, y0 = max(sprite.left, 0), max(sprite.top, 0)
    x1, y1 = min(sprite.left + w, width), min(sprite.top + h, height)
    whole = int(np.count_nonzero(sprite.picture[..., 3] > 96))
    if x1 <= x0 or y1 <= y0:
        return whole
    part = sprite.picture[y0 - sprite.top : y1 - sprite.top, x0 - sprite.left : x1 - sprite.left]
    target = image[y0:y1, x0:x1]
    target[:] = (target * (1 - part[..., 3:] * (1 / 255)) + part[..., :3] + 0.5).astype(np.uint8)
    owner[y0:y1, x0:x1][part[..., 3] > 96] = number
    return whole


class Drawn(NamedTuple):
    """An object that was laid into a frame."""

    number: int
    """What the owner map calls it, 1 to 254."""
    label: int
    box: tuple[float, float, float, float]
    whole: int
    """How many pixels it covers when nothing is before it."""


def visible(
    owner: npt.NDArray[np.uint8], drawn: Sequence[Drawn]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Boxes clipped to the frame, classes and numbers of the objects of which enough can be seen.

    Enough is a quarter of a person and two fifths of a ball; `owner` uint8 [height, width] says whose each pixel is.
    """
    height, width = owner.shape
    seen = cv2.calcHist([owner], [0], None, [256], [0, 256]).ravel()
    rows = []
    for number, label, (x1, y1, x2, y2), whole in drawn:
        box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        least = (0.4 if label == BALL else 0.25) * whole
        if box[2] - box[0] >= 2 and box[3] - box[1] >= 2 and seen[number] >= max(3, least):
            rows.append((box, label, number))
    return (
        np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([label for _, label, _ in rows], np.intp),
        np.array([number for _, _, number in rows], np.intp),
    )
