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


def test_what_a_zero_stands_for(listed: Listed) -> None:
    rows = listed("DEVICE=cpu\nPITCH_STRIDE=4\n")
    assert rows["BATCH_SIZE"][0] == "0 (16 here)"
    assert rows["EXTERNAL_PORT"][0] == "0 (7999 here)"
    assert rows["PITCH_STRIDE"][0] == "4"
