"""What happened in a clip, told from where everybody and the ball were: rules over a Scene, no model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from gateway.scene import HANDS_CM, NO_TEAM, Points, Scene
from touchline.actions import (
    GOAL,
    INTERCEPTION,
    OUT_OF_PLAY,
    PASS,
    PASS_RECEIVED,
    RECOVERY,
    SAVE,
    SHOT,
    Action,
)

NEAR_CM: Final = 160.0
"""So far from the feet the ball costs as much as ..."""
WITH_CM_S: Final = 600.0
"""... moving so much faster than they do."""
FREE: Final = 1.6
"""What a frame costs in which nobody has the ball."""
CHANGE: Final = 1.0
"""What it costs that somebody else has it; half of it to lose it to nobody."""
UNSURE: Final = 0.05
"""What a frame costs in which somebody is said to have a ball that is not seen, more than to say nothing."""
_UNSEEN: Final = 6.0
SMOOTH_S: Final = 0.08
GAP_S: Final = 1.2
"""A ball that is out of sight for no longer has gone straight on."""
FLIGHT_CM: Final = 300.0
"""A ball that moved less between two people was not played."""
CUT_OFF_CM_S: Final = 650.0
"""A ball that comes faster to a rival was meant for somebody else; a slower one was nobody's."""
LONGEST_PASS_S: Final = 4.0
"""Between two who were seen with the ball: later somebody else had it meanwhile."""
SHOT_CM_S: Final = 1250.0
SHOT_CM: Final = 3700.0
LOST_S: Final = 0.6
LOST_CM: Final = 1500.0
"""A ball that is played at the goal and gets out of sight so close to it has been a shot."""
GOAL_CM: Final = 732.0
WIDE_CM: Final = 1000.0
"""From the middle of the goal: further off a ball over the goal line was no shot."""
OUT_CM: Final = 40.0
"""A ball that is no further over a line may be on it."""
OUT_S: Final = 0.4
HANDS_S: Final = 0.6
IN_HANDS_CM: Final = HANDS_CM + 50.0
REST_CM_S: Final = 300.0
RESTART_CM: Final = 500.0
"""So far outside a ball may be played again from, and so far from the centre spot after a goal."""
ANSWERED: Final = frozenset({PASS, PASS_RECEIVED, SHOT, GOAL})
"""Labels whose precision pays as the bundled models see synthetic clips, see docs/private-track.md."""


class Spell(NamedTuple):
    """Somebody has the ball."""

    person: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Crossing:
    """The ball leaves the pitch."""

    frame: int
    goal: bool
    over_goal_line: bool


def spotted(scene: Scene) -> list[Action]:
    """What is answered, in frame order."""
    return [action for action in everything(scene) if action.label in ANSWERED]


def everything(scene: Scene) -> list[Action]:
    """All that the rules see, in frame order."""
    if not len(scene.ball):
        return []
    seen = smoothed(scene.ball, SMOOTH_S * scene.fps)
    ball = smoothed(without_gaps(scene.ball, round(GAP_S * scene.fps)), SMOOTH_S * scene.fps)
    speed = velocity(ball, scene.fps)
    held = spells(scene, ball, speed)
    found: list[Action] = []
    crossings = crossings_of(scene, seen, speed, held)
    dead: Crossing | None = None
    marks: list[Spell | Crossing] = sorted(
        [*held, *crossings], key=lambda mark: mark.frame if isinstance(mark, Crossing) else mark.first
    )
    for index, mark in enumerate(marks):
        after = marks[index + 1] if index + 1 < len(marks) else None
        if isinstance(mark, Crossing):
            if dead is None:
                found.append(Action(mark.frame, GOAL if mark.goal else OUT_OF_PLAY))
                dead = mark
            continue
        if isinstance(after, Spell) and after.person == mark.person:
            continue
        if dead is not None:
            if not _plays_again(scene, ball, mark, after, dead):
                continue
            dead = None
        found.extend(_played(scene, ball, speed, mark, after))
    return sorted(found)


