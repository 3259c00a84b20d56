"""A made-up passage of play: where everyone and the ball are in every frame, in metres on the table's pitch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from demo.camera import Array
from demo.geometry import TABLE
from touchline.actions import INTERCEPTION, PASS, PASS_RECEIVED, SAVE, SHOT, Action

TEAM: Final = 11
HOME_KEEPER, AWAY_KEEPER, OFFICIAL, FAR_ASSISTANT, NEAR_ASSISTANT = 0, 11, 22, 23, 24
PEOPLE: Final = 25
TOP_SPEED: Final = 7.6
"""Metres a second that nobody exceeds."""

LENGTH, WIDTH = TABLE.length, TABLE.width
TOUCH: Final = 0.6
"""Metres from the foot where the ball is the carrier's."""
GOALS: Final = ((0.0, WIDTH / 2), (LENGTH, WIDTH / 2))
# 4-4-2, the home team's: share of the length from the own goal line, share of the width.
_FORMATION: Final = np.array([
    (0.04, 0.5),
    (0.24, 0.14), (0.20, 0.38), (0.20, 0.62), (0.24, 0.86),
    (0.44, 0.12), (0.40, 0.38), (0.40, 0.62), (0.44, 0.88),
    (0.60, 0.38), (0.60, 0.62),
])  # fmt: skip


@dataclass(frozen=True)
class Play:
    """Everything that moves. People: home keeper, ten home, away keeper, ten away, referee, far and near assistant."""

    places: Array
    """float64 [frames, 25, 2], metres."""
    headings: Array
    """float64 [frames, 25], radians."""
    phases: Array
    """float64 [frames, 25], radians of the running cycle."""
    speeds: Array
    """float64 [frames, 25], m/s."""
    raised: Array
    """float64 [frames, 25], 0 to 1: arms lifted."""
    ball: Array
    """float64 [frames, 3], metres; z is the height of its centre."""
    actions: tuple[Action, ...]
    """What happens, in order, under the subnet's names."""


