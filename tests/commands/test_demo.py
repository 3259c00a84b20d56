"""What `make demo` says at its end."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from typer.main import get_command

from commands.demo import next_steps
from commands.main import Later, app
from local.triton import PROJECT


def test_the_demo_ends_with_three_lines_a_newcomer_can_act_on() -> None:
    pictures, own_video, serve = next_steps(Path("elsewhere"))
    assert "elsewhere/contact_sheet.png" in pictures and "elsewhere/annotated.mp4" in pictures
    assert "touchline challenge" in own_video and "touchline serve" in serve


def test_each_command_that_it_names_is_one() -> None:
    known: Any = get_command(app)
    for line in next_steps(Path("out")):
        words = shlex.split(line.partition(":")[2])
        for at, word in enumerate(words):
            if word.endswith("/touchline"):
                assert word == ".venv/bin/touchline"
                assert isinstance(known.commands[words[at + 1]], Later)


def test_make_demo_is_touchline_demo() -> None:
    recipe = (PROJECT / "Makefile").read_text().split("\ndemo:")[1].split("\n\n")[0]
    assert "commands.start demo" in recipe
