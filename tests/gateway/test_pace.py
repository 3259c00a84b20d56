"""Strides against a simulated engine: what is planned, what comes of it on another engine, and when it ends."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gateway.pace import (
    LATEST_S,
    Aim,
    Experience,
    Left,
    ModelCosts,
    Pace,
    expected_quality,
    frames_expected,
    score,
)
from gateway.settings import FASTEST_S, QUALITY_FLOOR, Settings
from gateway.stride_quality import PEOPLE_FOUND

PLAYER_S, PITCH_S, GATEWAY_S = 0.049, 0.023, 0.002
"""Of a 2-core server; the gateway's own work a source frame."""
FIXED = (2, 4, 6, 10, 15, 25)
IN_SECONDS = Aim(frame_stride=2, pitch_stride=10, budget_s=12.0, by_score=False)
BY_SCORE = replace(IN_SECONDS, budget_s=LATEST_S, by_score=True)


@dataclass
class Run:
    """What came of a clip."""

    pace: Pace
    ended_s: float = 0.0
    sampled: list[int] = field(default_factory=list)
    strides: list[int] = field(default_factory=list)

    @property
    def gaps(self) -> list[int]:
        return [later - earlier for earlier, later in itertools.pairwise(self.sampled)]


def run(
    aim: Aim = IN_SECONDS,
    *,
    warm_up: float = 1.0,
    slower: Callable[[float], float] = lambda _: 1.0,
    frames: int = 750,
    said: Callable[[int], int] | None = None,
    fps: float = 25.0,
    experience: Experience | None = None,
    under_way: int = 1,
    downloaded_s: float = 0.0,
) -> Run:
    """A clip through an engine beside the gateway, one slot after the other, up to three waiting.

    `warm_up` is how many times slower than usual the engine was measured, `slower` how many times slower than measured
    it is at a time; `said` is what is believed of the number of frames when so many were seen.
    """
    costs = ModelCosts(PLAYER_S * warm_up, PITCH_S * warm_up)
    pace = Pace(aim, costs, experience or Experience(GATEWAY_S), fps)
    done = Run(pace)
    waiting = deque[tuple[float, int, int, int]]()
    now, free_s, pending_s, last_reply_s = 0.2, 0.2, 0.0, 0.0
    seen = next_player = next_pitch = 0

    def left() -> Left:
        expected = said(seen) if said else frames
        return Left(now, max(0, expected - seen), pending_s, under_way, downloaded_s)

    def reply() -> None:
        nonlocal now, pending_s, last_reply_s
        ended_s, decoded, count, pitch_count = waiting.popleft()
        now = max(now, ended_s)
        pending_s -= costs.of(count, pitch_count)
        pace.replied(ended_s - last_reply_s, decoded, count, pitch_count, under_way=under_way)
        last_reply_s = ended_s

    pace.start(left())
    largest = 2
    while seen < frames:
        while len(waiting) == 3 or (waiting and waiting[0][0] <= now):
            reply()
        pace.again(left())
        done.strides.append(pace.stride)
        batch = min(largest, pace.batch(16, under_way))
        largest = min(16, 2 * largest)
        count = pitch_count = 0
        before = seen
        while count < batch and seen < frames:
            if seen >= next_player or seen == frames - 1:
                count, next_player = count + 1, seen + pace.stride
                done.sampled.append(seen)
                if seen >= next_pitch or seen == frames - 1:
                    pitch_count, next_pitch = pitch_count + 1, seen + pace.pitch_stride
            seen += 1
        pace.decoded(seen - before)
        # Gateway and engine share the cores: while both have work, each takes twice as long.
        work_s = GATEWAY_S * (seen - before) * under_way
        both_s = min(work_s, max(0.0, free_s - now))
        free_s += both_s
        now = max(now + work_s + both_s, downloaded_s * seen / frames)
        begun_s = max(now, free_s)
        last_reply_s = last_reply_s if waiting else begun_s
        free_s = begun_s + under_way * costs.of(count, pitch_count) * slower(begun_s)
        pending_s += costs.of(count, pitch_count)
        waiting.append((free_s, seen - before, count, pitch_count))
    while waiting:
        reply()
    done.ended_s = now + 0.3
    return done


