"""A livelier passage of play: loose balls, balls over the lines, shots that miss, goals."""

from __future__ import annotations

from typing import Final

import numpy as np

from demo.camera import Array
from demo.geometry import GOAL_WIDTH
from demo.play import AWAY_KEEPER, GOALS, HOME_KEEPER, LENGTH, TOP_SPEED, WIDTH, Game
from touchline.actions import GOAL, OUT_OF_PLAY, PASS, PASS_RECEIVED, RECOVERY, SHOT

REST_S: Final = 1.2
"""So long a ball that is out lies there before anybody goes for it."""
_REACH: Final = 1.0
_BALL_RADIUS: Final = 0.11
_SHOOTING_DISTANCE: Final = 33.0


class LivelyGame(Game):
    """After a ball is out it is thrown in or kicked from the goal; after a goal it is kicked off."""

    cut_share = 0.14
    loose_share = 0.10
    """Of all passes: they end where nobody is, and a rival gets there first."""
    astray_share = 0.18
    """Of all passes: they end beyond the side line."""
    wide_share, goal_share = 0.35, 0.35
    """Of all shots."""

    loose = False
    """The ball lies somewhere, and the carrier is on the way to it."""
    dead = False
    """Out, or in the net: nothing that happens counts before it is played again."""
    restart: Array | None = None
    """Where the carrier takes a dead ball to; None: he plays it where he finds it."""
    rest_until = 0.0

    def decide(self) -> None:
        if self.loose:
            return
        if self.dead:
            self._play_again()
            return
        place, goal = self.places[self.carrier], self.goal
        away = float(np.hypot(*(goal - place)))
        keeper = self.carrier in (HOME_KEEPER, AWAY_KEEPER)
        if not keeper and away < _SHOOTING_DISTANCE and abs(place[1] - goal[1]) < 22:
            self.shoot(away)
            return
        super().decide()

    def shoot(self, away: float) -> None:
        """Wide, in, or into the keeper's hands."""
        rng, side, goal = self.rng, self.attack, self.goal
        keeper = AWAY_KEEPER if side > 0 else HOME_KEEPER
        chance = rng.random()
        if chance > self.wide_share + self.goal_share:
            super().shoot(away)
            return
        self.note(SHOT)
        up = 1.0 if rng.random() < 0.5 else -1.0
        scored = chance > self.wide_share
        across = up * (rng.uniform(1.4, 3.2) if scored else rng.uniform(GOAL_WIDTH / 2 + 1.5, 9.0))
        depth = 1.4 if scored else rng.uniform(2.0, 3.5)
        self.kick(keeper, np.array([goal[0] + side * depth, goal[1] + across]), 21.0, min(0.6, 0.02 * away))
        self._lost(RECOVERY, self.time + self.duration + (2.5 if scored else REST_S))
        if scored:
            self.restart = np.array([LENGTH / 2, WIDTH / 2])
            conceding = np.arange(12, 22) if side > 0 else np.arange(1, 11)
            self.carrier = int(conceding[-1])
        else:
            self.restart = np.array([goal[0] - side * 5.0, goal[1] + up * 7.0])

    def play_to(self, receiver: int) -> None:
        """A pass to somebody, to nobody or over the side line."""
        rng, place = self.rng, self.places[self.carrier]
        chance = rng.random()
        beside = min(self.places[receiver, 1], WIDTH - self.places[receiver, 1]) < 18
        if chance < self.astray_share and beside:
            self.note(PASS)
            line = -1.0 if self.places[receiver, 1] < WIDTH / 2 else 1.0
            beyond = WIDTH / 2 + line * (WIDTH / 2 + rng.uniform(1.5, 3.0))
            target = np.array([np.clip(self.places[receiver, 0] + rng.normal(0, 4), 8, LENGTH - 8), beyond])
            thrower = self._nearest_rival(target)
            self.kick(thrower, target, 15.0, 0.0)
            self._lost(RECOVERY, self.time + self.duration + REST_S)
        elif chance > 1 - self.loose_share:
            away = self.places[receiver] + rng.uniform(6, 11) * _direction(rng.uniform(-np.pi, np.pi))
            target = np.clip(away, (6, 5), (LENGTH - 6, WIDTH - 5))
            if np.hypot(*(target - place)) < 8:
                super().play_to(receiver)
                return
            self.note(PASS)
            winner = self._nearest_rival(target)
            self.kick(winner, target, 11.0, 0.0)
            self._lost(RECOVERY, self.time + self.duration)
        else:
            super().play_to(receiver)

    def targets(self) -> tuple[Array, Array]:
        want, pace = super().targets()
        if self.loose or self.dead:
            me = self.carrier
            waits = self.time < self.rest_until
            goes_to = self.restart if self.restart is not None and not self.loose else self.ball[:2]
            way = goes_to - self.places[me]
            # Aims behind it: whoever runs to a place slows down before.
            want[me] = goes_to + way / max(float(np.hypot(*way)), 1e-6) * 3
            pace[me] = 0.5 if waits else (5.5 if self.dead else TOP_SPEED)
            if not self.loose and self.restart is None:
                want[me], pace[me] = self.places[me], 0.2
        return want, pace

    def roll(self) -> None:
        before = self.ball.copy()
        if not self.loose:
            super().roll()
        elif self.flying:
            self._fly()
        elif self.time >= self.rest_until and np.hypot(*(self.places[self.carrier] - self.ball[:2])) < _REACH:
            self._picked_up()
        if self.loose and not self.dead:
            self._watch_lines(before)
        taken_to = self.restart if self.dead and not self.loose else None
        if taken_to is not None and np.hypot(*(self.places[self.carrier] - taken_to)) < 1.0:
            self.restart = None
            self.until = self.time + 1.2

    def _fly(self) -> None:
        """A loose ball slows down until it lies."""
        share = (self.time - self.began) / self.duration
        if share >= 1:
            self.flying = False
            return
        ball = self.start + (self.target - self.start) * (1 - (1 - share) ** 1.5)
        ball[2] = max(_BALL_RADIUS, ball[2] + 4 * self.peak * share * (1 - share))
        self.ball = ball

    def _lost(self, awaited: str, rest_until: float) -> None:
        self.loose, self.awaited, self.rest_until = True, awaited, rest_until
        self.duration *= 1.25
        self.until = float("inf")

    def _picked_up(self) -> None:
        self.loose = False
        if self.dead:
            self.awaited = None
            self.until = float("inf") if self.restart is not None else self.time + 1.0
            return
        if self.awaited is not None:
            self.note(self.awaited)
            self.awaited = None
        self.until = self.time + float(self.rng.uniform(0.4, 1.2))

    def _watch_lines(self, before: Array) -> None:
        x, y = self.ball[:2]
        over = (x < -_BALL_RADIUS, x > LENGTH + _BALL_RADIUS, y < -_BALL_RADIUS, y > WIDTH + _BALL_RADIUS)
        if not any(over):
            return
        self.dead = True
        if (over[0] or over[1]) and abs(y - GOALS[0][1]) < GOAL_WIDTH / 2:
            self.note(GOAL)
        else:
            self.note(OUT_OF_PLAY)

    def _play_again(self) -> None:
        """The throw-in, the goal kick or the kick-off: a pass to somebody near or, of a keeper, far away."""
        self.dead, rng, me = False, self.rng, self.carrier
        self.note(PASS)
        mates = self.mates[self.mates != me]
        apart = np.hypot(*(self.places[mates] - self.places[me]).T)
        keeper = me in (HOME_KEEPER, AWAY_KEEPER)
        receiver = int(rng.choice(mates[4:] if keeper else mates[np.argsort(apart)[:3]]))
        target = self.led(receiver, 0.5)
        self.kick(receiver, target, 20.0 if keeper else 12.0, float(rng.uniform(6, 9)) if keeper else 1.0)
        self.awaited, self.until = PASS_RECEIVED, self.time + self.duration + 0.8

    def _nearest_rival(self, target: Array) -> int:
        rivals = self.rivals
        return int(rivals[int(np.argmin(np.hypot(*(self.places[rivals] - target).T)))])


def _direction(angle: float) -> Array:
    return np.array([np.cos(angle), np.sin(angle)])
