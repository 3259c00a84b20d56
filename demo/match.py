"""The demo match: a passage of play seen by a broadcast camera, any frame on demand, with its truth."""

from __future__ import annotations

import math
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from demo import figures, optics, play, scenery
from demo.camera import Array, Camera, keypoint_rows
from demo.canvas import Colour, Image, blend, ground_strokes
from demo.figures import Kit, Poses
from demo.geometry import TABLE
from demo.lively import LivelyGame
from demo.scenery import Bowl, Crowd, Surroundings, Turf
from demo.truth import Truth
from touchline.contract import BALL, GOALKEEPER, PLAYER, REFEREE

BALL_ID = play.PEOPLE + 1
"""People have the ids 1 to 25 (home keeper, home, away keeper, away, referee, far and near assistant)."""

_MARGIN = 12.0
_RESOLUTION = 0.125
_POSITION = (TABLE.length / 2, TABLE.width + 32.0, 19.0)
_LEAST_KEYPOINTS = 6
_OVERLAY = 255

_HOME = Kit((196.0, 28.0, 38.0), (238.0, 238.0, 238.0), (196.0, 28.0, 38.0), (250.0, 250.0, 250.0))
_AWAY = Kit((236.0, 236.0, 232.0), (24.0, 32.0, 84.0), (236.0, 236.0, 232.0), (24.0, 32.0, 84.0), figures.STRIPES)
_HOME_KEEPER = Kit((246.0, 206.0, 40.0), (40.0, 40.0, 40.0), (246.0, 206.0, 40.0), (20.0, 20.0, 20.0), sleeves=True)
_AWAY_KEEPER = Kit((40.0, 190.0, 214.0), (40.0, 190.0, 214.0), (40.0, 190.0, 214.0), (20.0, 20.0, 20.0), sleeves=True)
_OFFICIAL = Kit((26.0, 26.0, 30.0), (22.0, 22.0, 24.0), (22.0, 22.0, 24.0), (230.0, 230.0, 60.0))
_SKINS: tuple[Colour, ...] = ((215, 170, 140), (190, 140, 110), (140, 95, 70), (95, 65, 48))
_HAIRS: tuple[Colour, ...] = ((30, 24, 20), (70, 48, 32), (150, 115, 70), (30, 24, 20))
_LAMPS = ((0.55, 0.35), (-0.55, 0.35), (0.5, -0.45), (-0.5, -0.45))