@pytest.mark.parametrize("slow", [1, 2, 4, 6])
@pytest.mark.parametrize("fps", [10.0, 24.0, 25.0, 60.0])
def test_a_measured_engine_keeps_the_budget_from_the_first_frame(slow: float, fps: float) -> None:
    """Whatever it does, the stride that was planned is about what comes of it."""
    done = run(warm_up=slow, fps=fps, frames=round(30 * fps))
    assert done.ended_s <= 12.5
    assert done.ended_s >= 11 or done.pace.stride == 2
    assert max(done.strides) <= 1.3 * done.pace.planned + 1


@pytest.mark.parametrize("slow", [2.0, 3.0, 4.0])
def test_an_engine_that_is_slower_than_measured_keeps_the_budget(slow: float) -> None:
    """As when a second process takes the cores after the warm-up."""
    done = run(slower=lambda _: slow)
    assert done.ended_s <= 12.5
    assert done.pace.largest > done.pace.planned


@pytest.mark.parametrize("before, after", [(1.0, 3.0), (3.0, 1.0), (1.0, 2.0)])
def test_a_rate_that_changes_on_the_way(before: float, after: float) -> None:
    done = run(slower=lambda now: before if now < 5 else after)
    assert 10.5 <= done.ended_s <= 12.5
    for earlier, later in itertools.pairwise(done.strides):
        assert abs(later - earlier) <= max(1, round(earlier / 4)), "small steps"


def test_a_fast_engine_infers_what_the_settings_allow() -> None:
    done = run(warm_up=1 / 20)
    assert set(done.strides) == {2}
    assert set(done.gaps) <= {1, 2}


def test_an_engine_that_cannot_do_it_is_late_but_whole() -> None:
    done = run(warm_up=20)
    assert len(done.sampled) >= 15
    assert max(done.gaps) <= 50
    assert done.sampled[0] == 0 and done.sampled[-1] == 749


def test_of_a_long_clip_twenty_frames_are_enough() -> None:
    """A minute and a half at two seconds a frame would be late."""
    assert run(warm_up=6, frames=3000).ended_s <= 12.5 or run(warm_up=6, frames=3000).pace.largest == 150


def test_the_next_challenge_knows_what_the_last_one_learned() -> None:
    experience = Experience(GATEWAY_S)
    run(slower=lambda _: 3.0, experience=experience)
    again = run(slower=lambda _: 3.0, experience=experience)
    assert again.ended_s <= 12.5
    assert max(again.strides) <= 1.3 * again.pace.planned + 1, "planned for the engine as it is"


def test_bursts_of_other_work_are_not_taken_for_the_machine() -> None:
    """Half a second in three the engine is eight times slower: no reason to give the answer up as late."""
    assert run(BY_SCORE, warm_up=2.0, slower=lambda now: 8.0 if now % 3 < 0.5 else 1.0).ended_s <= LATEST_S


def test_challenges_that_share_the_machine_get_a_share_each() -> None:
    alone, two = run(), run(under_way=2)
    assert two.ended_s <= 12.5
    assert two.pace.planned > 1.8 * alone.pace.planned


@pytest.mark.parametrize(
    "said",
    [
        lambda seen: frames_expected(0, 30.0, 25.0, seen, None),
        lambda seen: frames_expected(0, 0.0, 25.0, seen, 700.0 if seen > 50 else None),
        lambda seen: frames_expected(0, 0.0, 25.0, seen, None),
        lambda seen: frames_expected(18_000, 0.0, 25.0, seen, 750.0 if seen > 50 else None),
        lambda seen: frames_expected(400, 0.0, 25.0, seen, 720.0 if seen > 50 else None),
    ],
    ids=["duration", "size", "nothing", "far too many", "too few"],
)
def test_a_clip_whose_header_does_not_tell_its_frames(said: Callable[[int], int]) -> None:
    done = run(said=said)
    assert done.ended_s <= 12.7
    assert len(done.sampled) >= 45


def test_no_stride_grows_because_a_download_is_slow() -> None:
    assert run(downloaded_s=20.0).pace.largest == run(replace(IN_SECONDS, budget_s=20.0)).pace.planned


def expectation(done: Run, frames: int = 750) -> float:
    """The score that such an answer brings: quality by the distances of its inferred frames."""
    quality = sum(gap * expected_quality(gap, 25.0) for gap in done.gaps) / (frames - 1)
    return score(quality, done.ended_s)