def without_gaps(places: Points, longest: int) -> Points:
    """float64 [frames, 2] with gaps of at most `longest` frames filled in on a line: a ball at somebody's feet is often
    hidden by them, and comes to sight again where they are then."""
    known = np.flatnonzero(np.isfinite(places).all(axis=1))
    filled = places.copy()
    for before, after in pairwise(known.tolist()):
        if 1 < after - before <= longest + 1:
            share = np.arange(1, after - before)[:, None] / (after - before)
            filled[before + 1 : after] = (1 - share) * places[before] + share * places[after]
    return filled


def smoothed(places: Points, sigma: float) -> Points:
    """Gaussian means of float64 [frames, ...] along time, sigma in frames, over what is known; NaN stays NaN."""
    reach = min(max(1, round(2 * sigma)), max(len(places) - 1, 0))
    known = np.isfinite(places)
    total, weight = np.zeros_like(places), np.zeros(places.shape)
    for shift in range(-reach, reach + 1):
        here = slice(max(0, -shift), len(places) - max(0, shift))
        there = slice(max(0, shift), len(places) - max(0, -shift))
        share = np.exp(-0.5 * (shift / max(sigma, 1e-6)) ** 2) * known[there]
        total[here] += share * np.where(known[there], places[there], 0.0)
        weight[here] += share
    return np.asarray(np.where(known, total / np.maximum(weight, 1e-9), np.nan))


def velocity(places: Points, fps: float) -> Points:
    """cm a second of float64 [frames, ..., 2], over the frames beside each, or one of them where the other lacks."""
    padded = np.concatenate([places[:1] * np.nan, places, places[:1] * np.nan])
    both, back, on = (padded[2:] - padded[:-2]) / 2, padded[1:-1] - padded[:-2], padded[2:] - padded[1:-1]
    return np.asarray(fps * np.where(np.isfinite(both), both, np.where(np.isfinite(back), back, on)))


def spells(scene: Scene, ball: Points, speed: Points) -> list[Spell]:
    """Who has the ball when: the cheapest course of possession over the clip (Viterbi 1967).

    It costs to be far from the ball and to move unlike it; it costs the same all the time that nobody has it, and
    every change costs. Where the ball is not seen things stay as they are.
    """
    feet = smoothed(scene.feet, SMOOTH_S * scene.fps)
    hidden = ~np.isfinite(scene.apart)
    apart = np.where(hidden, np.linalg.norm(feet - ball[:, None], axis=2), scene.apart)
    apart = smoothed(apart, SMOOTH_S * scene.fps)
    unlike = np.linalg.norm(velocity(feet, scene.fps) - speed[:, None], axis=2)
    cost = np.minimum(apart / NEAR_CM + unlike / WITH_CM_S, _UNSEEN)
    cost[~np.isfinite(cost)] = _UNSEEN
    cost[:, scene.teams == NO_TEAM] = _UNSEEN
    cost[~np.isfinite(ball).all(axis=1)] = FREE + UNSURE
    cost = np.concatenate([cost, np.full((len(cost), 1), FREE)], axis=1)
    nobody = cost.shape[1] - 1
    total, origins = cost[0].copy(), np.zeros(cost.shape, np.int64)
    for frame in range(1, len(cost)):
        best = int(total[:nobody].argmin()) if nobody else nobody
        come, origin = total.copy(), np.arange(nobody + 1)
        if nobody:
            others = total[best] + CHANGE, total[nobody] + CHANGE / 2
            taken = np.full(nobody, min(others))
            better = taken < come[:nobody]
            come[:nobody][better] = taken[better]
            origin[:nobody][better] = best if others[0] <= others[1] else nobody
            if total[best] + CHANGE / 2 < come[nobody]:
                come[nobody], origin[nobody] = total[best] + CHANGE / 2, best
        total, origins[frame] = come + cost[frame], origin
    course = np.empty(len(cost), np.int64)
    state = int(total.argmin())
    for frame in range(len(cost) - 1, -1, -1):
        course[frame] = state
        state = int(origins[frame, state])
    edges = np.flatnonzero(np.diff(course, prepend=-1, append=-1))
    runs = [
        Spell(int(course[first]), int(first), int(stop) - 1)
        for first, stop in pairwise(edges)
        if course[first] != nobody
    ]
    return _joined(scene, ball, runs)