class Match:
    """A synthetic match: `frame(n)` renders frame n. Same seed, same bytes, whatever the order of calls."""

    def __init__(
        self,
        seed: int = 44,
        frames: int = 750,
        width: int = 1280,
        height: int = 720,
        fps: int = 25,
        *,
        lively: bool = False,
    ) -> None:
        """`lively`: with loose balls, balls over the lines and goals, for those who look for actions."""
        if frames < 1:
            raise ValueError("a match has at least one frame")
        self.seed, self.frames, self.width, self.height, self.fps = seed, frames, width, height, fps
        self.lively = lively
        self.play = play.simulate(seed, frames, fps, LivelyGame if lively else play.Game)
        self.cameras = _follow(self.play, width, height, fps)
        rng = np.random.default_rng((seed, 1))
        self._heights = rng.normal(1.83, 0.06, play.PEOPLE)
        self._kits = _dress(rng)

    @cached_property
    def _grass(self) -> Image:
        turf = Turf(colour=(84.0, 128.0, 52.0), dark=0.86, band=TABLE.length / 22, mottle=0.022, worn=0.25)
        return scenery.grass(TABLE, turf, _MARGIN, _RESOLUTION, np.random.default_rng((self.seed, 2)))

    @cached_property
    def _around(self) -> Surroundings:
        rng = np.random.default_rng((self.seed, 3))
        people: tuple[Colour, ...] = ((190, 40, 45), (215, 215, 210), (40, 42, 55), (70, 72, 80), (150, 60, 55),
                                      (60, 80, 130), (120, 110, 100))  # fmt: skip
        crowd = Crowd(people, (105.0, 40.0, 42.0), 0.92, 0.5)
        words = ("TOUCHLINE", "SUBNET 44", "OFFSIDE", "KICK-OFF", "THE DUGOUT", "FULL TIME")
        colours: tuple[tuple[Colour, Colour], ...] = (
            ((24, 40, 120), (240, 240, 240)), ((235, 235, 235), (180, 25, 35)), ((18, 18, 22), (245, 205, 40)),
            ((170, 25, 40), (245, 245, 245)), ((15, 95, 75), (240, 240, 240)),
        )  # fmt: skip
        facade = scenery.board_texture(("", "TOUCHLINE"), (((70, 72, 78), (200, 200, 200)),), 90, rng, panel=15)
        return Surroundings(
            Bowl(boards=4.5, stand=8.0, lower=16.0, upper=20.0, slope=0.5),
            scenery.board_texture(words, colours, 126, rng, panel=10.5),
            scenery.crowd_texture(crowd, rng, 30, 270, zoom=5),
            scenery.crowd_texture(crowd, rng, 36, 270, zoom=5),
            facade,
        )

    def frame(self, number: int, omit: int | None = None) -> tuple[Image, Truth]:
        """Frame `number` as uint8 RGB [height, width, 3], and its truth.

        `omit` leaves out the picture of one id (its shadow stays): what that object covers can be measured with it.
        Raises IndexError outside 0 to frames - 1.
        """
        if not 0 <= number < self.frames:
            raise IndexError(f"frame {number} of {self.frames}")
        camera = self.cameras[number]
        image = np.empty((self.height, self.width, 3), np.uint8)
        owner = np.zeros((self.height, self.width), np.uint8)
        scenery.stands(image, camera, TABLE, self._around)
        scenery.lay_ground(image, camera, self._grass, _MARGIN, _RESOLUTION)
        scenery.board_rows(image, camera, TABLE, self._around)
        lines = [np.array(segment, np.float64) for segment in TABLE.segments()] + TABLE.curves()
        blend(
            image, ground_strokes(camera, lines, TABLE.spots(), line_width=0.12, scale=3), (236.0, 238.0, 232.0), 0.92
        )
        scenery.goal_frames(image, camera, TABLE, 0.35)
        drawn = self._draw(number, camera, image, owner, omit)
        image = optics.soften(image, 0.55 * self.width / 1280)
        image = optics.sharpen(image, 0.35)
        image = optics.add_grain(image, 1.6, np.random.default_rng((self.seed, 4, number)))
        self._scoreboard(image, owner, number)
        keypoints = keypoint_rows(camera, TABLE.keypoints())
        return image, Truth(number, *figures.visible(owner, drawn), keypoints, camera.homography_cm)

    def _draw(
        self, number: int, camera: Camera, image: Image, owner: npt.NDArray[np.uint8], omit: int | None
    ) -> list[figures.Drawn]:
        """Draw people and ball far to near, in place; in the order of their ids."""
        scene = self.play
        bodies = figures.skeletons(
            Poses(
                scene.places[number],
                scene.headings[number],
                scene.phases[number],
                scene.speeds[number],
                self._heights,
                scene.raised[number],
            )
        )
        points, depth = camera.project(bodies)
        figures.draw_shadows(image, camera, bodies, _LAMPS, strength=0.16)
        ball = scene.ball[number]
        speck = np.full((1, figures.JOINTS, 3), (ball[0], ball[1], 0.0))
        figures.draw_shadows(image, camera, speck, [(0, 0)], strength=0.4)
        before, after = scene.ball[max(number - 1, 0)], scene.ball[min(number + 1, self.frames - 1)]
        path, _ = camera.project(np.stack([before, after]))
        # A shutter that is open for a quarter of the frame time.
        streak = (path[1] - path[0]) / 2 * 0.25
        order = [(float(depth[i, figures.HIPS]), i + 1) for i in range(play.PEOPLE)]
        order.append((float(camera.project(ball)[1]), BALL_ID))
        drawn = []
        for _, name in sorted(order, reverse=True):
            if name == BALL_ID:
                sprite = figures.draw_ball(camera, ball, streak)
            else:
                sprite = figures.draw_person(points[name - 1], depth[name - 1], camera, self._kits[name - 1], 0.12)
            if sprite is None:
                continue
            if name != omit:
                whole = figures.lay(image, owner, sprite, name)
                drawn.append(figures.Drawn(name, _label(name), sprite.box, whole))
        return sorted(drawn)

    def _scoreboard(self, image: Image, owner: npt.NDArray[np.uint8], number: int) -> None:
        """Score and clock in the corner, in place."""
        unit = self.width / 1280
        seconds = 12 * 60 + number // self.fps
        left, top, tall = 48, 30, 30

        def patch(x: int, wide: int, colour: Colour) -> None:
            x0, y0, x1, y1 = (round(v * unit) for v in (left + x, top, left + x + wide, top + tall))
            cv2.rectangle(image, (x0, y0), (x1, y1), colour, -1)
            owner[y0 : y1 + 1, x0 : x1 + 1] = _OVERLAY

        def text(words: str, x: int, colour: Colour) -> None:
            at = (round((left + x) * unit), round((top + 22) * unit))
            cv2.putText(image, words, at, cv2.FONT_HERSHEY_DUPLEX, 0.62 * unit, colour, 1, cv2.LINE_AA)

        patch(0, 80, (24, 28, 40))
        patch(80, 64, (196, 28, 38))
        patch(144, 60, (240, 240, 240))
        patch(204, 64, (24, 32, 84))
        text(f"{seconds // 60:02d}:{seconds % 60:02d}", 10, (240, 240, 240))
        text("TCH", 92, (255, 255, 255))
        text("0 - 0", 150, (20, 20, 24))
        text("LNE", 216, (255, 255, 255))


