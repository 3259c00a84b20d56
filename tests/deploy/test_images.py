"""The Dockerfiles: linted, complete, and their install steps run for real in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import httpx
import pytest

from local.child_process import end_with_parent
from local.ports import free_ports
from local.stack import make_keys
from local.triton import DEFAULT_ENVIRONMENT, _libpython_folder
from tests.deploy.files import DEPLOY, PROJECT, instructions, tool
from tests.support.pictures import picture
from tests.support.quick_models import write_quick_models

DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
BIN = Path(sys.executable).parent


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    linted = tool(BIN / "hadolint", dockerfile)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_let_through(dockerfile: Path) -> None:
    sources = [
        word
        for instruction in instructions(dockerfile)
        if instruction.name == "COPY" and not instruction.value.startswith("--from")
        for word in instruction.value.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (PROJECT / source).exists(), source
        assert not ignored(source), f".dockerignore keeps {source} out"


def test_secrets_and_environments_stay_out_of_the_build() -> None:
    for path in (
        ".env",
        "deploy/.env",
        "deploy/weights/player.pt",
        ".git/config",
        ".venv/bin/python",
        "out/response.json",
    ):
        assert ignored(path), path


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_image_runs_as_a_user_and_installs_pins_only(dockerfile: Path) -> None:
    found = instructions(dockerfile)
    last_stage = found[-1].stage
    (user,) = [
        instruction.value for instruction in found if instruction.name == "USER" and instruction.stage == last_stage
    ]
    assert user == "1000:1000"
    for instruction in found:
        if "-r /build" in instruction.value:
            assert "--require-hashes" in instruction.value
            assert "--no-deps" in instruction.value


def test_versions_are_those_of_the_makefile() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    uv = re.search(r"^UV := (\S+)", makefile, re.MULTILINE)
    torch = re.search(r"torch==(\S+)", makefile)
    assert uv and torch
    for dockerfile in DOCKERFILES:
        assert f"UV_VERSION={uv[1]}" in dockerfile.read_text()
    assert f"TORCH_VERSION={torch[1]}" in (DEPLOY / "export.Dockerfile").read_text()


def test_the_gateways_pins_hold_no_torch() -> None:
    for name in ("gateway.txt", "triton.txt"):
        packages = re.findall(r"^([\w.-]+)==", (PROJECT / "requirements" / name).read_text(), re.MULTILINE)
        assert packages
        assert not {"torch", "torchvision", "ultralytics", "tensorrt"} & set(packages)


def test_the_exporter_has_the_pictures_that_it_compares_on(tmp_path: Path) -> None:
    """The folders of its image alone: without demo/ the parity column would stay empty, and nothing would say so."""
    for instruction in instructions(DEPLOY / "export.Dockerfile"):
        source, _, target = instruction.value.partition(" ")
        if instruction.name == "COPY" and target.startswith("/opt/touchline/app/"):
            shutil.copytree(PROJECT / source, tmp_path / Path(target).name)
    # The editable install would help out with what is not there.
    script = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
from export.frames import parity_frames
print(len(parity_frames(None, (64, 96))))
"""
    made = tool(sys.executable, "-c", script, cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)})
    assert made.stdout.strip().isdigit() and int(made.stdout) > 0, made.stdout + made.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The build stages of the gateway's and the CPU Triton's Dockerfile, run by this shell under another root."""
    root = tmp_path_factory.mktemp("images")
    for name in ("gateway", "triton-cpu"):
        run_build_stage(DEPLOY / f"{name}.Dockerfile", root)
    yield root
    shutil.rmtree(root)


def test_the_built_gateway_serves_a_built_triton(built: Path, tmp_path: Path) -> None:
    """Both run from what was built alone, started as their images start them, and find each other."""
    grpc, http, metrics, port, console_port, inside = free_ports(6)
    triton_root, app = built / "opt/tritonserver", built / "opt/touchline"
    # In the image libpython lies where the loader looks, here it lies where this machine's Python has it.
    (python,) = (path.name for path in triton_root.glob("lib/python3.*"))
    triton_environment = {
        "PATH": f"{triton_root}/bin:/usr/bin:/bin",
        "VIRTUAL_ENV": str(triton_root),
        "LD_LIBRARY_PATH": f"{triton_root}/lib/wheel:{_libpython_folder(triton_root, python)}".rstrip(":"),
    }
    triton_command = [
        "tritonserver",
        f"--model-repository={write_quick_models(tmp_path / 'models')}",
        "--disable-auto-complete-config",
        f"--grpc-port={grpc}",
        f"--http-port={http}",
        f"--metrics-port={metrics}",
        f"--backend-directory={triton_root}/backends",
    ]
    keys = make_keys(tmp_path / "keys")
    gateway_environment = {
        **keys.environment(),
        "PATH": f"{app}/bin:/usr/bin:/bin",
        "PYTHONPATH": str(app / "app"),
        "TRITON_URLS": f"127.0.0.1:{grpc}",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "CONSOLE_PORT": str(console_port),
        "METRICS_PORT": str(inside),
        "IMG_SIZE": "160",
        "DEVICE": "cpu",
    }
    with (tmp_path / "log").open("wb") as log:
        servers = [
            subprocess.Popen(
                command,
                env=environment,
                cwd=tmp_path,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,  # noqa: PLW1509
            )
            for command, environment in (
                ([str(triton_root / "bin" / triton_command[0]), *triton_command[1:]], triton_environment),
                ([str(app / "bin" / "python"), "-m", "commands.main", "serve"], gateway_environment),
            )
        ]
        try:
            deadline = time.monotonic() + 60
            while (health := ask(f"http://127.0.0.1:{inside}/health")) is None or health.status_code != 200:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
                time.sleep(0.2)
            console = ask(f"http://127.0.0.1:{console_port}/console")
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait(30)
    assert health.json()["models"] == {"player": "1", "pitch": "1"}
    assert console is not None and "No challenge yet" in console.text
    assert "frames through shared memory" in (tmp_path / "log").read_text()


def test_the_built_gateway_speaks_to_the_chain(built: Path, tmp_path: Path) -> None:
    """As the user of compose: a hotkey file, a home that cannot be written, no name in /etc/passwd needed."""
    app = built / "opt/touchline"
    environment = {
        **make_keys(tmp_path).environment(),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(app / "app"),
        "HOME": "/proc",
        "SUBTENSOR_ADDRESS": "ws://127.0.0.1:1",
    }
    asked = tool(app / "bin/python", "-m", "commands.main", "register", env=environment, cwd=tmp_path)
    assert asked.returncode == 1
    assert "ws://127.0.0.1:1 cannot be reached" in asked.stderr
    wallets = tmp_path / "new"
    made = tool(
        app / "bin/btcli",
        "wallet",
        "create",
        "--no-password",
        "--wallet-path",
        wallets,
        "--wallet",
        "w",
        env=environment,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert (wallets / "w" / "hotkeys" / "default").exists()


def test_the_one_image_of_the_private_track_is_asked_as_a_spot_check_asks(built: Path, tmp_path: Path) -> None:
    """No wallet, no console, no signature: /docs until it answers 200, then a challenge, and an end when told to."""
    dockerfile = instructions(DEPLOY / "private.Dockerfile")
    steps = {instruction.value for instruction in dockerfile if instruction.stage == "build"}
    others = (instructions(DEPLOY / f"{name}.Dockerfile") for name in ("gateway", "triton-cpu"))
    installs = {
        each.value for other in others for each in other if each.name == "RUN" and "uv pip install" in each.value
    }
    assert installs <= steps, "the same pins as in the two images"
    opt, (port, triton_port) = built / "opt", free_ports(2)
    shutil.copy2(DEPLOY / "triton-cpu-entrypoint.sh", opt / "tritonserver/bin/entrypoint")
    shutil.copy2(DEPLOY / "private-entrypoint.sh", opt / "touchline/bin/entrypoint")
    (variables,) = [each.value for each in dockerfile if each.name == "ENV"]
    (python,) = (path.name for path in (opt / "tritonserver").glob("lib/python3.*"))
    environment = {
        **dict(word.split("=", 1) for word in variables.split()),
        "PATH": "/usr/bin:/bin",
        "LD_LIBRARY_PATH": _libpython_folder(opt / "tritonserver", python),
        "OPT": str(opt),
        "MODEL_REPOSITORY": str(write_quick_models(tmp_path / "models")),
        "TRITON_PORT": str(triton_port),
        "TMPDIR": str(tmp_path),
        "NODES_FILE": str(tmp_path / "nodes.json"),
        **{"HOST": "127.0.0.1", "PORT": str(port), "CONSOLE_PORT": "0", "METRICS_PORT": "0"},
        **dict.fromkeys(["VERIFY_ENABLED", "BLACKLIST_ENABLED", "VERIFY", "BLACKLIST"], "false"),
        **{"NETUID": "44", "SPOTCHECK_MODE": "true"},
    }
    with (tmp_path / "log").open("wb") as log:
        image = subprocess.Popen(
            ["sh", str(opt / "touchline/bin/entrypoint")],
            env=environment,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )
        try:
            deadline = time.monotonic() + 240
            while (docs := ask(f"http://127.0.0.1:{port}/docs")) is None or docs.status_code != 200:
                assert time.monotonic() < deadline and image.poll() is None, (tmp_path / "log").read_text()[-3000:]
                time.sleep(0.2)
            challenge = {"challenge_id": "s", "video_url": None, "frames": [{"frame_id": 0, "data": picture(9)}]}
            answer = httpx.post(
                f"http://127.0.0.1:{port}/challenge", json=challenge, headers={"X-Miner-Hotkey": "a"}, timeout=60
            )
        finally:
            image.terminate()
            status = image.wait(30)
    assert status == 0, (tmp_path / "log").read_text()[-3000:]
    assert answer.json()["prediction"] == {"type": "soccer_action", "items": []}
    assert "hotkey none" in (tmp_path / "log").read_text()


def run_build_stage(dockerfile: Path, root: Path) -> None:
    """RUN and COPY of the stage `build`, absolute paths put under `root`. Downloads come from uv's cache."""
    arguments = dict(
        instruction.value.split("=", 1) for instruction in instructions(dockerfile) if instruction.name == "ARG"
    )
    # The local Triton's Python, as it is one with a libpython; uv from the environment of the tests.
    environment = {**os.environ, **arguments, "PATH": f"{DEFAULT_ENVIRONMENT}/bin:{BIN}:{os.environ['PATH']}"}
    for instruction in instructions(dockerfile):
        if instruction.stage != "build":
            continue
        if instruction.name == "COPY":
            *sources, target = instruction.value.split()
            for source in sources:
                place = root / target.lstrip("/")
                if target.endswith("/"):
                    place = place / Path(source).name
                place.parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if (PROJECT / source).is_dir() else shutil.copy2
                copy(PROJECT / source, place)
        elif instruction.name == "RUN" and not instruction.value.startswith("pip install"):
            # Bytecode and fresh downloads matter to an image and only take time here.
            script = re.sub(r" --(no-cache|compile-bytecode)\b", "", instruction.value)
            script = re.sub(r"(?<![\w.}])/(build|opt|var)\b", rf"{root}/\1", script)
            ran = tool("sh", "-euc", script, env=environment)
            assert ran.returncode == 0, f"{script}\n{ran.stdout}{ran.stderr}"


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out: the last pattern that fits decides."""
    out = False
    for line in (PROJECT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").rstrip("/")
        parents = [path, *map(str, Path(path).parents)]
        if any(fnmatch(parent, pattern) or fnmatch(parent, pattern.removeprefix("**/")) for parent in parents):
            out = not line.startswith("!")
    return out


def ask(url: str) -> httpx.Response | None:
    try:
        return httpx.get(url, timeout=2)
    except httpx.HTTPError:
        return None
