"""`touchline settings`: each value, where it comes from, and no secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from commands.main import run
from gateway.settings import Settings

Listed = Callable[..., dict[str, tuple[str, str]]]


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Listed:
    """(value, source) by name, in a folder with a .env file."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("TRITON_URL", raising=False)

    def ask(text: str, *options: str, **environment: str) -> dict[str, tuple[str, str]]:
        (tmp_path / ".env").write_text(text)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert run(["settings", "--json", *options]) == 0
        rows = json.loads(capfd.readouterr().out)
        assert all(row["meaning"] for row in rows)
        return {row["name"]: (row["value"], row["source"]) for row in rows}

    return ask


def test_every_setting_is_listed_with_its_source(listed: Listed) -> None:
    rows = listed("FRAME_STRIDE=3\nport = 8000\nDEVICE=CPU \nIMG_SIZE=\n", PORT="8001", triton_url="a:8001")
    assert rows.keys() == {name.upper() for name in Settings.model_fields}
    assert rows["FRAME_STRIDE"] == ("3", ".env")
    assert rows["PORT"] == ("8001", "environment")
    assert rows["DEVICE"] == ("cpu", ".env")
    assert rows["IMG_SIZE"] == ("640", "default")
    assert rows["TRITON_URLS"] == ("a:8001", "environment")


def test_only_what_is_changed(listed: Listed, capfd: pytest.CaptureFixture[str]) -> None:
    assert listed("NETUID=261\nOTHER=1\n", "--changed") == {"NETUID": ("261", ".env")}
    assert listed("", "--changed") == {}
    assert run(["settings", "--changed"]) == 0
    assert "nothing is set" in capfd.readouterr().out


def test_secrets_are_not_shown(listed: Listed, capfd: pytest.CaptureFixture[str]) -> None:
    rows = listed("CONSOLE_TOKEN=hidden\nNONCE_REDIS_URL=redis://:hidden@host:6379\n")
    assert rows["CONSOLE_TOKEN"] == rows["NONCE_REDIS_URL"] == ("set, not shown", ".env")
    assert run(["settings"]) == 0
    assert "hidden" not in capfd.readouterr().out


def test_names_that_nothing_reads_are_told_with_the_one_that_was_meant(
    listed: Listed, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "WALLET_NAME" not in listed("WALET_NAME=mine\nGPUS=0\nCOMPOSE_FILE=x\nGRAFANA_PORT=3001\n", "--changed")
    assert run(["settings", "--changed"]) == 0
    said = capfd.readouterr().err
    assert "WALET_NAME (WALLET_NAME?)" in said and "GRAFANA" not in said and "COMPOSE" not in said


@pytest.mark.parametrize("text", ["PORT: 8000\n", 'PORT="8000\n', "set PORT=8000\n"])
def test_a_line_that_would_be_left_out_is_refused(
    text: str, listed: Listed, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text(f"# one\n{text}")
    assert run(["settings"]) == 1
    assert "error: .env: line 2 is no NAME=value" in capfd.readouterr().err


def test_a_number_with_a_unit_is_told_what_to_write(
    listed: Listed, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("QUEUE_S=10s\n")
    assert run(["settings"]) == 1
    assert "QUEUE_S '10s': write a number in digits and a point alone, without a unit" in capfd.readouterr().err


def test_what_a_zero_stands_for(listed: Listed) -> None:
    rows = listed("DEVICE=cpu\nPITCH_STRIDE=4\n")
    assert rows["BATCH_SIZE"][0] == "0 (16 here)"
    assert rows["EXTERNAL_PORT"][0] == "0 (7999 here)"
    assert rows["PITCH_STRIDE"][0] == "4"
