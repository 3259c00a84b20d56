"""Every command with ten kinds of wrong input: one line that says what is wrong and what to do, never a traceback."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from bittensor_wallet import Keypair

from commands.main import BENCH, COMMANDS, run
from local.stack import make_keys
from local.triton import LocalTriton
from tests.support.videos import make_video

TAKEN = "{taken}"
"""Stands for a port that somebody listens on."""

REMEDIES = (
    "; ",
    ": write ",
    ": give ",
    ". Check ",
    ". Run ",
    ". Give ",
    ". Name ",
    " is written ",
    "neither",
    "must lie between",
    "it is one of",
    "must be multiples of",
    "there are no weights for",
)
"""What introduces the remedy in what is said."""

WRONG_SETTINGS = [
    "PORT=80x", "PORT=70000", "DEVICE=rocm", "LOG_LEVEL=loud", "FRAME_STRIDE=0", "CONFIDENCE=2", "TRITON_URLS=,",
    "REFRESH_NODES=perhaps", "NETUID=forty", "MAX_VIDEO_MB=-1", "SUBTENSOR_NETWORK=moon",
]  # fmt: skip
WRONG_WORDS = ["--bogus", "surplus surplus", "--out"]

WRONG_ANSWERS = [
    "",
    "v.mp4",
    "none.mp4 answer.json",
    "text.txt answer.json",
    "v.mp4 none.json",
    "v.mp4 .",
    "v.mp4 text.txt",
    "v.mp4 v.mp4",
    "v.mp4 empty.json",
    "v.mp4 list.json",
    "v.mp4 deep.json",
]

WRONG: dict[str, list[str]] = {
    "serve": [
        *WRONG_SETTINGS,
        "HOTKEY_NAME=none",
        "HOTKEY_NAME=encrypted",
        "HOTKEY_NAME=ed25519",
        "HOTKEY_NAME=other",
        "HOTKEY_NAME=empty",
        "HOTKEY_NAME=.",
        "HOST=x86_64-conda-linux-gnu",
        "HOST=192.0.2.1",
        f"PORT={TAKEN}",
        f"CONSOLE_PORT={TAKEN}",
        f"METRICS_PORT={TAKEN}",
        "CONSOLE_PORT=7998 CONSOLE_HOST=nowhere.invalid CONSOLE_TOKEN=x",
        "NODES_FILE=none.json",
        "NODES_FILE=text.txt",
        "NONCE_REDIS_URL=http://nowhere",
        "DEVICE=cuda VIDEO_DECODER=nvdec",
    ],
    "doctor": [*WRONG_SETTINGS],
    "settings": [*WRONG_SETTINGS],
    "register": [
        *WRONG_SETTINGS[:4],
        "HOTKEY_NAME=none",
        "HOTKEY_NAME=encrypted",
        "HOTKEY_NAME=ed25519",
        "HOTKEY_NAME=other",
        "SUBTENSOR_ADDRESS=ws://127.0.0.1:1",
        "SUBTENSOR_ADDRESS=nonsense",
        "--max-cost -1",
        "--max-cost much",
    ],
    "triton": [
        "--repository none",
        "--repository text.txt",
        "--repository .",
        "--grpc-port 0",
        "--http-port 70000",
        "--metrics-port x",
        "--grpc-port 8000 --http-port 8000",
        f"--grpc-port {TAKEN}",
        f"--http-port {TAKEN}",
        "--repository",
    ],
    "keys": [
        "",
        "text.txt",
        "text.txt/below",
        "/proc/none",
        "/dev/null",
        "junk-keys",
        "empty-keys",
        "one two",
        "--bogus keys",
        "--directory keys",
    ],
    "challenge": [
        "",
        "none.mp4",
        ".",
        "ftp://host/v.mp4",
        "v.mp4 --gateway http://127.0.0.1:9",
        "v.mp4 --gateway nonsense --keys keys",
        "v.mp4 --gateway http://[ --keys keys",
        "v.mp4 --gateway http://127.0.0.1:9 --keys keys",
        "v.mp4 --gateway http://127.0.0.1:9 --keys none",
        "v.mp4 --gateway http://127.0.0.1:9 --keys junk-keys",
        "v.mp4 --gateway http://127.0.0.1:9 --hotkey-file none --miner-hotkey {alice}",
        "v.mp4 --gateway http://127.0.0.1:9 --hotkey-file text.txt --miner-hotkey {alice}",
        "v.mp4 --gateway http://127.0.0.1:9 --hotkey-file text.txt --miner-hotkey nobody",
        "v.mp4 --gateway http://127.0.0.1:9 --hotkey-file text.txt",
        "v.mp4 --out .",
        "v.mp4 --out text.txt/answer.json",
        "v.mp4 DEVICE=rocm",
    ],
    "render": [
        *WRONG_ANSWERS,
        "v.mp4 answer.json",
        "v.mp4 answer.json --out text.txt",
        "v.mp4 answer.json --out text.txt/below",
    ],
    "score": [
        *WRONG_ANSWERS,
        "v.mp4 answer.json --every 0",
        "v.mp4 answer.json --fastest -1",
        "v.mp4 answer.json --out text.txt/below",
        "v.mp4 answer.json --json text.txt/below",
    ],
    "export": [
        "--target openvino",
        "none.pt --target openvino",
        "none.pt",
        "a.pt b.pt c.pt d.pt --target onnx",
        "none.pt --imgsz 640 --target onnx",
        "none.pt --imgsz 100x100 --target onnx",
        "none.pt --precision fp99",
        "none.pt --target coreml",
        "none.pt --map-class keeper --target onnx",
        "none.pt --confidence 2 --target onnx",
        "none.pt --max-batch 0 --target onnx",
        "none.pt --out text.txt --target onnx",
        "text.txt --target onnx",
        "--pitch-imgsz 384x640 --player none.pt --target onnx",
    ],
    "package": [
        "",
        "none.pt",
        "none.onnx",
        "text.txt",
        "v.mp4",
        "none.onnx --check text.txt",
        "--check none",
        "--check text.txt",
        "--check keys --pictures none",
        "--check keys --pictures keys",
        "none.onnx --imgsz 640",
        "none.onnx --imgsz 100x100",
        "none.onnx --objects ,",
        "none.onnx --out text.txt",
    ],
    "demo": [
        "--out text.txt",
        "--out text.txt/below",
        "--out /proc/none",
        "--out /dev/null",
        "--out v.mp4",
        *WRONG_SETTINGS[:5],
    ],
    "replay": [
        "",
        "none",
        ".",
        "text.txt",
        "v.mp4",
        "none.mp4",
        "keys",
        "keys --settings none.env",
        "keys --repository none",
        "keys --last 0",
        "keys --json /proc/none/x",
        *WRONG_SETTINGS[:3],
    ],
    "watch": [
        "",
        "none.mp4",
        ".",
        "v.mp4 none.mp4",
        "ftp://127.0.0.1/v.mp4",
        "rtsp://",
        "rtsp://127.0.0.1:99999/",
        "rtsp://user:p@ss/w@127.0.0.1/",
        "file://v.mp4",
        " ".join(["v.mp4"] * 17),
        "v.mp4 --port x",
        "v.mp4 --port 70000",
        f"v.mp4 --port {TAKEN}",
        "v.mp4 --port 0 --repository none",
        "v.mp4 --port 0 --repository text.txt",
        "v.mp4 --port 0 LIVE_ALLOWED=!",
        *WRONG_SETTINGS[:4],
    ],
    "bench engine": [
        "none",
        "text.txt",
        "--batch x",
        "--batch 0",
        "--batch 1,,2",
        "--seconds 0",
        "--seconds nan",
        "--concurrency 0",
        "--triton-url nonsense",
        "--triton-url 127.0.0.1:9 --seconds 1",
        "--triton-url 127.0.0.1:8001 --metrics-url nonsense",
        "--json .",
        "--plot text.txt/plot.png",
    ],
    "bench challenge": [
        "",
        "none.mp4",
        ".",
        "v.mp4 --batch x",
        "v.mp4 --stride 0",
        "v.mp4 --stride 51",
        "v.mp4 --pitch-stride -1",
        "v.mp4 --runs 0",
        "v.mp4 --fastest -1",
        "v.mp4 --json .",
        "v.mp4 --repository none",
        "v.mp4 --repository text.txt",
        "v.mp4 DEVICE=rocm",
    ],
}


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wrong input that goes unnoticed fails at once, and does not serve for ever."""

    def started(*_: object) -> None:
        raise AssertionError("it was started")

    monkeypatch.setattr(uvicorn.Server, "run", started)
    monkeypatch.setattr(LocalTriton, "wait_ready", started)
    signal.signal(signal.SIGALRM, started)
    signal.alarm(120)
    yield
    signal.alarm(0)


