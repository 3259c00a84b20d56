"""Class names and files: what is understood, and what is said when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.errors import WeightsError
from export.weights import IGNORED, load, map_classes
from touchline.contract import BALL, GOALKEEPER, PLAYER, REFEREE


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ball", "goalkeeper", "player", "referee"], (BALL, GOALKEEPER, PLAYER, REFEREE)),
        (["Player", "BALL", "Keeper", "Main Referee"], (PLAYER, BALL, GOALKEEPER, REFEREE)),
        (["player_team_left", "goalkeeper-team-right", "side referee"], (PLAYER, GOALKEEPER, REFEREE)),
        (["football player", "football"], (PLAYER, BALL)),
        (["person", "sports ball", "tennis racket"], (PLAYER, BALL, IGNORED)),
        (["baseball bat", "refrigerator"], (IGNORED, IGNORED)),
    ],
)
def test_names(names: list[str], expected: tuple[int, ...]) -> None:
    assert map_classes(names) == expected


def test_a_name_can_be_said_to_be_a_class() -> None:
    assert map_classes(["A", "ball"], {"a": "Player"}) == (PLAYER, BALL)
    with pytest.raises(WeightsError, match="no class 'b' in these weights: they have A"):
        map_classes(["A"], {"b": "player"})
    with pytest.raises(WeightsError, match="'striker' is no class of the contract"):
        map_classes(["A"], {"a": "striker"})


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"best\.pt: there is no such file.*owner/name:file"):
        load(tmp_path / "best.pt", "player")
    other = tmp_path / "notes.txt"
    other.write_text("no weights")
    with pytest.raises(WeightsError, match=r"notes\.txt: weights are a \.pt file"):
        load(other, "player")