class Game:
    """The state of the simulation while it is stepped forward."""

    cut_share = 0.08
    """Of all passes."""

    def __init__(self, rng: np.random.Generator, step: float) -> None:
        self.rng = rng
        self.step = step
        self.time = 0.0
        own = _FORMATION * (LENGTH, WIDTH)
        self.anchors = np.concatenate([own, (LENGTH, WIDTH) - own])
        self.places = np.zeros((PEOPLE, 2))
        self.places[:22] = self.anchors + rng.normal(0, 2, (22, 2))
        # Kick-off: each team in its own half.
        self.places[1:11, 0] = np.minimum(self.places[1:11, 0], LENGTH / 2 - 2)
        self.places[12:22, 0] = np.maximum(self.places[12:22, 0], LENGTH / 2 + 2)
        self.places[OFFICIAL] = (LENGTH / 2 - 7, WIDTH / 2 + 9)
        self.places[FAR_ASSISTANT] = (LENGTH * 0.7, -0.8)
        self.places[NEAR_ASSISTANT] = (LENGTH * 0.3, WIDTH + 0.8)
        self.velocity = np.zeros((PEOPLE, 2))
        self.wander = np.zeros((PEOPLE, 2))
        self.headings = rng.uniform(-math.pi, math.pi, PEOPLE)
        self.phases = rng.uniform(0, 2 * math.pi, PEOPLE)
        self.raised = np.zeros(PEOPLE)
        self.carrier = 9
        self.places[self.carrier] = (LENGTH / 2 - 0.6, WIDTH / 2)
        self.ball = np.array([LENGTH / 2, WIDTH / 2, 0.11])
        self.until = 0.6
        self.start, self.target = self.ball.copy(), self.ball.copy()
        self.began, self.duration, self.peak = 0.0, 0.0, 0.0
        self.flying = False
        self.actions: list[Action] = []
        self.awaited: str | None = None
        """What happens as soon as the carrier has the ball that is on its way."""

    def note(self, label: str) -> None:
        """This happens now."""
        self.actions.append(Action(round(self.time / self.step), label))

    @property
    def attack(self) -> int:
        """1 when the home team (which attacks to the right) has the ball, else -1."""
        return 1 if self.carrier < TEAM else -1

    def kick(self, receiver: int, target: Array, speed: float, peak: float) -> None:
        """Send the ball to a place; the receiver goes there."""
        self.start, self.target = self.ball.copy(), np.array([*target, 0.11])
        distance = float(np.hypot(*(self.target - self.start)[:2]))
        self.began, self.duration, self.peak = self.time, max(distance / speed, 0.35), peak
        self.flying, self.carrier = True, receiver

    @property
    def goal(self) -> Array:
        """The middle of the goal that is attacked."""
        return np.array(GOALS[1 if self.attack > 0 else 0])

    @property
    def mates(self) -> npt.NDArray[np.intp]:
        """The ten of the team that has the ball."""
        return np.arange(1, 11) if self.attack > 0 else np.arange(12, 22)

    @property
    def rivals(self) -> npt.NDArray[np.intp]:
        return np.arange(12, 22) if self.attack > 0 else np.arange(1, 11)

    def decide(self) -> None:
        """What the carrier does when the time on the ball is over."""
        rng, me, side, goal, mates = self.rng, self.carrier, self.attack, self.goal, self.mates
        place = self.places[me]
        if me in (HOME_KEEPER, AWAY_KEEPER):
            receiver = int(rng.choice(mates[4:]))
            self.note(PASS)
            self.kick(receiver, self.led(receiver, 2.0), 20.0, float(rng.uniform(6, 9)))
            self.awaited, self.until = PASS_RECEIVED, self.time + self.duration + 0.8
            return
        away = float(np.hypot(*(goal - place)))
        if away < 24 and abs(place[1] - goal[1]) < 17:
            self.shoot(away)
            return
        gap = self.places[mates] - place
        distance = np.hypot(gap[:, 0], gap[:, 1])
        worth = 1.1 * side * gap[:, 0] - 0.3 * np.abs(distance - 18) + rng.normal(0, 7, len(mates))
        worth[(mates == me) | (distance < 6) | (distance > 42)] = -1e9
        self.play_to(int(mates[int(np.argmax(worth))]))

    def shoot(self, away: float) -> None:
        """At the goal, `away` metres off. Keepers save everything: a goal needs a restart, and 30 seconds are short."""
        rng, side, goal = self.rng, self.attack, self.goal
        self.note(SHOT)
        keeper = AWAY_KEEPER if side > 0 else HOME_KEEPER
        guess = np.clip(self.places[keeper, 1] + rng.normal(0, 1.6), goal[1] - 3.2, goal[1] + 3.2)
        self.kick(keeper, np.array([goal[0] - side * 0.9, guess]), 20.0, min(0.6, 0.02 * away))
        self.awaited, self.until = SAVE, self.time + self.duration + 1.8

    def play_to(self, receiver: int) -> None:
        """A pass, which now and then a rival cuts off."""
        rng, place, rivals = self.rng, self.places[self.carrier], self.rivals
        self.note(PASS)
        self.awaited = PASS_RECEIVED
        target = self.led(receiver, 0.9)
        if rng.random() < self.cut_share:
            reach = np.hypot(*(self.places[rivals] - target).T)
            receiver = int(rivals[int(np.argmin(reach))])
            target = (target + self.places[receiver]) / 2
            self.awaited = INTERCEPTION
        far = float(np.hypot(*(target - place)))
        self.kick(receiver, target, 15.0 if far < 26 else 19.0, 0.0 if far < 26 else far / 9)
        self.until = self.time + self.duration + float(rng.uniform(0.3, 1.2))

    def led(self, receiver: int, seconds: float) -> Array:
        """Where a pass to someone should go: some way ahead of the run, inside the lines."""
        side = 1 if receiver < TEAM else -1
        ahead = self.places[receiver] + self.velocity[receiver] * seconds + (side * self.rng.uniform(0, 7), 0)
        return np.asarray(np.clip(ahead, (4, 3), (LENGTH - 4, WIDTH - 3)), np.float64)

    def targets(self) -> tuple[Array, Array]:
        """Where everyone wants to be, float64 [25, 2], and how fast at most, float64 [25]."""
        ball = self.ball[:2]
        want = np.zeros((PEOPLE, 2))
        pace = np.full(PEOPLE, 5.2)
        push = np.where(np.arange(22) < TEAM, 1.0, -1.0)
        press = np.where(push == self.attack, 7.0, -2.0) * push
        want[:22, 0] = self.anchors[:, 0] + 0.62 * (ball[0] - LENGTH / 2) + press
        want[:22, 1] = self.anchors[:, 1] + 0.42 * (ball[1] - self.anchors[:, 1]) * 0.8
        want[:22, 0] = np.clip(want[:22, 0], 6, LENGTH - 6)
        want[:22] += self.wander[:22]
        for keeper, (goal_x, goal_y) in zip((HOME_KEEPER, AWAY_KEEPER), GOALS, strict=True):
            out = 1.5 + 0.06 * abs(ball[0] - goal_x)
            want[keeper] = (abs(goal_x - out), goal_y + 0.13 * (ball[1] - goal_y))
            pace[keeper] = 4.5
        rivals = np.arange(12, 22) if self.attack > 0 else np.arange(1, 11)
        near = rivals[np.argsort(np.hypot(*(self.places[rivals] - ball).T))[:3]]
        own_goal = np.array(GOALS[1 if self.attack > 0 else 0])
        to_goal = (own_goal - ball) / max(float(np.hypot(*(own_goal - ball))), 1e-6)
        for rank, rival in enumerate(near):
            want[rival] = ball + to_goal * (1.6 + 3.2 * rank) + self.wander[rival] * 0.2
            pace[rival] = 6.8 - 0.6 * rank
        if self.flying:
            want[self.carrier], pace[self.carrier] = self.target[:2], TOP_SPEED
        elif self.carrier not in (HOME_KEEPER, AWAY_KEEPER):
            goal = np.array(GOALS[1 if self.attack > 0 else 0])
            ahead = goal - self.places[self.carrier]
            want[self.carrier] = self.places[self.carrier] + ahead / np.hypot(*ahead) * 8 + self.wander[self.carrier]
            pace[self.carrier] = 5.0
        want[OFFICIAL] = ball + np.array([-self.attack * 9, 9 if ball[1] < WIDTH * 0.6 else -9])
        pace[OFFICIAL] = 5.8
        for assistant, low, high, line in (
            (FAR_ASSISTANT, LENGTH / 2, LENGTH, -0.8),
            (NEAR_ASSISTANT, 0.0, LENGTH / 2, WIDTH + 0.8),
        ):
            defenders = np.sort(self.places[12:22, 0])[-1] if low > 0 else np.sort(self.places[1:11, 0])[0]
            want[assistant] = (np.clip(defenders, low, high), line)
        return want, pace

    def move(self) -> None:
        """One step for everyone: towards the target, apart from each other, within what legs can do."""
        rng, step = self.rng, self.step
        self.wander += -self.wander * step / 2.5 + rng.normal(0, 2.2 * math.sqrt(step), self.wander.shape)
        want, pace = self.targets()
        gap = want - self.places
        wish = gap * 0.9
        speed = np.hypot(wish[:, 0], wish[:, 1])
        wish *= np.minimum(1, pace / np.maximum(speed, 1e-6))[:, None]
        between = self.places[:, None] - self.places[None]
        distance = np.hypot(between[..., 0], between[..., 1]) + np.eye(PEOPLE) * 99
        wish += (between * (np.clip(1.8 - distance, 0, None) / np.maximum(distance, 0.1))[..., None]).sum(axis=1) * 2.5
        change = wish - self.velocity
        rate = np.hypot(change[:, 0], change[:, 1])
        self.velocity += change * np.minimum(1, 5.5 * step / np.maximum(rate, 1e-6))[:, None]
        self.velocity[[FAR_ASSISTANT, NEAR_ASSISTANT], 1] = 0
        speed = np.hypot(self.velocity[:, 0], self.velocity[:, 1])
        self.velocity *= np.minimum(1, TOP_SPEED / np.maximum(speed, 1e-6))[:, None]
        speed = np.minimum(speed, TOP_SPEED)
        self.places += self.velocity * step
        ball_way = self.ball[:2] - self.places
        facing = np.where(
            speed > 1.6,
            np.arctan2(self.velocity[:, 1], self.velocity[:, 0]),
            np.arctan2(ball_way[:, 1], ball_way[:, 0]),
        )
        turn = (facing - self.headings + math.pi) % (2 * math.pi) - math.pi
        self.headings += np.clip(turn, -7 * step, 7 * step)
        self.phases += 2 * math.pi * (0.25 + 0.36 * np.sqrt(speed)) * np.clip(speed / 0.8, 0.05, 1) * step
        reach = np.zeros(PEOPLE)
        for keeper in (HOME_KEEPER, AWAY_KEEPER):
            if self.carrier == keeper and (self.flying or self.until - self.time > 1.0):
                reach[keeper] = 0.8
        self.raised += np.clip(reach - self.raised, -3 * step, 3 * step)

    def roll(self) -> None:
        """One step for the ball."""
        if self.flying:
            share = (self.time - self.began) / self.duration
            if share < 1:
                # Passes lose speed on their way.
                eased = 1 - (1 - share) ** 1.15
                self.ball = self.start + (self.target - self.start) * eased
                self.ball[2] = max(0.11, self.ball[2] + 4 * self.peak * share * (1 - share))
                return
            self.flying = False
        me = self.carrier
        ahead = np.array([math.cos(self.headings[me]), math.sin(self.headings[me])])
        keeper = me in (HOME_KEEPER, AWAY_KEEPER)
        at = self.places[me] + ahead * (0.45 if keeper else 0.75 + 0.3 * math.sin(self.phases[me] * 2))
        goal = np.array([*at, 1.0 if keeper else 0.11])
        # The first touch takes a moment: the ball comes to the foot, it does not jump.
        way = goal - self.ball
        length = float(np.sqrt((way**2).sum()))
        limit = (9.5 if keeper else 9.0) * self.step
        self.ball = self.ball + way * min(1.0, limit / max(length, 1e-9))
        if self.awaited is not None and length < TOUCH:
            self.note(self.awaited)
            self.awaited = None


