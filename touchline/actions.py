"""What happens in a clip, as the subnet's private track names, weighs and scores it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

FRAMES_A_SECOND: Final = 25.0
"""The subnet takes frame numbers for time at this rate, whatever the clip's is."""


class Rule(NamedTuple):
    """How an action is scored."""

    weight: float
    tolerance_s: float
    """Further off it is not the action that happened."""
    least: float
    """Share of the weight that is left at the tolerance."""


PASS, PASS_RECEIVED, RECOVERY, INTERCEPTION = "pass", "pass_received", "recovery", "interception"
OUT_OF_PLAY, SHOT, SAVE, GOAL = "ball_out_of_play", "shot", "save", "goal"

RULES: Final[dict[str, Rule]] = {
    PASS: Rule(1.0, 1.0, 0.0),
    PASS_RECEIVED: Rule(1.4, 1.0, 0.0),
    RECOVERY: Rule(1.5, 1.5, 0.0),
    "tackle": Rule(2.5, 1.5, 0.1),
    INTERCEPTION: Rule(2.8, 2.0, 0.5),
    OUT_OF_PLAY: Rule(2.9, 2.0, 0.5),
    "clearance": Rule(3.1, 2.0, 0.5),
    "take_on": Rule(3.2, 2.0, 0.5),
    "substitution": Rule(4.2, 2.0, 0.5),
    "block": Rule(4.2, 2.0, 0.5),
    "aerial_duel": Rule(4.3, 2.0, 0.5),
    SHOT: Rule(4.7, 2.0, 0.5),
    SAVE: Rule(7.3, 2.0, 0.5),
    "foul": Rule(7.7, 2.5, 0.5),
    GOAL: Rule(10.9, 3.0, 0.5),
}
"""Source: the subnet's table of scored actions, scoring version 2."""


class Action(NamedTuple):
    """One thing that happens, at a frame number of the clip."""

    frame: int
    label: str
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class LabelCount:
    """One label's answers against the truth."""

    right: int = 0
    wrong: int = 0
    missed: int = 0
    credit: float = 0.0
    """Sum over the right ones of the share of the weight that they got."""

    def __add__(self, other: LabelCount) -> LabelCount:
        return LabelCount(
            self.right + other.right,
            self.wrong + other.wrong,
            self.missed + other.missed,
            self.credit + other.credit,
        )

    @property
    def precision(self) -> float | None:
        """None where nothing was answered."""
        answered = self.right + self.wrong
        return self.right / answered if answered else None

    @property
    def recall(self) -> float | None:
        """None where there was nothing to answer."""
        true = self.right + self.missed
        return self.right / true if true else None

    @property
    def least_precision(self) -> float:
        """From which precision on answering gains: p * credit > 1 - p, as a wrong answer costs its whole weight."""
        return 1 / (1 + (self.credit / self.right if self.right else 1.0))


@dataclass(frozen=True, slots=True)
class ActionScore:
    """What a validator gives for the answer to one clip."""

    score: float
    """From 0 to 1."""
    labels: dict[str, LabelCount]


def score_actions(answered: Iterable[Action], truth: Sequence[Action]) -> ActionScore:
    """Score an answer as validators do.

    In frame order, each action takes the nearest true one of its label that is not taken yet and within the tolerance:
    it earns weight * (1 - (1 - least) * distance / tolerance), and costs its weight where there is none. The sum, over
    the weights of all true actions, between 0 and 1. Labels that are not scored do not count. 0 where nothing is true.
    """
    true = [action for action in truth if action.label in RULES]
    taken: set[int] = set()
    counts = {label: LabelCount(missed=sum(action.label == label for action in true)) for label in RULES}
    earned = 0.0
    for action in sorted(answered, key=lambda action: action.frame):
        rule = RULES.get(action.label)
        if rule is None:
            continue
        best, best_share = None, 0.0
        for index, other in enumerate(true):
            if index in taken or other.label != action.label:
                continue
            apart_s = abs(action.frame - other.frame) / FRAMES_A_SECOND
            share = 1 - (1 - rule.least) * apart_s / rule.tolerance_s if apart_s <= rule.tolerance_s else 0.0
            if share > best_share:
                best, best_share = index, share
        if best is None:
            earned -= rule.weight
            counts[action.label] += LabelCount(wrong=1)
        else:
            taken.add(best)
            earned += rule.weight * best_share
            counts[action.label] += LabelCount(right=1, missed=-1, credit=best_share)
    whole = sum(RULES[action.label].weight for action in true)
    return ActionScore(min(1.0, max(0.0, earned / whole)) if whole else 0.0, counts)
