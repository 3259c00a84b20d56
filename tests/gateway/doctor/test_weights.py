"""Weights are told by what is in the files."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from gateway.doctor.weights import one, weights
from tests.deploy.files import PROJECT


def test_none_is_the_bundled_models(tmp_path: Path) -> None:
    (found,) = weights(tmp_path)
    assert found.level == "good" and "bundled" in found.says


def test_the_projects_own(tmp_path: Path) -> None:
    for name in ("player.pt", "pitch.pt"):
        shutil.copy(PROJECT / "weights" / name, tmp_path)
    player, pitch = weights(tmp_path)
    assert (player.level, pitch.level) == ("good", "good")
    assert "DetectionModel" in player.says


def test_files_that_changed_places(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "weights" / "player.pt", tmp_path / "pitch.pt")
    assert one(tmp_path / "pitch.pt", "pitch").level == "bad"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
        (b"<!DOCTYPE html>", "web page"),
        (b'{"error": "no"}', "JSON"),
        (b"PK\x03\x04 cut off", "no PyTorch"),
        (b"\x00" * 600, "no PyTorch"),
    ],
)
def test_what_downloads_leave_is_called_by_its_name(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "player.pt").write_bytes(content)
    (found,) = weights(tmp_path)
    assert found.level == "bad" and expected in found.says and found.remedy


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "player.pt", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    assert one(tmp_path / "player.pt", "player").level == "bad"


def test_names_that_nothing_takes(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"PK")
    (found,) = weights(tmp_path)
    assert found.level == "warning" and "best.pt" in found.says