def simulate(seed: int, frames: int, fps: float, kind: type[Game] = Game) -> Play:
    """A passage of play from kick-off on, the same for the same arguments."""
    game = kind(np.random.default_rng((seed, 12)), 1 / fps)
    places = np.zeros((frames, PEOPLE, 2))
    headings, phases, speeds, raised = (np.zeros((frames, PEOPLE)) for _ in range(4))
    ball = np.zeros((frames, 3))
    for number in range(frames):
        places[number], headings[number], phases[number] = game.places, game.headings, game.phases
        speeds[number] = np.hypot(game.velocity[:, 0], game.velocity[:, 1])
        raised[number], ball[number] = game.raised, game.ball
        game.time += game.step
        if not game.flying and game.time >= game.until:
            game.decide()
        game.move()
        game.roll()
    actions = tuple(sorted(action for action in game.actions if action.frame < frames))
    return Play(places, headings, phases, speeds, raised, ball, actions)


def smooth(values: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    """Gaussian smoothing along the first axis, sigma in samples, ends held."""
    reach = max(1, math.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(values, [(reach, reach), *[(0, 0)] * (values.ndim - 1)], mode="edge")
    return np.asarray(np.apply_along_axis(np.convolve, 0, padded, kernel / kernel.sum(), mode="valid"), np.float64)
