"""`touchline replay` as an operator meets it: the same weights are the same, deliberately worse ones are said to be."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands.replay import spread
from local.triton import LocalTriton
from tests.support.commands import Touchline
from tests.support.gateway import running_gateway
from tests.support.quick_models import write_quick_models
from tests.support.videos import make_video
from tests.touchline.made_scene import HEIGHT, WIDTH, answer_to, truths
from touchline.answer_difference import Difference, difference, verdict

FRAMES = 30


@pytest.fixture(scope="module")
def worse_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quick models with worse weights, which miss the goalkeeper and most keypoints."""
    folder = write_quick_models(tmp_path_factory.mktemp("worse"))
    for file, old, new in (
        ("player", "rows[:, 1] = [100, 30, 110, 54, 0.6, 1]", ""),
        ("pitch", "rows[:, :16, 2] = 0.9", "rows[:, :3, 2] = 0.9"),
    ):
        model = folder / file / "1" / "model.py"
        text = model.read_text()
        assert old in text
        model.write_text(text.replace(old, new))
    return folder


@pytest.fixture(scope="module")
def kept(quick_triton: LocalTriton, web: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a gateway that kept one challenge, answered by the models as they are."""
    directory = tmp_path_factory.mktemp("kept")
    make_video(web[1] / "replay.mp4", FRAMES)

    async def answer() -> None:
        settings: dict[str, Any] = {"keep_challenges": 2, "keep_folder": directory / "challenges"}
        async with running_gateway(directory, quick_triton.grpc_url, **settings) as gateway, asyncio.timeout(60):
            assert (await gateway.challenge(f"{web[0]}/replay.mp4")).status_code == 200
            while not list((directory / "challenges").glob("2*")):
                await asyncio.sleep(0.05)

    asyncio.run(answer())
    return directory / "challenges"


def test_the_same_weights_are_said_to_be_the_same(
    kept: Path, quick_triton: LocalTriton, tmp_path: Path, touchline: Touchline
) -> None:
    """At the Triton that the settings name, which serves what answered before."""
    (tmp_path / "sparse.env").write_text(
        f"FRAME_STRIDE=10\nFRAME_STRIDES=3\nWALLET_PATH=/nowhere\nTRITON_URLS={quick_triton.grpc_url}\n"
    )
    said = touchline("replay", str(kept), "--settings", "sparse.env", "--json", "replay.json", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "FRAME_STRIDES are no settings" in said.stderr.replace("\n", " ")
    for name in ("as kept", "seconds", "inferred", "people -/+", "keypoints -/+"):
        assert name in said.stdout
    assert "sparse.env: same as the kept answers" in said.stdout
    (replayed,) = json.loads((tmp_path / "replay.json").read_text())["replayed"]
    assert replayed["verdict"] == "same"
    assert [one["inferred"] for one in replayed["challenges"].values()] == [4]


def test_deliberately_worse_weights_are_said_to_be_worse(
    kept: Path, worse_models: Path, tmp_path: Path, touchline: Touchline
) -> None:
    said = touchline("replay", str(kept), "--repository", str(worse_models), "--out", "answers", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    (worse,) = (line for line in said.stdout.splitlines() if line.startswith(f"{worse_models}:"))
    assert "WORSE than the kept answers" in worse
    assert "50% of the people are lost" in worse
    assert "of the keypoints are lost" in worse
    (answer,) = (tmp_path / "answers").glob("*/*.json")
    assert len(json.loads(answer.read_bytes())["frames"]) == FRAMES


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "KEEP_FOLDER"),
        (["."], "holds no kept challenge"),
        ([".", "--settings", "wrong.env"], "FRAME_STRIDE 'many'"),
        ([".", "--settings", "empty.env"], "names no setting"),
        ([".", "--repository", "nowhere"], "nowhere"),
        ([".", "--repository", "broken"], "--repository broken holds no model"),
        ([".", "--settings", "good.env", "good.env"], "names good.env twice"),
        (["broken"], "broken/one: cannot read the video"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    arguments: list[str], told: str, tmp_path: Path, touchline: Touchline
) -> None:
    (tmp_path / "wrong.env").write_text("FRAME_STRIDE=many\n")
    (tmp_path / "empty.env").write_text("# nothing\n")
    (tmp_path / "good.env").write_text("FRAME_STRIDE=2\n")
    one = tmp_path / "broken" / "one"
    one.mkdir(parents=True)
    (one / "video.mp4").write_text("no video")
    (one / "answer.json").write_text("{}")
    said = touchline("replay", *arguments, cwd=tmp_path)
    assert said.returncode != 0
    assert told in said.stderr
    assert said.stderr.count("error:") == 1


def test_an_option_takes_all_values_up_to_the_next() -> None:
    words = ["FOLDER", "--settings", "A", "B", "--last", "3", "--repository", "R", "--settings", "C"]
    assert spread(words, ("--settings", "--repository")) == [
        *("FOLDER", "--settings", "A", "--settings", "B", "--last", "3"),
        *("--repository", "R", "--settings", "C"),
    ]


SAME = Difference(0.01, 0.01, 0.0, 0.0, 0.0, 0.02, 0.02, 0.0, 0.0)


@pytest.mark.parametrize(
    ("change", "found", "word"),
    [
        (0.0, {}, "same"),
        (3.0, {}, "better"),
        (-3.0, {}, "worse"),
        (5.0, {"people_lost": 0.4, "people_new": 0.1}, "worse"),
        (0.0, {"people_lost": 1.0, "people_new": math.nan}, "worse"),
        (0.0, {"people_lost": 0.3, "people_new": 0.3}, "other"),
        (0.0, {"people_lost": 0.3, "people_new": 0.3, "on_grass": 0.2}, "worse"),
        (0.0, {"keypoints_lost": 0.3}, "worse"),
        (0.0, {"balls_lost": 1.0, "balls_new": math.nan}, "worse"),
        (0.0, {"balls_lost": 0.3, "balls_new": 0.3}, "same"),
        (0.0, {"class_changed": 0.1}, "other"),
        (5.0, {"class_changed": 0.1}, "other"),
        (0.0, {"class_changed": 0.9}, "worse"),
        (0.0, {"people_new": 0.09}, "same"),
    ],
)
def test_what_is_lost_without_a_gain_is_worse_whatever_the_rules_pay(
    change: float, found: dict[str, float], word: str
) -> None:
    values = {name: found.get(name, getattr(SAME, name)) for name in Difference.__slots__}
    assert verdict(change, Difference(**values))[0] == word


def test_people_who_are_put_on_bare_grass_are_seen() -> None:
    answer = answer_to(truths(2))
    bare = {0: np.ones((HEIGHT // 2, WIDTH // 2), np.uint8)}
    painted = {0: np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)}
    assert difference(answer, answer, WIDTH, bare).on_grass == 1
    assert difference(answer, answer, WIDTH, painted).on_grass == 0
    assert math.isnan(difference(answer, answer, WIDTH, {}).on_grass)