def _joined(scene: Scene, ball: Points, runs: list[Spell]) -> list[Spell]:
    """One spell of those between which the ball was not played: by the same one, or by one who got another number."""
    joined: list[Spell] = []
    for run in runs:
        if joined and (run.person == joined[-1].person or scene.teams[run.person] == scene.teams[joined[-1].person]):
            way = float(np.linalg.norm(ball[run.first] - ball[joined[-1].last]))
            if way < FLIGHT_CM:
                joined[-1] = Spell(run.person, joined[-1].first, run.last)
                continue
        joined.append(run)
    return joined


def crossings_of(scene: Scene, ball: Points, speed: Points, held: list[Spell]) -> list[Crossing]:
    """Where the ball leaves the pitch. A ball in the air seems to be further off than it is: one that is believed to be
    out has to lie there, to be picked up there or to get out of sight there.
    """
    length, width = scene.pitch
    beyond = np.max([-ball[:, 0], ball[:, 0] - length, -ball[:, 1], ball[:, 1] - width], axis=0)
    seen = np.isfinite(beyond)
    numbers = np.flatnonzero(seen)
    found = []
    outside = beyond[numbers] > 0
    edges = np.flatnonzero(np.diff(outside.astype(np.int8), prepend=0, append=0))
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        stretch = numbers[first:stop]
        if first == 0 or beyond[stretch].max() < OUT_CM or stretch[-1] - stretch[0] < OUT_S * scene.fps:
            continue
        slow = np.linalg.norm(speed[stretch], axis=1) < REST_CM_S
        rests = np.count_nonzero(slow & (beyond[stretch] > OUT_CM / 2)) >= 0.3 * scene.fps
        picked = any(spell.first in range(stretch[0], stretch[-1] + 1) for spell in held)
        if not (rests or picked or stop == len(numbers)) or _in_hands(scene, held, int(stretch[0])):
            continue
        frame = int(stretch[0])
        x, y = ball[frame]
        over_goal_line = bool(x < 0 or x > length)
        goal = over_goal_line and abs(y - width / 2) < GOAL_CM / 2
        found.append(Crossing(frame, bool(goal), over_goal_line))
    return found


def _in_hands(scene: Scene, held: list[Spell], frame: int) -> bool:
    """Whether a keeper has the ball about then: in his hands it seems to lie metres behind him."""
    about = round(HANDS_S * scene.fps)
    for spell in held:
        if scene.keepers[spell.person] and spell.first <= frame + about and spell.last >= frame - about // 2:
            apart = scene.apart[spell.first : spell.first + 2 * about, spell.person]
            return bool(np.nanmedian(np.append(apart, np.inf)) < IN_HANDS_CM)
    return False


def _plays_again(scene: Scene, ball: Points, mark: Spell, after: Spell | Crossing | None, dead: Crossing) -> bool:
    """Whether a dead ball is in play again when this spell ends."""
    length, width = scene.pitch
    here = ball[mark.last]
    if not np.isfinite(here).all() or not isinstance(after, Spell):
        return False
    if np.linalg.norm(ball[after.first] - here) < FLIGHT_CM:
        return False
    if dead.goal:
        return bool(np.hypot(here[0] - length / 2, here[1] - width / 2) < RESTART_CM)
    beyond = max(-here[0], here[0] - length, -here[1], here[1] - width)
    there = ball[after.first]
    return bool(beyond < RESTART_CM and 0 <= there[0] <= length and 0 <= there[1] <= width)


