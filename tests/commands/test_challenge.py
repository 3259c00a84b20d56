"""What `touchline challenge` and the demo say of an answer."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from commands.challenge import print_advice, stage_table
from local.validator import Outcome

NOTES = {"planned-stride": "15", "stride": "15.3", "inferred": "50", "expected-people": "0.941"}


def said(outcome: Outcome) -> str:
    text = io.StringIO()
    console = Console(file=text, width=400)
    console.print(stage_table(outcome))
    print_advice(console, outcome)
    return text.getvalue()


def outcome(**notes: str) -> Outcome:
    frames = [{"frame_number": number} for number in range(750)]
    return Outcome({"frames": frames}, b"", 5.0, {"infer": 4.0, "total": 4.9}, notes)


def test_the_strides_are_told() -> None:
    text = said(outcome(**NOTES))
    assert "50" in text and "every 15.3th; planned 15" in text
    assert "CHALLENGE_BUDGET_S" not in text


def test_an_answer_that_is_too_late_for_any_speed_says_so() -> None:
    late = replace(outcome(**NOTES), elapsed_s=15.1)
    assert "nothing after 15 s" in said(late)
    assert "nothing after" not in said(outcome(**NOTES))


@pytest.mark.parametrize("expected", ["0.939", "0.4"])
def test_an_answer_of_too_few_frames_says_so_and_what_would_help(expected: str) -> None:
    text = said(outcome(**{**NOTES, "expected-people": expected}))
    assert f"about {float(expected):.0%} of the people" in text
    assert "--imgsz" in text and "GPU" in text


def test_a_miner_that_tells_nothing_is_no_reason_to_complain() -> None:
    text = said(outcome())
    assert "inferred" not in text