@pytest.fixture(scope="module")
def three_frames(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_video(tmp_path_factory.mktemp("video") / "v.mp4", 3).read_bytes()


@pytest.fixture
def place(three_frames: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with good and bad inputs, and the settings of a good miner."""
    monkeypatch.chdir(tmp_path)
    made = make_keys(tmp_path / "keys")
    hotkeys = tmp_path / "keys" / "wallets" / "throwaway" / "hotkeys"
    (hotkeys / "encrypted").write_bytes(b"$NACL" + bytes(range(128, 200)))
    (hotkeys / "ed25519").write_text(json.dumps({"secretSeed": "0x" + "11" * 32, "cryptoType": 0}))
    alice = Keypair.create_from_uri("//Alice").ss58_address
    (hotkeys / "other").write_text(json.dumps({"secretSeed": "0x" + "11" * 32, "ss58Address": alice}))
    (hotkeys / "empty").touch()
    for name, text in (("junk-keys", "no JSON"), ("empty-keys", "{}")):
        folder = tmp_path / name / "wallets" / "throwaway" / "hotkeys"
        folder.mkdir(parents=True)
        (folder / "miner").write_text(text)
        (tmp_path / name / "nodes.json").write_text("{}")
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOST", "127.0.0.1")
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("CONSOLE_PORT", "0")
    monkeypatch.setenv("METRICS_PORT", "0")
    monkeypatch.setenv("COLUMNS", "400")
    (tmp_path / "v.mp4").write_bytes(three_frames)
    (tmp_path / "text.txt").write_text("text\n")
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "answer.json").write_text('{"frames": [{"frame_number": 0, "objects": 5}]}')
    return tmp_path


def files(place: Path) -> set[str]:
    return {str(path) for path in place.rglob("*")}


CASES = [(command, words) for command in WRONG for words in WRONG[command]] + [
    (command, words) for command in WRONG for words in WRONG_WORDS
]


def test_every_command_is_given_ten_kinds_of_wrong_input() -> None:
    assert WRONG.keys() == {*COMMANDS, *(f"bench {name}" for name in BENCH)}
    assert all(len(set(kinds)) >= 10 for kinds in WRONG.values())


@pytest.mark.parametrize(("command", "words"), CASES, ids=[f"{command} {words}" for command, words in CASES])
def test_it_is_one_line_with_a_remedy(
    command: str,
    words: str,
    place: Path,
    taken: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = files(place)
    words = words.replace(TAKEN, str(taken)).replace("{alice}", Keypair.create_from_uri("//Alice").ss58_address)
    arguments = []
    for word in words.split():
        name, equals, value = word.partition("=")
        if equals and name.isupper():
            monkeypatch.setenv(name, value)
        else:
            arguments.append(word)
    assert run([*command.split(), *arguments]) in (1, 2)
    said = capfd.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert said.rstrip().endswith(line)
    assert "Traceback" not in said and "please report" not in said
    assert any(mark in line for mark in REMEDIES), line
    assert files(place) == before


def test_a_settings_file_of_another_encoding(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / ".env").write_bytes("WALLET_NAME=größe".encode("latin-1"))
    assert run(["settings"]) == 1
    assert "error: .env is not UTF-8" in capfd.readouterr().err


def test_a_secret_that_is_wrong_is_not_repeated(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NONCE_REDIS_URL", "http://:hidden@nowhere")
    assert run(["serve"]) == 1
    said = capfd.readouterr()
    assert "NONCE_REDIS_URL" in said.err and "hidden" not in said.err + said.out


def test_a_package_that_is_not_here_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "export.command", None)
    monkeypatch.delitem(sys.modules, "commands.export", raising=False)
    assert run(["export", "x.pt"]) == 1
    said = capfd.readouterr().err
    assert said.startswith("error: `touchline export` needs export") and "docker compose run" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("shown", [False, True])
def test_what_nobody_expected_is_one_line_until_the_traceback_is_asked_for(
    shown: bool, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise LookupError("odd")

    monkeypatch.setattr("commands.keys.make_keys", fail)
    assert run([*(["--traceback"] if shown else []), "keys", "x"]) == 1
    said = capfd.readouterr().err
    assert "unexpected LookupError: odd" in said and ("Traceback" in said) is shown