def _played(scene: Scene, ball: Points, speed: Points, mark: Spell, after: Spell | Crossing | None) -> list[Action]:
    """What it is that a spell ends with, and the next begins with."""
    end = after.first if isinstance(after, Spell) else after.frame if after else len(ball) - 1
    kicked = Action(mark.last, PASS)
    if _is_shot(scene, ball, mark, after):
        kicked = Action(mark.last, SHOT)
    path = ball[mark.last : end + 1]
    path = path[np.isfinite(path).all(axis=1)]
    if len(path) < 2 or np.linalg.norm(path - path[0], axis=1).max() < FLIGHT_CM:
        return []
    if not isinstance(after, Spell):
        return [kicked]
    away_s = (after.first - mark.last) / scene.fps
    team, other = scene.teams[mark.person], scene.teams[after.person]
    if team == other:
        return [kicked, Action(after.first, PASS_RECEIVED)] if away_s < LONGEST_PASS_S else [kicked]
    if kicked.label == SHOT and scene.keepers[after.person] and away_s < LONGEST_PASS_S:
        return [kicked, Action(after.first, SAVE)]
    if kicked.label == SHOT or scene.keepers[after.person]:
        return [kicked]
    won = _won(scene, speed, mark, after)
    return [kicked, *(action for action in won if action.label == RECOVERY or away_s < LONGEST_PASS_S)]


def _won(scene: Scene, speed: Points, mark: Spell, after: Spell) -> list[Action]:
    """How a rival comes to the ball: by how fast it was when it came; nothing where that was not seen."""
    before = speed[max(mark.last + 1, after.first - round(0.4 * scene.fps)) : after.first]
    before = np.linalg.norm(before[np.isfinite(before).all(axis=1)], axis=1)
    if not len(before):
        return []
    return [Action(after.first, INTERCEPTION if np.median(before) > CUT_OFF_CM_S else RECOVERY)]


def _is_shot(scene: Scene, ball: Points, mark: Spell, after: Spell | Crossing | None) -> bool:
    """Whether the ball is played hard at the goal, and ends in it, beside it or with the keeper."""
    length, width = scene.pitch
    team = int(scene.teams[mark.person])
    goal = np.array([length if team == 0 else 0.0, width / 2])
    if isinstance(after, Spell):
        rival = scene.teams[after.person] == 1 - team and scene.keepers[after.person]
        end = after.first if rival else None
    else:
        end = after.frame if after is not None and after.over_goal_line else None
    if end is None:
        end = _lost_before(scene, goal, mark.last, after.first if isinstance(after, Spell) else len(ball) - 1)
    if end is None:
        return False
    # Not to its end, where the ball is in the air, in hands or in the net.
    seen = mark.last + np.flatnonzero(
        np.isfinite(ball[mark.last : mark.last + max(2, round(0.7 * (end - mark.last)))]).all(axis=1)
    )
    if len(seen) < 2 or not np.linalg.norm(goal - ball[seen[0]]) < SHOT_CM:
        return False
    start, way = ball[seen[0]], ball[seen[-1]] - ball[seen[0]]
    if np.linalg.norm(way) * scene.fps / (seen[-1] - seen[0]) < SHOT_CM_S or abs(way[0]) < 1:
        return False
    at_line = start[1] + way[1] * (goal[0] - start[0]) / way[0]
    reach = WIDE_CM if isinstance(after, Crossing) else GOAL_CM / 2 + 200
    return bool((goal[0] - start[0]) * way[0] > 0 and abs(at_line - goal[1]) < reach)


def _lost_before(scene: Scene, goal: Points, first: int, stop: int) -> int | None:
    """The frame in which the ball gets out of sight close to the goal; None where it does not."""
    seen = first + np.flatnonzero(np.isfinite(scene.ball[first : stop + 1]).all(axis=1))
    gaps = np.flatnonzero(np.diff(np.append(seen, stop)) > LOST_S * scene.fps)
    if not len(gaps):
        return None
    last = int(seen[gaps[0]])
    return last if np.linalg.norm(scene.ball[last] - goal) < LOST_CM else None
