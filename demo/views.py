"""Random views of random matches with exact truth: training frames for pitch keypoints and people on real footage.

Ranges follow broadcast footage: cameras fitted to labelled frames stand 12 to 22 m high, 20 to 50 m behind the near
touchline (some at 150 m with a long lens), level with the halfway line; they see 30 to 110 m of the pitch's length.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from demo import figures, optics, scenery
from demo.camera import Array, Camera, keypoint_rows
from demo.canvas import Colour, Image, blend, ground_strokes
from demo.figures import Kit, Poses
from demo.geometry import TABLE, Geometry
from demo.scenery import Bowl, Crowd, Surroundings, Turf
from demo.truth import Truth
from touchline.contract import BALL, GOALKEEPER, PLAYER, REFEREE

_MARGIN = 12.0
_OVERLAY = 255


def random_view(rng: np.random.Generator, size: tuple[int, int] = (384, 640)) -> tuple[Image, Truth]:
    """One frame uint8 RGB [H, W, 3] of `size` (height, width), and its truth.

    Half of the frames have the subnet table's geometry, half that of a real ground: `Truth.keypoints` are the same
    landmarks in both, and `Truth.homography` maps the frame's own geometry, so it agrees with the keypoints.
    """
    height, width = size
    geometry = _geometry(rng)
    camera = _camera(rng, geometry, height, width)
    image = np.empty((height, width, 3), np.uint8)
    owner = np.zeros((height, width), np.uint8)

    crowd_light = float(rng.beta(1.6, 1.3) * 0.9 + 0.1)
    turf = _turf(rng, geometry)
    around = _surroundings(rng, geometry, crowd_light)
    scenery.stands(image, camera, geometry, around)
    resolution = 0.25
    texture = scenery.grass(geometry, turf, _MARGIN, resolution, rng)
    scenery.lay_ground(image, camera, texture, _MARGIN, resolution)
    if rng.random() < 0.95:
        scenery.board_rows(image, camera, geometry, around)
    _lines(rng, image, camera, geometry, turf)
    scenery.goal_frames(image, camera, geometry, float(rng.uniform(0.1, 0.6)))
    dugouts = tuple(_colour(rng) for _ in range(int(rng.choice([0, 0, 2, 4]))))
    scenery.near_side(image, camera, geometry, around, dugouts)

    drawn = _people(rng, image, owner, camera, geometry)
    image = _optics(rng, image)
    _overlays(rng, image, owner)
    if rng.random() < 0.8:
        image = optics.compress(image, int(rng.integers(35, 95)))

    return image, Truth(
        0, *figures.visible(owner, drawn), keypoint_rows(camera, geometry.keypoints()), camera.homography_cm
    )


_COMMON: tuple[Colour, ...] = (
    (238, 238, 235), (238, 238, 235), (238, 238, 235), (22, 22, 26), (22, 22, 26), (200, 25, 35), (200, 25, 35),
    (150, 15, 40), (25, 60, 165), (25, 60, 165), (20, 28, 70), (110, 175, 225), (240, 215, 30), (240, 215, 30),
    (20, 120, 60), (235, 110, 25), (120, 230, 60), (90, 30, 110), (225, 60, 130), (120, 122, 125),
)  # fmt: skip


def _colour(rng: np.random.Generator, low: float = 20, high: float = 235) -> Colour:
    """A colour as kits and boards have it: mostly near a common one, sometimes any."""
    if rng.random() < 0.75:
        near = np.clip(np.array(_COMMON[int(rng.integers(len(_COMMON)))]) + rng.normal(0, 14, 3), 8, 250)
        return float(near[0]), float(near[1]), float(near[2])
    hue, saturation, value = rng.uniform(0, 180), rng.uniform(110, 255), rng.uniform(90, 245)
    pixel = np.array([[[hue, saturation, value]]], np.uint8)
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0]
    return (
        float(np.clip(red, low, high)),
        float(np.clip(green, low, high)),
        float(np.clip(blue, low, high)),
    )


def _geometry(rng: np.random.Generator) -> Geometry:
    if rng.random() < 0.5:
        return TABLE
    standard = rng.random() < 0.6
    length = 105.0 if standard else float(rng.uniform(100, 110))
    width = 68.0 if standard else float(rng.uniform(64, 70))
    return Geometry(length, width, 16.5, 20.16, 5.5, 9.16, 11.0, 9.15, arcs=True)


def _camera(rng: np.random.Generator, geometry: Geometry, height: int, width: int) -> Camera:
    """A main-stand camera that sees enough of the pitch to be worth a frame."""
    camera = _any_camera(rng, geometry, height, width)
    landmarks = geometry.keypoints()
    wanted = 2 if rng.random() < 0.05 else 4
    for _ in range(12):
        if keypoint_rows(camera, landmarks)[:, 2].sum() >= wanted:
            break
        camera = _any_camera(rng, geometry, height, width)
    return camera


# Metres from the near touchline to the camera, near to far.
_BACK = ((12.0, 20.0), (20.0, 30.0), (30.0, 60.0), (60.0, 160.0))


def _any_camera(rng: np.random.Generator, geometry: Geometry, height: int, width: int) -> Camera:
    length, across = geometry.length, geometry.width
    low, high = _BACK[int(rng.choice(len(_BACK), p=[0.17, 0.43, 0.25, 0.15]))]
    y = across + float(rng.uniform(low, high))
    z = float(np.clip(rng.normal(17, 2.8), 10, 24)) if rng.random() < 0.9 else float(rng.uniform(9, 35))
    x = length / 2 + float(rng.normal(0, 1.5) if rng.random() < 0.7 else rng.normal(0, 12))
    look_x = float(length * np.clip(rng.beta(1.3, 1.3), 0.03, 0.97))
    look_y = float(across * rng.uniform(0.2, 0.65))
    distance = math.hypot(look_x - x, y - look_y, z)
    seen = float(np.clip(math.exp(rng.normal(math.log(66), 0.4)), 24, 120))
    focal = width * distance / seen
    # Very wide lenses show mostly roof and concrete; the fitted ones begin here.
    focal = max(focal, 0.52 * width)
    # Nor does the pitch, far line to near line, cover less than some two fifths of the height.
    focal = max(focal, 0.42 * height / (math.atan2(z, y - across) - math.atan2(z, y)))
    pan = math.atan2(look_x - x, y - look_y)
    aspect = float(rng.uniform(0.95, 1.05)) if rng.random() < 0.3 else 1.0
    if rng.random() < 0.75:
        # Broadcast framing: the far touchline a little under the top of the picture.
        row = float(rng.uniform(0.0, 0.36))
        ground = math.hypot((x - look_x) * y / max(y - look_y, 1.0), y)
        tilt = math.atan2(z, ground) + math.atan((0.5 - row) * height / (focal * aspect))
        # A long lens far away would then show the stand below: the middle of the pitch stays near the picture's.
        middle = math.atan2(z, math.hypot(look_x - x, y - across / 2))
        tilt = float(
            np.clip(
                tilt,
                middle - math.atan(0.2 * height / (focal * aspect)),
                middle + math.atan(0.14 * height / (focal * aspect)),
            )
        )
    else:
        tilt = math.atan2(z, math.hypot(look_x - x, y - look_y))
    roll = float(rng.normal(0, 0.008)) if rng.random() < 0.7 else float(rng.normal(0, 0.03))
    return Camera((x, y, z), pan, tilt, focal, width, height, roll, aspect)


def _turf(rng: np.random.Generator, geometry: Geometry) -> Turf:
    # Medians over labelled broadcast frames: hue 45, saturation 145, value 132 (OpenCV's scales).
    if rng.random() < 0.85:
        hue, saturation, value = rng.normal(45, 5), rng.normal(145, 38), rng.normal(130, 27)
    else:
        hue, saturation, value = rng.uniform(32, 72), rng.uniform(60, 240), rng.uniform(45, 190)
    pixel = np.clip(np.array([[[hue, saturation, value]]]), (28, 50, 40), (75, 240, 200)).astype(np.uint8)
    colour = tuple(float(v) for v in cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0])
    shade = None
    if rng.random() < 0.3:
        edge = float(rng.uniform(-0.1, 1.1)) * geometry.width
        shade = (edge, edge + float(rng.normal(0, 12)), float(rng.uniform(0.3, 0.8)))
    apron: Colour
    kind = rng.random()
    if kind < 0.55:
        apron = (colour[0] * 0.85, colour[1] * 0.85, colour[2] * 0.9)
    elif kind < 0.7:
        apron = (float(rng.uniform(110, 170)), float(rng.uniform(55, 80)), float(rng.uniform(40, 70)))
    else:
        grey = float(rng.uniform(30, 130))
        apron = (grey, grey, grey)
    pattern = int(rng.choice([scenery.PLAIN, scenery.BANDS, scenery.CROSS_BANDS, scenery.CHECKS, scenery.DIAGONAL],
                             p=[0.22, 0.46, 0.12, 0.14, 0.06]))  # fmt: skip
    box = geometry.box_depth
    return Turf(
        colour=(colour[0], colour[1], colour[2]),
        dark=float(rng.uniform(0.78, 0.98)),
        pattern=pattern,
        band=float(rng.choice([box / 3, box / 2, geometry.length / 20, geometry.length / 18, rng.uniform(3, 12)])),
        cross_band=float(rng.uniform(3, 12)),
        mottle=float(rng.uniform(0.005, 0.05)),
        worn=float(rng.uniform(0.2, 0.9)) if rng.random() < 0.3 else 0.0,
        apron=apron,
        apron_from=float(rng.uniform(1.2, 5.0)),
        shade=shade,
        shade_far=bool(rng.random() < 0.4),
    )


def _word(rng: np.random.Generator) -> str:
    letters = rng.integers(65, 91, int(rng.integers(3, 10)))
    return "".join(chr(int(letter)) for letter in letters)


def _surroundings(rng: np.random.Generator, geometry: Geometry, light: float) -> Surroundings:
    fans = [_colour(rng) for _ in range(int(rng.integers(1, 4)))]
    others: list[Colour] = [(30, 30, 35), (60, 60, 70), (200, 195, 190), (150, 115, 95), (90, 85, 85)]
    crowd = Crowd(
        tuple(fans + others[: int(rng.integers(2, 6))]),
        _colour(rng),
        float(rng.choice([0.97, 0.85, 0.6, 0.2], p=[0.55, 0.25, 0.12, 0.08])),
        light,
    )
    same = rng.random() < 0.5
    palette = [(_colour(rng), _colour(rng)) for _ in range(1 if same else int(rng.integers(2, 6)))]
    words = tuple(_word(rng) for _ in range(1 if same else 6))
    bowl = Bowl(
        boards=float(rng.uniform(2.5, 7)),
        stand=float(rng.uniform(7.5, 13)),
        board_height=float(rng.uniform(0.8, 1.3)),
        slope=float(rng.uniform(0.35, 0.65)),
        lower=float(rng.uniform(8, 24)) if rng.random() < 0.95 else 0.0,
        upper=float(rng.uniform(8, 25)) if rng.random() < 0.6 else 0.0,
        roof=tuple(float(v) for v in np.array((60, 64, 70)) * light * rng.uniform(0.2, 2.5)),  # type: ignore[arg-type]
        near_stand=bool(rng.random() < 0.5),
    )
    facade_colours = ((_colour(rng), _colour(rng)), ((120.0, 120.0, 120.0), (235.0, 235.0, 235.0)))
    facade = scenery.board_texture((_word(rng), ""), facade_colours, 60, rng, panel=float(rng.uniform(6, 20)))
    dim = max(0.3, light)
    near_light = float(rng.uniform(0.1, 0.8))
    seats = scenery.crowd_texture(crowd, rng, 28, 260)
    return Surroundings(
        bowl,
        scenery.board_texture(words, tuple(palette), 90, rng, panel=float(rng.uniform(4, 14))),
        seats,
        np.ascontiguousarray(seats[:, ::-1]) if bowl.upper > 0 else seats,
        np.asarray(cv2.convertScaleAbs(facade, alpha=dim), np.uint8),
        np.asarray(cv2.convertScaleAbs(seats, alpha=near_light), np.uint8) if bowl.near_stand else None,
    )


def _lines(rng: np.random.Generator, image: Image, camera: Camera, geometry: Geometry, turf: Turf) -> None:
    polylines: list[Array] = [np.array(segment, np.float64) for segment in geometry.segments()]
    polylines += geometry.curves()
    scale = 4 if camera.height <= 480 else 3
    mask = ground_strokes(camera, polylines, geometry.spots(), line_width=float(rng.uniform(0.09, 0.16)), scale=scale)
    # Paint is never darker than the grass beside it.
    whiteness = min(max(float(rng.uniform(130, 250)), 1.35 * turf.colour[1]), 252.0)
    tint = rng.uniform(0.9, 1.0, 3)
    colour = (whiteness * tint[0], whiteness * tint[1], whiteness * tint[2])
    if turf.shade is not None:
        # The roof's shadow lies on the paint too: paint by how dark the grass under it is.
        under = image.astype(np.float32).mean(axis=2) / max(np.mean(turf.colour), 1.0)
        mask = np.asarray(mask * np.clip(under + 0.1, 0.35, 1), np.uint8)
    blend(image, mask, colour, float(rng.uniform(0.65, 1.0)))


_SKINS: tuple[Colour, ...] = ((215, 170, 140), (190, 140, 110), (140, 95, 70), (95, 65, 48), (70, 48, 38))
_HAIRS: tuple[Colour, ...] = ((30, 24, 20), (60, 42, 30), (110, 80, 50), (170, 140, 90), (120, 115, 110))


def _kit(rng: np.random.Generator) -> Kit:
    shirt, accent = _colour(rng), _colour(rng)
    shorts = shirt if rng.random() < 0.4 else _colour(rng)
    socks = shirt if rng.random() < 0.5 else _colour(rng)
    pattern = int(rng.choice(5, p=[0.55, 0.2, 0.1, 0.08, 0.07]))
    return Kit(shirt, shorts, socks, accent, pattern, sleeves=bool(rng.random() < 0.15))


def _dressed(rng: np.random.Generator, kit: Kit) -> Kit:
    """The same kit on another person."""
    return replace(
        kit,
        skin=_SKINS[int(rng.integers(len(_SKINS)))],
        hair=_HAIRS[int(rng.choice(len(_HAIRS), p=[0.45, 0.25, 0.15, 0.1, 0.05]))],
        shoes=_colour(rng),
    )


def _cast(rng: np.random.Generator, camera: Camera, geometry: Geometry) -> tuple[Array, list[Kit], list[int]]:
    """Who stands where: places float64 [n, 2], kits, classes (-1: bench and staff, people without a label)."""
    length, width = geometry.length, geometry.width
    # A camera follows the play: the heap of people is where it looks.
    looked = np.linalg.inv(camera.ground) @ (camera.width / 2, camera.height * rng.uniform(0.4, 0.65), 1)
    focus = np.clip(looked[:2] / looked[2] + rng.normal(0, 5, 2), (5, 8), (length - 5, width - 8))
    home, away = _kit(rng), _kit(rng)
    places: list[Array] = []
    kits: list[Kit] = []
    classes: list[int] = []

    def add(place: Array, kit: Kit, label: int) -> None:
        places.append(place)
        kits.append(_dressed(rng, kit))
        classes.append(label)

    spread = np.array([rng.uniform(8, 22), rng.uniform(8, 17)])
    missing = int(rng.choice([0, 0, 0, 1, 3]))
    for team in (home, away):
        for _ in range(10 - missing):
            add(np.clip(rng.normal(focus, spread), (-1, -1), (length + 1, width + 1)), team, PLAYER)
    if rng.random() < 0.3:
        # A wall, a corner: many on one spot.
        heap = np.clip(rng.normal(focus, 6, 2), (2, 2), (length - 2, width - 2))
        for _ in range(int(rng.integers(3, 10))):
            add(rng.normal(heap, (2.5, 2.0)), home if rng.random() < 0.5 else away, PLAYER)
    for side in (0.0, length):
        kit = replace(_kit(rng), pattern=figures.PLAIN, sleeves=bool(rng.random() < 0.7))
        out = abs(rng.normal(4, 4)) + 0.3
        add(np.array([abs(side - out), width / 2 + rng.normal(0, 4)]), kit, GOALKEEPER)
    dark = rng.random() < 0.5
    official = Kit((25, 25, 28), (20, 20, 22), (20, 20, 22)) if dark else replace(_kit(rng), shorts=(20, 20, 22))
    official = replace(official, pattern=figures.PLAIN)
    add(np.clip(rng.normal(focus, 10), (2, 2), (length - 2, width - 2)), official, REFEREE)
    for line in (-0.7, width + 0.7):
        add(np.array([np.clip(rng.normal(focus[0], 15), 0, length), line]), official, REFEREE)
    for _ in range(int(rng.integers(0, 7))):
        staff = replace(_kit(rng), shorts=(30, 30, 35), trousers=True, sleeves=True)
        line = width + rng.uniform(1.5, 5) if rng.random() < 0.7 else -rng.uniform(2, 4)
        add(np.array([length / 2 + rng.normal(0, 18), line]), staff, -1)
    return np.array(places), kits, classes


def _people(
    rng: np.random.Generator, image: Image, owner: npt.NDArray[np.uint8], camera: Camera, geometry: Geometry
) -> list[figures.Drawn]:
    """Draw everyone and the ball, in place; those that have a label."""
    places, kits, classes = _cast(rng, camera, geometry)
    count = len(classes)
    poses = Poses(
        places,
        rng.uniform(0, 2 * math.pi, count),
        rng.uniform(0, 2 * math.pi, count),
        np.clip(rng.gamma(1.6, 1.7, count), 0, 8),
        rng.normal(1.82, 0.07, count),
        np.where(rng.random(count) < 0.12, rng.random(count), 0.0),
    )
    bodies = figures.skeletons(poses)
    points, depth = camera.project(bodies)
    around = 60 + 0.1 * camera.width
    centre = points[:, figures.HIPS]
    inside = (depth.min(axis=1) > 2) & (np.abs(centre - (camera.width / 2, camera.height / 2)) < (
        camera.width / 2 + around, camera.height / 2 + around)).all(axis=1)  # fmt: skip
    unit = camera.pixels_per_metre(float(np.median(np.maximum(depth, 2))))
    if rng.random() < 0.4:
        suns = [(float(rng.uniform(-2, 2)), float(rng.uniform(-1.5, 1.5)))]
        strength, softness = float(rng.uniform(0.25, 0.6)), 0.03 * unit
    else:
        lamp = float(rng.uniform(0.3, 0.8))
        suns = [(sx * lamp, sy * lamp) for sx, sy in ((1, 0.6), (-1, 0.6), (1, -0.6), (-1, -0.6))]
        suns = suns[:: int(rng.integers(1, 3))]
        strength, softness = float(rng.uniform(0.05, 0.2)), 0.06 * unit
    shown = [int(index) for index in np.flatnonzero(inside)]
    if shown:
        figures.draw_shadows(image, camera, bodies[shown], suns, strength=strength, softness=softness)

    light, exposure = float(rng.uniform(-0.25, 0.25)), float(rng.uniform(0.65, 1.05))
    drawn: list[figures.Drawn] = []
    ball_place = _ball_place(rng, places, geometry)
    order = [(float(depth[i, figures.HIPS]), int(i)) for i in shown]
    order.append((float(camera.project(ball_place)[1]), count))
    scale = 4 if camera.focal / max(float(np.median(depth)), 5) * 1.8 < 60 else 3
    for _, index in sorted(order, reverse=True):
        label = BALL if index == count else classes[index]
        if index == count:
            streak = rng.normal(0, 0.25, 2) * unit if rng.random() < 0.35 else np.zeros(2)
            white = float(rng.uniform(200, 250))
            tint = _colour(rng) if rng.random() < 0.08 else (white, white, white * 0.96)
            sprite = figures.draw_ball(camera, ball_place, streak, tint)
        else:
            sprite = figures.draw_person(points[index], depth[index], camera, kits[index], light, scale=scale)
        if sprite is None:
            continue
        sprite.picture[..., :3] *= exposure
        whole = figures.lay(image, owner, sprite, index + 1)
        if label >= 0:
            drawn.append(figures.Drawn(index + 1, label, sprite.box, whole))
    return drawn


def _ball_place(rng: np.random.Generator, places: Array, geometry: Geometry) -> Array:
    kind = rng.random()
    if kind < 0.6:
        flat = places[int(rng.integers(0, 12))] + rng.normal(0, 0.9, 2)
    else:
        flat = rng.uniform((0, 0), (geometry.length, geometry.width))
    return np.array([flat[0], flat[1], 0.11 if rng.random() < 0.75 else rng.uniform(0.11, 6)])


def _optics(rng: np.random.Generator, image: Image) -> Image:
    if rng.random() < 0.25:
        image = optics.drag(image, float(rng.uniform(2, 5)) * image.shape[1] / 640, float(rng.normal(0, 0.25)))
    if rng.random() < 0.25:
        image = optics.rescale(image, float(rng.uniform(0.45, 0.9)))
    image = optics.soften(image, float(rng.gamma(2.0, 0.27)) * math.sqrt(image.shape[1] / 640))
    if rng.random() < 0.7:
        image = optics.sharpen(image, float(rng.uniform(0.2, 1.2)))
    if rng.random() < 0.5:
        image = optics.saturate(image, float(rng.uniform(0.7, 1.35)))
    gains = rng.normal(1, 0.06, 3) * rng.uniform(0.85, 1.15)
    lift = float(rng.uniform(0, 0.12)) if rng.random() < 0.3 else 0.0
    image = optics.tone(image, gains, float(math.exp(rng.normal(0, 0.16))), lift)
    return optics.add_grain(image, float(rng.gamma(1.2, 1.8)), rng)


def _overlays(rng: np.random.Generator, image: Image, owner: npt.NDArray[np.uint8]) -> None:
    """Scoreboard, clock, station logo, black bars over logos, watermarks, in place."""
    height, width = image.shape[:2]
    unit = width / 640

    def patch(x: float, y: float, w: float, h: float, colour: Colour) -> None:
        x0, y0, x1, y1 = (round(v * unit) for v in (x, y, x + w, y + h))
        cv2.rectangle(image, (x0, y0), (x1, y1), colour, -1)
        owner[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = _OVERLAY

    def text(words: str, x: float, y: float, size: float, colour: Colour) -> None:
        at = (round(x * unit), round(y * unit))
        font = scenery.FONTS[int(rng.integers(2))]
        cv2.putText(image, words, at, font, size * unit, colour, max(1, round(unit)), cv2.LINE_AA)

    bottom = height / unit
    if rng.random() < 0.6:
        x, y = float(rng.choice([12, 30, 330, 400])), float(rng.uniform(8, 24))
        wide, tall = float(rng.uniform(120, 240)), float(rng.uniform(11, 18))
        patch(x, y, wide, tall, _colour(rng))
        for share in np.sort(rng.uniform(0.1, 0.8, int(rng.integers(1, 4)))):
            patch(x + share * wide, y, wide * 0.18, tall, _colour(rng))
        text(_word(rng)[:3] + f" {rng.integers(5)} {rng.integers(5)}", x + 4, y + tall - 4, 0.32, _colour(rng))
        text(f"{rng.integers(90)}:{rng.integers(10, 60)}", x + wide - 36, y + tall - 4, 0.32, _colour(rng))
    if rng.random() < 0.35:
        x = float(rng.choice([20, 400, 440]))
        patch(x, float(rng.uniform(15, 30)), 218, 27, (0, 0, 0))
    if rng.random() < 0.25:
        patch(float(rng.uniform(20, 420)), bottom - float(rng.uniform(35, 60)), float(rng.uniform(100, 200)), 13,
              _colour(rng))  # fmt: skip
    if rng.random() < 0.4:
        # A watermark lets the picture through, so it hides nobody.
        ghost = image.copy()
        x, y = rng.uniform(20, 480), rng.choice([rng.uniform(30, 60), bottom - rng.uniform(10, 40)])
        cv2.putText(ghost, _word(rng) + _word(rng)[:4], (round(x * unit), round(y * unit)), scenery.FONTS[0],
                    rng.uniform(0.4, 0.9) * unit, (255, 255, 255), max(1, round(2 * unit)), cv2.LINE_AA)  # fmt: skip
        share = float(rng.uniform(0.25, 0.8))
        cv2.addWeighted(ghost, share, image, 1 - share, 0, image)
