"""The private track's own score of actions, by hand-made answers."""

from __future__ import annotations

import pytest

from touchline.actions import GOAL, INTERCEPTION, PASS, RULES, SHOT, Action, score_actions

TRUTH = [Action(100, PASS), Action(125, PASS), Action(300, SHOT)]
WHOLE = 1.0 + 1.0 + 4.7


def test_the_truth_itself_scores_one() -> None:
    scored = score_actions(TRUTH, TRUTH)
    assert scored.score == 1
    assert scored.labels[PASS].precision == scored.labels[PASS].recall == 1


def test_a_late_answer_earns_less_until_the_tolerance() -> None:
    assert score_actions([Action(325, SHOT)], TRUTH).score == pytest.approx(4.7 * 0.75 / WHOLE)
    assert score_actions([Action(350, SHOT)], TRUTH).score == pytest.approx(4.7 * 0.5 / WHOLE)
    assert score_actions([Action(351, SHOT)], TRUTH).score == 0


def test_a_wrong_answer_costs_its_weight() -> None:
    right = [*TRUTH[:2], Action(300, SHOT)]
    assert score_actions([*right, Action(300, INTERCEPTION)], TRUTH).score == pytest.approx((WHOLE - 2.8) / WHOLE)
    assert score_actions([Action(300, GOAL)], TRUTH).score == 0


def test_one_true_action_is_taken_once_and_by_the_first() -> None:
    scored = score_actions([Action(110, PASS), Action(112, PASS), Action(113, PASS)], TRUTH)
    count = scored.labels[PASS]
    assert (count.right, count.wrong, count.missed) == (2, 1, 0)
    # The first takes the nearer one, 10 frames off, the second the other, 13 off; the third finds none left.
    assert count.credit == pytest.approx(2 - (10 + 13) / 25)


def test_at_the_tolerance_of_a_label_that_fades_to_nothing_there_is_no_match() -> None:
    assert score_actions([Action(150, PASS)], [Action(125, PASS)]).labels[PASS].wrong == 1


def test_what_is_not_scored_does_not_count() -> None:
    assert score_actions([*TRUTH, Action(5, "corner")], [*TRUTH, Action(9, "corner")]).score == 1
    assert score_actions(TRUTH, []).score == 0


def test_which_precision_is_worth_an_answer() -> None:
    count = score_actions([Action(325, SHOT)], TRUTH).labels[SHOT]
    assert count.least_precision == pytest.approx(1 / 1.75)
    assert len(RULES) == 15
