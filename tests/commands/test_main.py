"""The command line as a user meets it: as a process, its exit status and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from commands.main import BENCH, COMMANDS, Later, app
from tests.support.commands import Touchline, process
from tests.support.videos import make_video
from touchline import __version__


def test_help_names_every_command(tmp_path: Path) -> None:
    said = process("--help", cwd=tmp_path)
    assert said.returncode == 0
    for command in (*COMMANDS, "bench"):
        assert command in said.stdout


@pytest.mark.parametrize("words", [[name] for name in COMMANDS] + [["bench", name] for name in BENCH])
def test_every_command_that_help_names_has_options_and_a_help_of_its_own(words: list[str]) -> None:
    command: Any = get_command(app)
    for word in words:
        command = command.commands[word]
    assert isinstance(command, Later)
    loaded = command.load()
    assert loaded.help and loaded.name == words[-1]


def test_help_imports_no_commands(tmp_path: Path) -> None:
    """So that it is quick: each of these takes longer to import than all of the command line."""
    asked = (
        "import sys; from commands.main import run; run(['--help']); print(sorted({*sys.argv[1:]} & {*sys.modules}))"
    )
    slow = ["numpy", "httpx", "pydantic", "grpc", "av", "cv2", "bittensor_wallet", "uvicorn", "gateway", "export"]
    said = subprocess.run(
        [sys.executable, "-c", asked, *slow], check=True, capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert said.stdout.splitlines()[-1] == "[]"


def test_the_version(tmp_path: Path) -> None:
    assert process("--version", cwd=tmp_path).stdout == f"touchline {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["challenge", "nowhere.mp4"], "nowhere.mp4 is neither a file nor"),
        (["challenge", "http://127.0.0.1:9/v.mp4", "--gateway", "http://127.0.0.1:9"], "say who signs"),
        (["challenge", "http://127.0.0.1:9/v.mp4", "--gateway", "http://127.0.0.1:9", "--keys", "."], "holds no keys"),
        (["serve"], "hotkey file"),
        (["register"], "hotkey file"),
        (["triton", "--repository", "."], "holds no model"),
        (["export", "nowhere.pt", "--target", "openvino"], "nowhere.pt"),
        (["export", "--target", "openvino"], "nothing to export"),
        (["export", "nowhere.pt", "--imgsz", "640"], "384x640"),
        (["export", "nowhere.pt", "--map-class", "keeper"], "keeper=goalkeeper"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], expected: str, touchline: Touchline, tmp_path: Path
) -> None:
    said = touchline(*arguments, cwd=tmp_path, WALLET_PATH=str(tmp_path))
    assert said.returncode == 1
    assert expected in said.stderr
    assert "Traceback" not in said.stderr


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    said = process("serve", cwd=tmp_path, FRAME_STRIDE="0")
    assert said.returncode == 1
    assert "FRAME_STRIDE" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_gateway_that_is_not_there(touchline: Touchline, tmp_path: Path) -> None:
    assert touchline("keys", "keys", cwd=tmp_path).returncode == 0
    make_video(tmp_path / "v.mp4", 3)
    said = process("challenge", "v.mp4", "--gateway", "http://127.0.0.1:9", "--keys", "keys", cwd=tmp_path)
    assert said.returncode == 1
    assert "http://127.0.0.1:9 could not be asked" in said.stderr
    assert not (tmp_path / "out").exists()


def test_keys_are_made_once_and_kept_private(touchline: Touchline, tmp_path: Path) -> None:
    first = process("keys", "keys", cwd=tmp_path)
    nodes = json.loads((tmp_path / "keys" / "nodes.json").read_text())
    assert touchline("keys", "keys", cwd=tmp_path).stdout == first.stdout
    assert json.loads((tmp_path / "keys" / "nodes.json").read_text()) == nodes
    for path in (tmp_path / "keys").rglob("hotkeys/*"):
        assert path.stat().st_mode & 0o077 == 0
    assert "export WALLET_PATH=" in first.stdout


@pytest.mark.parametrize("text", ["not json", "{}", '{"frames": []}'])
def test_render_refuses_what_is_no_answer(text: str, touchline: Touchline, tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", 3)
    (tmp_path / "r.json").write_text(text)
    said = touchline("render", "v.mp4", "r.json", cwd=tmp_path)
    assert said.returncode == 1
    assert "Traceback" not in said.stderr
    assert not list(tmp_path.glob("out/*"))
