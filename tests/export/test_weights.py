"""Class names and files: what is understood, and what is said when it is not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str]]:
    """A hub that has one file, no weights, in one repository; what was asked of it."""
    asked: list[tuple[str, str]] = []

    class LocalEntryNotFoundError(Exception):
        pass

    def hf_hub_download(repo: str, file: str) -> str:
        asked.append((repo, file))
        if repo != "club/eleven":
            raise LocalEntryNotFoundError("no such repository\nand more")
        (tmp_path / "readme.md").write_text("no weights")
        return str(tmp_path / "readme.md")

    package, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    vars(package)["hf_hub_download"] = hf_hub_download
    vars(errors).update(HfHubHTTPError=LocalEntryNotFoundError, LocalEntryNotFoundError=LocalEntryNotFoundError)
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return asked


def test_a_hub_name_is_fetched(hub: list[tuple[str, str]]) -> None:
    with pytest.raises(WeightsError, match=r"readme\.md: weights are a \.pt file"):
        load("club/eleven:weights/best.pt", "player")
    with pytest.raises(
        WeightsError, match=r"club/twelve:best\.pt: the hub does not give this file \(no such repository\)"
    ):
        load("club/twelve:best.pt", "player")
    assert hub == [("club/eleven", "weights/best.pt"), ("club/twelve", "best.pt")]
