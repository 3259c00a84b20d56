"""What challenges took foretells how long the next one waits for its place."""

from __future__ import annotations

import pytest

from gateway.durations import REMEMBERED, Durations, expected_wait_s, foretold_wait_s


def test_the_wait_that_is_expected() -> None:
    assert expected_wait_s([3.0, 1.0], 0, 5.0) == 1.0
    assert expected_wait_s([3.0, 1.0], 1, 5.0) == 3.0
    assert expected_wait_s([3.0, 1.0], 2, 5.0) == 6.0
    assert expected_wait_s([3.0, 1.0], 3, 5.0) == 8.0


def test_what_is_foretold_is_longer_the_more_times_differ_and_the_fewer_are_known() -> None:
    alike, unlike = [2.0] * 20, [1.0, 3.0] * 10
    assert foretold_wait_s([0.5], 3, alike) == pytest.approx(1.5 + 3 * 2)
    waits = [foretold_wait_s([0.5], 3, known) for known in (alike, unlike, unlike[:4])]
    assert waits == sorted(waits) and waits[0] < waits[1] < waits[2]
    assert foretold_wait_s([0.0] * 4, 3, unlike) < foretold_wait_s([0.0] * 2, 3, unlike)
    assert foretold_wait_s([9.0], 0, alike) == 0.5, "a challenge that takes longer is not at its end"


def test_what_was_expected_of_the_first_counts_until_it_has_ended() -> None:
    durations = Durations(places=2, usual_s=15)
    assert durations.known == [15]
    durations.learn(4.0, company=2.0)
    assert durations.known == [4]


def test_challenges_that_had_less_company_count_until_the_first_that_had_all_of_it() -> None:
    durations = Durations(places=4, usual_s=15)
    durations.learn(1.0, company=1.0)
    durations.learn(1.5, company=2.0)
    assert durations.known == [4, 3], "as if all shared one engine"
    durations.learn(2.5, company=4.0)
    assert durations.known == [2.5]
    for _ in range(30):
        durations.learn(1.0, company=1.0)
    assert durations.known == [2.5], "a quiet hour teaches nothing of a busy one"


def test_one_that_took_very_long_counts_as_a_few() -> None:
    durations = Durations(places=1, usual_s=15)
    for seconds in [1.0] * REMEMBERED + [100.0]:
        durations.learn(seconds, company=1.0)
    assert durations.known == [1.0] * (REMEMBERED - 1) + [3.0]