@pytest.mark.parametrize("slow", [1.0, 1 / 4, 1 / 20])
def test_auto_is_about_the_best_of_what_keeps_the_floor(slow: float) -> None:
    fixed = [
        run(replace(BY_SCORE, frame_stride=stride, budget_s=1e6, by_score=False), warm_up=slow) for stride in FIXED
    ]
    best = max(expectation(one) for one in fixed if expected_quality(one.pace.stride, 25.0) >= QUALITY_FLOOR)
    auto = run(BY_SCORE, warm_up=slow)
    assert expectation(auto) >= best - 0.01
    assert expected_quality(auto.pace.planned, 25.0) >= QUALITY_FLOOR


def test_auto_keeps_to_the_floor_and_the_fastest_that_are_set() -> None:
    usual = run(BY_SCORE).pace.planned
    assert run(replace(BY_SCORE, quality_floor=0.98)).pace.planned < usual
    assert run(replace(BY_SCORE, quality_floor=0.6, fastest_s=0.5)).pace.planned > usual
    aim = Aim.of(Settings(_env_file=None, fastest_s=3, quality_floor=0.9))
    assert (aim.fastest_s, aim.quality_floor) == (3, 0.9)


def test_auto_gives_the_floor_up_only_when_time_is_over() -> None:
    slow = run(BY_SCORE, warm_up=6)
    assert expected_quality(slow.pace.planned, 25.0) < QUALITY_FLOOR
    assert LATEST_S - 1.5 <= slow.ended_s <= LATEST_S + 0.5


@pytest.mark.parametrize("slow", [30.0, 60.0])
def test_auto_keeps_the_floor_where_no_answer_can_be_in_time(slow: float) -> None:
    """What is late whatever is done earns by its quality alone, as long as a caller waits for it."""
    patient = replace(BY_SCORE, timeout_s=600.0)
    late = run(patient, warm_up=slow)
    assert late.ended_s > LATEST_S
    assert expected_quality(late.pace.largest, 25.0) >= QUALITY_FLOOR - 0.01
    assert run(replace(patient, timeout_s=late.ended_s / 1.2), warm_up=slow).ended_s < late.ended_s
    assert run(warm_up=slow).pace.planned == 50, "a number of seconds is kept as far as can be"


def test_auto_leaves_the_stride_alone_while_things_go_as_planned() -> None:
    assert len(set(run(BY_SCORE).strides)) == 1


def test_speed_is_worth_nothing_more_than_the_fastest() -> None:
    assert score(1.0, 0.5) == score(1.0, FASTEST_S) == 1.0
    assert score(0.9, 15.0) == pytest.approx(0.65 * 0.9 + 0.35 * 0.0067, abs=1e-4)


def test_the_curve_is_one_of_strides_at_25_frames_a_second() -> None:
    strides: Sequence[float] = [stride for stride, _ in PEOPLE_FOUND]
    assert list(strides) == sorted(strides)
    assert expected_quality(20, 50.0) == expected_quality(10, 25.0)
    assert expected_quality(1, 25.0) >= expected_quality(6, 25.0) >= expected_quality(15, 25.0) >= QUALITY_FLOOR - 0.01


@pytest.mark.parametrize(
    ("settings", "aim"),
    [
        ({}, Aim(2, 10, LATEST_S, True)),
        ({"challenge_budget_s": "AUTO"}, Aim(2, 10, LATEST_S, True)),
        ({"challenge_budget_s": "8.5", "frame_stride": 3}, Aim(3, 12, 8.5, False)),
        ({"challenge_budget_s": 8, "device": "cuda"}, Aim(2, 2, 8.0, False)),
    ],
)
def test_what_the_settings_ask_for(settings: dict[str, Any], aim: Aim) -> None:
    assert Aim.of(Settings(_env_file=None, **({"device": "cpu"} | settings))) == aim


@pytest.mark.parametrize("budget", ["0", "-1", "soon"])
def test_a_budget_is_seconds_or_auto(budget: str) -> None:
    with pytest.raises(ValueError, match="challenge_budget_s"):
        Settings(_env_file=None, challenge_budget_s=budget)
