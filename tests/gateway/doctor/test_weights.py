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
    for name in ("player.pt", "pitch.onnx"):
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
        (b"\xef\xbb\xbf<html>", "web page"),
        (b"ftrt" + bytes(600), "engine"),
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


@pytest.mark.parametrize("kind", ["ClassificationModel", "SegmentationModel", "OBBModel", "RTDETRDetectionModel"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_models_that_the_export_refuses(kind: str, protocol: int, tmp_path: Path) -> None:
    """By the class that the pickle names, in either way that pickles name one."""
    names = {
        2: f"\x80\x02cultralytics.nn.tasks\n{kind}\n.".encode(),
        4: b"\x80\x04\x8c\x14ultralytics.nn.tasks\x94\x8c" + bytes([len(kind)]) + kind.encode() + b"\x94\x93.",
    }
    _checkpoint(tmp_path / "player.pt", names[protocol])
    found = one(tmp_path / "player.pt", "player")
    assert found.level == "bad" and kind in found.says


def test_a_checkpoint_without_a_model(tmp_path: Path) -> None:
    """A state dict, or the file that the bundled pitch model was trained to: the export cannot take it."""
    _checkpoint(tmp_path / "pitch.pt", b"\x80\x02ccollections\nOrderedDict\n.")
    assert one(tmp_path / "pitch.pt", "pitch").level == "bad"
    assert one(Path(shutil.copy(PROJECT / "weights" / "pitch.pt", tmp_path)), "pitch").level == "bad"


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"\x00" * 600])
def test_what_is_only_called_onnx(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "player.onnx").write_bytes(content)
    assert one(tmp_path / "player.onnx", "player").level == "bad"


def test_files_that_would_silently_give_way_to_the_bundled_ones(tmp_path: Path) -> None:
    """A link leads nowhere inside the container, also where there is a file at its end out here."""
    folder = tmp_path / "weights"
    (folder / "pitch.pt").mkdir(parents=True)
    (folder / "player.pt").symlink_to(PROJECT / "weights" / "player.pt")
    for name in ("player.engine", "Player.PT"):
        (folder / name).touch()
    player, pitch, unused = weights(folder)
    assert (player.level, pitch.level, unused.level) == ("bad", "bad", "warning")
    assert "player.engine" in unused.says and "Player.PT" in unused.says


def _checkpoint(file: Path, pickle: bytes) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("best/data.pkl", pickle)
