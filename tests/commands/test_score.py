"""`touchline score` as a user meets it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from commands.score import line
from tests.support.commands import Touchline, process
from tests.support.pictures import read_picture
from tests.touchline.made_scene import answer_to, grass_video, truths
from touchline.answer import processing_time
from touchline.score_video import score_video

FRAMES = 6


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grass_video(tmp_path_factory.mktemp("clip") / "match.mp4", FRAMES)


def test_an_answer_is_scored_line_by_line_with_the_frames_that_cost_the_most(clip: Path, tmp_path: Path) -> None:
    answer = answer_to(truths(FRAMES))
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    said = process(
        *("score", str(clip), "answer.json", "--out", "pictures", "--json", "score.json", "--seconds", "3"),
        cwd=tmp_path,
    )
    assert said.returncode == 0, said.stderr
    for name in ("homography", "on lines", "scene stability", "boxes at best", "speed", "total at best"):
        assert name in said.stdout
    assert "does not score the challenge" in said.stdout
    numbers = json.loads((tmp_path / "score.json").read_text())
    assert numbers["seconds"] == 3
    assert len(numbers["frames"]) == FRAMES
    # Bare grass has no lines, and without keypoints on lines there are no points for keypoints.
    assert numbers["keypoints"] == 0
    assert read_picture(tmp_path / "pictures" / "costliest.png").shape[1] > 1000


@pytest.mark.parametrize("said", [None, -5, True, "soon", math.inf])
def test_an_answer_that_does_not_say_how_long_it_took_is_not_taken_for_the_fastest_silently(said: object) -> None:
    assert processing_time({"processing_time": said}) is None


def test_some_of_the_pictures_are_enough_for_one_line(clip: Path) -> None:
    score = score_video(clip, answer_to(truths(FRAMES)), pictures_looked_at=2, fastest_s=2.0)
    assert score.seconds == 1.5
    assert len(score.frames) == FRAMES
    assert "in all at best" in line(score)


@pytest.mark.parametrize(("answer", "expected"), [("no JSON", "is not JSON"), ('{"frames": []}', "list is empty")])
def test_an_unusable_answer_is_named(
    clip: Path, touchline: Touchline, tmp_path: Path, answer: str, expected: str
) -> None:
    (tmp_path / "answer.json").write_text(answer)
    said = touchline("score", str(clip), "answer.json", cwd=tmp_path)
    assert said.returncode == 1
    assert expected in said.stderr
    assert "Traceback" not in said.stderr


def test_an_answer_about_another_video_is_refused(clip: Path, touchline: Touchline, tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text(json.dumps(answer_to(truths(FRAMES + 1))))
    said = touchline("score", str(clip), "answer.json", "--json", "score.json", cwd=tmp_path)
    assert said.returncode == 1
    assert f"ends at frame {FRAMES - 1}" in said.stderr
    assert not (tmp_path / "score.json").exists()
