"""What stands still in a stadium: grass, advertising boards, crowd and stands, goals, dugouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from demo.camera import Array, Camera
from demo.canvas import Colour, Image, air_strokes, fill_ground, warp_into, warp_plane
from demo.geometry import GOAL_DEPTH, GOAL_HEIGHT, GOAL_WIDTH, Geometry

Field = npt.NDArray[np.float32]

PLAIN, BANDS, CROSS_BANDS, CHECKS, DIAGONAL = range(5)


@dataclass(frozen=True)
class Turf:
    """How the grass looks. Colours RGB 0 to 255, lengths in metres."""

    colour: Colour = (74.0, 122.0, 48.0)
    dark: float = 0.88
    """Brightness of the dark stripes against the light ones."""
    pattern: int = BANDS
    band: float = 5.5
    cross_band: float = 6.0
    mottle: float = 0.04
    """Strength of slow random brightness changes."""
    worn: float = 0.0
    """0 to 1: bare patches in the goal mouths and round the centre."""
    apron: Colour = (60.0, 100.0, 45.0)
    apron_from: float = 3.0
    """Distance from the lines at which the apron (track, artificial turf) begins."""
    shade: tuple[float, float, float] | None = None
    """A stadium roof's shadow: y of its edge at x = 0 and at x = length, and the brightness inside (0 to 1)."""
    shade_far: bool = False
    """The shadow lies on the far side of its edge."""