def _label(name: int) -> int:
    if name == BALL_ID:
        return BALL
    if name - 1 in (play.HOME_KEEPER, play.AWAY_KEEPER):
        return GOALKEEPER
    return REFEREE if name - 1 >= play.OFFICIAL else PLAYER


def _dress(rng: np.random.Generator) -> list[Kit]:
    kits = []
    for index in range(play.PEOPLE):
        if index == play.HOME_KEEPER:
            kit = _HOME_KEEPER
        elif index == play.AWAY_KEEPER:
            kit = _AWAY_KEEPER
        elif index >= play.OFFICIAL:
            kit = _OFFICIAL
        else:
            kit = _HOME if index < play.TEAM else _AWAY
        shoes = (40.0, 40.0, 40.0) if rng.random() < 0.5 else (230.0, 120.0, 40.0)
        skin, hair = _SKINS[int(rng.integers(len(_SKINS)))], _HAIRS[int(rng.integers(len(_HAIRS)))]
        kits.append(Kit(kit.shirt, kit.shorts, kit.socks, kit.accent, kit.pattern, skin, hair, shoes,
                        sleeves=kit.sleeves))  # fmt: skip
    return kits


def _aim(focus: Array, seen: float, width: int, height: int) -> Camera:
    """The gantry camera turned to a place on the ground, so that `seen` metres fit across the picture there."""
    gap_x, gap_y = focus[0] - _POSITION[0], _POSITION[1] - focus[1]
    distance = math.hypot(gap_x, gap_y)
    focal = width * math.hypot(distance, _POSITION[2]) / seen
    return Camera(_POSITION, math.atan2(gap_x, gap_y), math.atan2(_POSITION[2], distance), focal, width, height)


def _follow(scene: play.Play, width: int, height: int, fps: float) -> list[Camera]:
    """A camera operator: keeps the ball in the picture, moves softly, zooms in towards the goals.

    Where the wanted zoom would leave fewer than six landmarks in the picture it stays wider, as far as that helps.
    """
    ball = scene.ball
    # Long lenses at the ends, the whole width of the pitch in the middle.
    end = np.clip((np.abs(ball[:, 0] - TABLE.length / 2) - 12) / 30, 0, 1)
    across = TABLE.width / 2 + 9.5 - 7 * end + 0.15 * (ball[:, 1] - TABLE.width / 2)
    along = np.clip(ball[:, 0] + (ball[:, 0] - TABLE.length / 2) * 0.06, 13, TABLE.length - 13)
    focus = np.stack([along, across], axis=1)
    focus = play.smooth(focus, 0.8 * fps)
    landmarks = TABLE.keypoints()
    seen = np.zeros(len(focus))
    for number, place in enumerate(focus):
        close = np.clip((abs(place[0] - TABLE.length / 2) - 12) / 30, 0, 1)
        want = 56 - 12 * close * close * (3 - 2 * close)
        for widened in np.arange(want, 72, 2.0):
            seen[number] = widened
            if keypoint_rows(_aim(place, widened, width, height), landmarks)[:, 2].sum() >= _LEAST_KEYPOINTS:
                break
        else:
            seen[number] = want
    # The widest framing of the near future and past, softly: a zoom must not undo what the search found.
    window = round(0.6 * fps)
    padded = np.pad(seen, window, mode="edge")
    widest = np.lib.stride_tricks.sliding_window_view(padded, 2 * window + 1).max(axis=1)
    seen = play.smooth(widest, 0.7 * fps)
    return [_aim(place, float(reach), width, height) for place, reach in zip(focus, seen, strict=True)]