def clouds(rng: np.random.Generator, height: int, width: int, cells: int) -> Field:
    """Slow noise of about zero mean and unit spread, float32 [height, width]."""
    coarse = rng.standard_normal((max(2, cells * height // max(width, 1)), cells)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def grass(geometry: Geometry, turf: Turf, margin: float, resolution: float, rng: np.random.Generator) -> Image:
    """The ground without lines, uint8 RGB, `margin` metres beyond the lines on every side, `resolution` metres a pixel.

    Row 0 is the far side.
    """
    width = round((geometry.length + 2 * margin) / resolution)
    height = round((geometry.width + 2 * margin) / resolution)
    x = ((np.arange(width, dtype=np.float32) + 0.5) * resolution - margin)[None, :]
    y = ((np.arange(height, dtype=np.float32) + 0.5) * resolution - margin)[:, None]
    along = np.floor(x / turf.band) % 2
    across = np.floor(y / turf.cross_band) % 2
    if turf.pattern == BANDS:
        stripe = np.broadcast_to(along, (height, width))
    elif turf.pattern == CROSS_BANDS:
        stripe = np.broadcast_to(across, (height, width))
    elif turf.pattern == CHECKS:
        stripe = (along + across) / 2
    elif turf.pattern == DIAGONAL:
        stripe = np.floor((x + y) / (turf.band * 1.4)) % 2
    else:
        stripe = np.zeros((height, width), np.float32)
    light = 1 - (1 - turf.dark) * stripe.astype(np.float32)
    light += turf.mottle * clouds(rng, height, width, 24) + 0.6 * turf.mottle * clouds(rng, height, width, width // 3)
    picture = np.asarray(cv2.merge([light * channel for channel in turf.colour]), np.float32)
    if turf.worn > 0:
        middle = geometry.width / 2
        bare: Field = np.zeros((height, width), np.float32)
        for cx, cy, sx, sy in (
            (3.0, middle, 4.0, 5.0),
            (geometry.length - 3, middle, 4.0, 5.0),
            (geometry.length / 2, middle, 7.0, 5.0),
        ):
            bare += np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)
        patchy = bare * (0.7 + 0.5 * clouds(rng, height, width, 60))
        picture += (
            turf.worn
            * np.clip(patchy, 0, 1)[..., None]
            * (np.array([125, 115, 75], np.float32) * turf.colour[1] / 125 - picture)
        )
    apron, border = np.array(turf.apron, np.float32), max(1, round((margin - turf.apron_from) / resolution))
    picture[:border] = picture[-border:] = apron
    picture[:, :border] = picture[:, -border:] = apron
    if turf.shade is not None:
        left, right, inside = turf.shade
        edge = left + (right - left) * x / geometry.length
        depth = np.clip((edge - y if turf.shade_far else y - edge) / 0.8 + 0.5, 0, 1)
        picture *= np.asarray(1 - (1 - inside) * depth, np.float32)[..., None]
    return np.asarray(cv2.convertScaleAbs(np.maximum(picture, 0)), np.uint8)


def lay_ground(image: Image, camera: Camera, texture: Image, margin: float, resolution: float) -> None:
    """Warp the grass texture of `grass` into the frame, in place."""
    width = texture.shape[1]
    to_metres = np.array([[resolution, 0, -margin], [0, resolution, -margin], [0, 0, 1.0]])
    outline = np.array([[0.0, 0.0], [camera.width, camera.height]])
    far = np.array([[x * resolution - margin, -margin, 0.0] for x in (0, width)])
    points, depth = camera.project(far)
    if (depth > 1).all() and abs(camera.roll) < 0.2:
        edge = points[:, 1] + np.array([[-1.0], [1.0]]) * abs(np.tan(camera.roll)) * camera.width
        slope = (points[1, 1] - points[0, 1]) / max(points[1, 0] - points[0, 0], 1e-6)
        at_sides = points[0, 1] + slope * (np.array([0, camera.width]) - points[0, 0])
        outline[0, 1] = np.clip(min(edge.min(), at_sides.min()) - 2, 0, camera.height)
    warp_into(image, texture, camera.ground @ to_metres, outline)


@dataclass(frozen=True)
class Crowd:
    """Who sits in a stand: colours of the people, the seats, how full, how bright."""

    colours: tuple[Colour, ...]
    seat: Colour
    fullness: float = 0.9
    light: float = 0.6


def crowd_texture(crowd: Crowd, rng: np.random.Generator, rows: int, columns: int, zoom: int = 4) -> Image:
    """People on seats, uint8 RGB [rows * zoom, columns * zoom, 3]."""
    palette = np.array([*crowd.colours, crowd.seat], np.float32)
    taken = rng.random((rows, columns)) < crowd.fullness
    who = np.where(taken, rng.integers(0, len(crowd.colours), (rows, columns)), len(crowd.colours))
    cells = palette[who] * (0.55 + 0.6 * rng.random((rows, columns, 1), dtype=np.float32))
    gap = max(12, columns // 14)
    cells[:, :: int(gap)] = np.array(crowd.seat, np.float32) * 0.7 + 40
    heads = np.repeat(np.repeat(cells, zoom, axis=0), zoom, axis=1)
    skin = np.array([185, 145, 120], np.float32) * (0.5 + 0.6 * rng.random((rows, columns, 1), dtype=np.float32))
    # Of every seat's square the upper middle is a face, the sides are gaps.
    heads[0::zoom, zoom // 2 :: zoom] = np.where(taken[..., None], skin, cells)
    heads[0::zoom, 0::zoom] *= 0.45
    heads[zoom - 1 :: zoom] *= 0.8
    profile = np.repeat(0.85 + 0.3 * rng.random(rows, dtype=np.float32), zoom)
    slow = 1 + 0.12 * clouds(rng, rows * zoom, columns * zoom, 16)
    heads *= (profile[:, None] * slow * crowd.light)[..., None]
    return np.asarray(cv2.convertScaleAbs(heads), np.uint8)


FONTS: Final = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)
BOARD_ROWS: Final = 24


def board_texture(
    words: tuple[str, ...],
    colours: tuple[tuple[Colour, Colour], ...],
    length: float,
    rng: np.random.Generator,
    panel: float = 8.0,
) -> Image:
    """A row of advertising boards, uint8 RGB [24, n, 3]: panels of word on ground colour, `panel` metres each."""
    per_metre = 22
    texture = np.zeros((BOARD_ROWS, round(length * per_metre), 3), np.uint8)
    step = round(panel * per_metre)
    for number, left in enumerate(range(0, texture.shape[1], step)):
        ground, ink = colours[number % len(colours)]
        part = texture[:, left : left + step]
        part[:] = np.array(ground, np.uint8)
        word, font = words[number % len(words)], FONTS[int(rng.integers(len(FONTS)))]
        size = float(rng.uniform(0.6, 0.85))
        (wide, tall), _ = cv2.getTextSize(word, font, size, 2)
        origin = (left + max(2, (step - wide) // 2), (BOARD_ROWS + tall) // 2)
        cv2.putText(texture, word, origin, font, size, ink, 2, cv2.LINE_AA)
    return texture


def goal_frames(image: Image, camera: Camera, geometry: Geometry, net: float, colour: Colour = (235.0,) * 3) -> None:
    """Both goals with their nets (opacity `net`), in place."""
    middle = geometry.width / 2
    for line, back in ((0.0, -GOAL_DEPTH), (geometry.length, geometry.length + GOAL_DEPTH)):
        near, far = middle + GOAL_WIDTH / 2, middle - GOAL_WIDTH / 2
        _, depth = camera.project(np.array([line, middle, 0.0]))
        if depth < 5:
            continue
        thread: list[list[tuple[float, float, float]]] = []
        for y in np.linspace(far, near, 15):
            thread.append([(back, y, 0), (back, y, GOAL_HEIGHT * 0.95)])
            thread.append([(back, y, GOAL_HEIGHT * 0.95), (line, y, GOAL_HEIGHT)])
        for z in np.linspace(0, GOAL_HEIGHT * 0.95, 6):
            thread.append([(back, far, z), (back, near, z)])
            thread += [[(line, y, z), (back, y, z)] for y in (far, near)]
        for x in np.linspace(line, back, 5):
            thread += [[(x, y, 0), (x, y, GOAL_HEIGHT)] for y in (far, near)]
        air_strokes(image, camera, np.array(thread), 0.035, (215.0, 215.0, 215.0), opacity=net, scale=2)
        posts = [[(line, y, 0), (line, y, GOAL_HEIGHT)] for y in (far, near)]
        posts.append([(line, far, GOAL_HEIGHT), (line, near, GOAL_HEIGHT)])
        air_strokes(image, camera, np.array(posts), 0.13, colour)


@dataclass(frozen=True)
class Bowl:
    """The stands round a pitch, and how they lie (metres from the lines)."""

    boards: float = 4.0
    stand: float = 7.0
    board_height: float = 0.95
    slope: float = 0.5
    """Rise of a stand over its depth."""
    lower: float = 15.0
    """Depth of the lower tier; 0: no stand."""
    upper: float = 18.0
    """Depth of the upper tier; 0: none."""
    roof: Colour = (22.0, 24.0, 28.0)
    floor: Colour = (50.0, 52.0, 52.0)
    near_stand: bool = False


@dataclass(frozen=True)
class Surroundings:
    """Textures for a bowl, all uint8 RGB."""

    bowl: Bowl
    boards: Image
    lower: Image
    upper: Image
    facade: Image
    near: Image | None = None


def _vector(x: float, y: float, z: float) -> Array:
    return np.array([x, y, z], np.float64)


def _before(camera: Camera) -> Array:
    """The ground before the camera as far as it matters, float64 [4, 2] in metres."""
    forward = np.array([np.sin(camera.pan), -np.cos(camera.pan)])
    side = np.array([-forward[1], forward[0]])
    at = np.array(camera.position[:2])
    close, far = at + 2 * forward, at + 400 * forward
    return np.stack([close - 40 * side, close + 40 * side, far + 400 * side, far - 400 * side])


def stands(image: Image, camera: Camera, geometry: Geometry, around: Surroundings) -> None:
    """Stands behind the far side and both ends, in place; what is above them is the roof."""
    bowl = around.bowl
    cv2.rectangle(image, (0, 0), (camera.width, camera.height), bowl.roof, -1)
    out, length, width = bowl.stand, geometry.length, geometry.width
    fill_ground(image, camera, _before(camera), bowl.floor)
    if bowl.lower <= 0:
        return
    far_length = length + 2 * out
    side = min(width + out + 4, camera.position[1] - 6 + out)
    for start, along, away in (
        (_vector(-out, -out + side, 0), _vector(0, -side, 0), _vector(-1, 0, 0)),
        (_vector(length + out, -out, 0), _vector(0, side, 0), _vector(1, 0, 0)),
        (_vector(-out, -out, 0), _vector(far_length, 0, 0), _vector(0, -1, 0)),
    ):
        foot = start + _vector(0, 0, 1.2)
        rise = away * bowl.lower + _vector(0, 0, bowl.lower * bowl.slope)
        top = foot + rise
        if bowl.upper > 0:
            step = top + _vector(0, 0, 2.2)
            high = away * bowl.upper + _vector(0, 0, bowl.upper * (bowl.slope + 0.2))
            warp_plane(image, camera, around.upper, step, (along, high))
            warp_plane(image, camera, around.facade, top, (along, _vector(0, 0, 2.2)))
        warp_plane(image, camera, around.lower, foot, (along, rise))
        warp_plane(image, camera, around.facade, start, (along, _vector(0, 0, 1.2)))


def board_rows(image: Image, camera: Camera, geometry: Geometry, around: Surroundings) -> None:
    """Advertising boards behind the far touchline and both goal lines, in place."""
    bowl = around.bowl
    out, length = bowl.boards, geometry.length
    side = min(geometry.width + out, camera.position[1] - 6 + out)
    up = _vector(0, 0, bowl.board_height)
    warp_plane(image, camera, around.boards, _vector(-out, -out + side, 0), (_vector(0, -side, 0), up))
    warp_plane(image, camera, around.boards, _vector(length + out, -out, 0), (_vector(0, side, 0), up))
    warp_plane(image, camera, around.boards, _vector(-out, -out, 0), (_vector(length + 2 * out, 0, 0), up))


def near_side(
    image: Image, camera: Camera, geometry: Geometry, around: Surroundings, dugouts: tuple[Colour, ...]
) -> None:
    """What lies between the camera and the near touchline, in place: dugout roofs, and heads of the near stand."""
    bowl = around.bowl
    middle, line = geometry.length / 2, geometry.width
    for number, colour in enumerate(dugouts):
        start = middle + (7 + 13 * (number // 2)) * (1 if number % 2 else -1) - (0 if number % 2 else 11)
        roof = np.full((40, 440, 3), np.array(colour, np.uint8), np.uint8)
        roof[:, ::55] = roof[:, ::55] // 2
        roof[:6] = roof[:6] // 2
        wall = np.full((40, 440, 3), 40, np.uint8)
        wall[:, ::55] = 70
        warp_plane(image, camera, roof, _vector(start, line + 7.0, 2.0), (_vector(11, 0, 0), _vector(0, -1.7, -0.3)))
        warp_plane(image, camera, wall, _vector(start, line + 7.0, 0), (_vector(11, 0, 0), _vector(0, 0, 2.0)))
    if bowl.near_stand and around.near is not None:
        edge, x, reach = line + bowl.stand, -bowl.stand, geometry.length + 2 * bowl.stand
        deep = min(camera.position[1] - 4 - edge, 25.0)
        if deep > 1:
            # Seats that would hide the touchline from the camera are not built.
            sight = camera.position[2] * (edge + deep - line) / (camera.position[1] - line)
            climb = max(0.65 * sight, 1.0)
            warp_plane(
                image, camera, around.near[::-1], _vector(x, edge + deep, climb), (_vector(reach, 0, 0),
                _vector(0, -deep, 0.8 - climb)))  # fmt: skip
            front = _vector(x, edge - 0.5, 0)
            warp_plane(image, camera, around.facade, front, (_vector(reach, 0, 0), _vector(0, 0, 1.0)))
