"""export.sh and triton-checked.sh: what is exported and when, and that Triton serves it and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands.main import run
from tests.deploy.files import DEPLOY, PROJECT, instructions, tool

# In place of Python: notes the command and writes what an export writes. Plans and GPUs are looked at by the project.
PYTHON = """#!/bin/sh
case $2 in export.*) PYTHONPATH=PROJECT exec PYTHON "$@";; esac
echo "$@" >> calls
while [ $# -gt 0 ]; do
    case $1 in --out) out=$2;; --player|--pitch|--ball) models="$models ${1#--}";; esac
    shift
done
for model in $models; do mkdir -p "$out/$model"; date +%N > "$out/$model/config.pbtxt"; done
""".replace("PROJECT", str(PROJECT)).replace("PYTHON ", f"{sys.executable} ")

# In place of Triton: says what it was started with and which engines, knows one flag, and answers nothing.
TRITON = """#!/bin/sh
if [ "$1" = --help ]; then echo "  --pinned-memory-pool-byte-size <integer>
  FLAG"; exit 1; fi
echo "$@" "gpus=${CUDA_VISIBLE_DEVICES:-all} order=$CUDA_DEVICE_ORDER" >> started
trap 'echo ended >> started; exit 0' TERM
while :; do sleep 0.05; done
"""

L4 = "NVIDIA L4, 8.9"
H100 = "NVIDIA H100 80GB HBM3, 9.0"


class Host:
    """A folder that stands for the export container, and for the volume that Triton's has too."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("bin", "weights", "bundled", "app/export", "app/touchline"):
            (root / name).mkdir(parents=True)
        (root / "app" / "commands").mkdir()
        (root / "app" / "commands" / "export.py").write_text("")
        (root / "bundled" / "player.pt").write_text("bundled player")
        (root / "bundled" / "pitch.onnx").write_text("pitch")
        (root / "weights" / "player.pt").write_text("player")
        self.tool("python", PYTHON)
        self.tool("triton-checked", (DEPLOY / "triton-checked.sh").read_text())
        self.tool("tritonserver", TRITON.replace("FLAG", "--allow-client-shm <boolean>"))
        self.gpus(L4)

    def tool(self, name: str, text: str) -> None:
        (self.root / "bin" / name).write_text(text)
        (self.root / "bin" / name).chmod(0o755)

    def gpus(self, *names: str) -> None:
        lines = "\n".join(f"{place}, GPU-{place}f, {name}" for place, name in enumerate(names))
        self.tool("nvidia-smi", f"#!/bin/sh\ncat <<END\n{lines}\nEND\n")

    def environment(self, **environment: str) -> dict[str, str]:
        own = {
            "PATH": f"{self.root / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "app"),
            "WEIGHTS": "weights",
            "BUNDLED": "bundled",
            "OUT": "repository",
            "STAMP": "exported",
            "SERVE": ".",
        }
        return {**own, **environment}

    def export(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return tool("sh", DEPLOY / "export.sh", cwd=self.root, env=self.environment(**environment))

    @contextmanager
    def triton(self, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Triton's container: the script that the export left, with the project's own check, and no PYTHONPATH."""
        shutil.rmtree(self.root / "export")
        shutil.copytree(PROJECT / "export", self.root / "export")
        variables = self.environment(**environment)
        del variables["PYTHONPATH"]
        command = ["sh", str(self.root / "triton-checked"), "tritonserver", "--model-repository=here"]
        with subprocess.Popen(
            command, cwd=self.root, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                yield process
            finally:
                process.terminate()

    def started(self, times: int = 1) -> list[str]:
        """What Triton said of its starts and ends, when there are so many lines."""
        path = self.root / "started"
        return wait_for(lambda: path.read_text().splitlines() if path.exists() else [], times)

    @property
    def calls(self) -> list[list[str]]:
        calls = self.root / "calls"
        return [line.split() for line in calls.read_text().splitlines()] if calls.exists() else []


def wait_for(look: Callable[[], list[str]], count: int) -> list[str]:
    deadline = time.monotonic() + 30
    while len(look()) < count:
        assert time.monotonic() < deadline, look()
        time.sleep(0.02)
    return look()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_bare_clone_exports_the_bundled_models_and_says_how_to_bring_better_ones(host: Host) -> None:
    (host.root / "weights" / "player.pt").unlink()
    done = host.export()
    assert done.returncode == 0, done.stderr
    (call,) = host.calls
    assert call[call.index("--player") + 1] == "bundled/player.pt"
    assert call[call.index("--pitch") + 1] == "bundled/pitch.onnx"
    assert "the bundled player model" in done.stdout and "put player.pt into deploy/weights/" in done.stdout
    assert "PLAYER_WEIGHTS" in done.stdout and "PITCH_WEIGHTS" in done.stdout


def test_what_the_image_bundles_is_what_the_script_looks_for() -> None:
    (copied,) = [
        instruction.value.split()
        for instruction in instructions(DEPLOY / "export.Dockerfile")
        if instruction.name == "COPY" and "bundled" in instruction.value
    ]
    *sources, target = copied
    assert target == "/opt/touchline/bundled/"
    assert f"BUNDLED:-{target.rstrip('/')}}}" in (DEPLOY / "export.sh").read_text()
    assert {Path(source).stem for source in sources} == {"player", "pitch"}


def test_own_weights_go_before_the_bundled_ones(host: Host) -> None:
    done = host.export()
    assert done.returncode == 0, done.stderr
    (call,) = host.calls
    assert call[:3] == ["-m", "commands.main", "export"]
    assert call[call.index("--player") + 1] == "weights/player.pt"
    assert "the bundled player" not in done.stdout
    assert call[call.index("--pitch") + 1] == "bundled/pitch.onnx"
    assert call[call.index("--target") + 1] == "tensorrt"
    assert "--ball" not in call


def test_weights_in_the_folder_and_on_the_hub(host: Host) -> None:
    done = host.export(PITCH_WEIGHTS="me/pitch:best.pt", EXPORT_IMGSZ="736x1280", EXPORT_PRECISION="fp32")
    assert done.returncode == 0, done.stderr
    (call,) = host.calls
    assert call[call.index("--player") + 1] == "weights/player.pt"
    assert call[call.index("--pitch") + 1] == "me/pitch:best.pt"
    assert call[call.index("--imgsz") + 1] == "736x1280"
    assert call[call.index("--precision") + 1] == "fp32"


def test_the_second_time_nothing_is_done(host: Host) -> None:
    host.export()
    again = host.export()
    assert again.returncode == 0
    assert "up to date" in again.stdout
    assert len(host.calls) == 1


def test_further_flags_are_passed_on_as_they_are_and_count(host: Host) -> None:
    host.export()
    (host.root / "weights" / "a_file").touch()
    flags = "--workspace-gib 2  --map-class keeper=goalkeeper --parity-images weights/*"
    done = host.export(EXPORT_FLAGS=flags)
    assert done.returncode == 0, done.stderr
    assert host.calls[1][-6:] == flags.split(), "split at spaces, and no * is filled in"
    assert "up to date" in host.export(EXPORT_FLAGS=flags).stdout
    host.export()
    assert len(host.calls) == 3


def test_the_command_takes_the_last_of_an_option_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """Which is how EXPORT_FLAGS wins over the other variables."""
    assert run(["export", "--player", "gone.pt", "--target", "openvino", "--imgsz", "64x64", "--imgsz", "64x65"]) == 1
    assert "64x65" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["weights", "release", "gpu", "another", "code", "lost", "unfit"])
def test_what_changed_is_exported_again(host: Host, change: str) -> None:
    host.export()
    if change == "weights":
        (host.root / "bundled" / "pitch.onnx").write_text("other")
    elif change == "gpu":
        host.gpus(H100)
    elif change == "another":
        host.gpus(L4, H100)
    elif change == "code":
        (host.root / "app" / "export" / "graph.py").write_text("new")
    elif change == "lost":
        (host.root / "repository" / "player" / "config.pbtxt").unlink()
    elif change == "unfit":
        (host.root / "repository" / "player" / "config.pbtxt").write_text('platform: "tensorrt_plan"')
    host.export(NGC_TAG="26.10" if change == "release" else "")
    assert len(host.calls) == 2


def test_gpus_that_are_not_to_serve_change_nothing(host: Host) -> None:
    host.gpus(L4, H100)
    host.export(GPUS="1")
    host.gpus(H100, H100)
    assert "up to date" in host.export(GPUS="1").stdout
    wrong = host.export(GPUS="2")
    assert wrong.returncode == 1
    assert "there is no GPU 2 (GPUS" in wrong.stderr and "0 (NVIDIA H100 80GB HBM3, 9.0)" in wrong.stderr
    assert len(host.calls) == 1


def test_a_ball_model_that_was_taken_away_is_served_no_more(host: Host) -> None:
    ball = host.root / "weights" / "ball.pt"
    ball.write_text("ball")
    host.export()
    assert (host.root / "repository" / "ball").exists()
    ball.unlink()
    host.export()
    assert not (host.root / "repository" / "ball").exists()


def test_a_failed_export_is_tried_again_and_leaves_the_old_engines(host: Host) -> None:
    host.export()
    before = (host.root / "repository" / "player" / "config.pbtxt").read_text(), (host.root / "exported").read_text()
    (host.root / "weights" / "player.pt").write_text("other")
    failing = PYTHON + 'rm -r "$out/pitch"; exit 3\n'
    host.tool("python", failing)
    assert host.export().returncode == 3
    assert before == (
        (host.root / "repository" / "player" / "config.pbtxt").read_text(),
        (host.root / "exported").read_text(),
    )
    assert (host.root / "repository" / "pitch" / "config.pbtxt").exists()
    assert not [path.name for path in host.root.iterdir() if path.name.endswith((".next", ".old", "building"))]
    host.tool("python", PYTHON)
    assert host.export().returncode == 0
    assert len(host.calls) == 3


def test_two_exports_do_not_meet(host: Host) -> None:
    host.tool("python", PYTHON.replace("echo", "while [ ! -e go ]; do sleep 0.05; done; echo", 1))
    command = ["sh", str(DEPLOY / "export.sh")]
    with subprocess.Popen(command, cwd=host.root, env=host.environment()) as first:
        wait_for(lambda: [path.name for path in host.root.glob("building")], 1)
        with subprocess.Popen(
            command, cwd=host.root, env=host.environment(), text=True, stdout=subprocess.PIPE
        ) as second:
            assert second.stdout
            assert any("waiting for another export" in line for line in iter(second.stdout.readline, ""))
            (host.root / "go").touch()
            assert "up to date" in second.stdout.read()
        assert first.wait(30) == second.wait(30) == 0
    assert len(host.calls) == 1


def test_triton_starts_only_with_engines_that_fit(host: Host) -> None:
    """What the export leaves for Triton's container, run with the project's own check."""
    assert host.export().returncode == 0
    (host.root / "repository" / "player" / "config.pbtxt").write_text('platform: "tensorrt_plan"')
    with host.triton() as refused:
        _, said = refused.communicate(timeout=30)
    assert refused.returncode == 1
    assert "there is no plan" in said
    assert not (host.root / "started").exists()


@pytest.mark.parametrize("knows", [True, False], ids=["26.04", "26.03"])
def test_triton_is_told_of_shared_memory_where_it_has_to_be(host: Host, knows: bool) -> None:
    if not knows:
        host.tool("tritonserver", TRITON.replace("FLAG", ""))
    host.gpus(L4, L4, L4)
    host.export(GPUS="0, 2")
    with host.triton(GPUS="0, 2"):
        (started,) = host.started()
    assert ("--allow-client-shm=true" in started) is knows
    # Half a GiB of pinned memory for each of the two GPUs, and as much again.
    assert f"--pinned-memory-pool-byte-size={3 * 2**29} " in started
    assert started.startswith("--model-repository=here ")
    assert started.endswith("gpus=0,2 order=PCI_BUS_ID")


def test_triton_ends_while_engines_are_built_and_comes_back_with_the_new_ones(host: Host) -> None:
    """As Docker would start its container again; nothing but the export is run in between."""
    host.export()
    with host.triton() as triton:
        host.started(1)
        host.export()
        time.sleep(2.5)
        assert triton.poll() is None, "an export that finds the engines up to date disturbs nothing"
        (host.root / "weights" / "player.pt").write_text("other")
        host.tool("python", PYTHON.replace("echo", "while [ ! -e go ]; do sleep 0.05; done; echo", 1))
        with subprocess.Popen(["sh", DEPLOY / "export.sh"], cwd=host.root, env=host.environment()) as export:
            said, _ = triton.communicate(timeout=30)
            assert "the export is building engines" in said
            assert triton.returncode == 0
            assert host.started(2)[1] == "ended", "it was asked to end, not killed"
            with host.triton() as again:
                time.sleep(1)
                assert len(host.started()) == 2, "it waits for the engines"
                (host.root / "go").touch()
                assert export.wait(30) == 0
                host.started(3)
                assert again.poll() is None


def test_engines_that_were_built_between_two_looks_are_served_too(host: Host) -> None:
    host.export()
    with host.triton() as triton:
        host.started(1)
        (host.root / "weights" / "player.pt").write_text("other")
        host.export()
        triton.communicate(timeout=30)
    assert host.started(2)[1] == "ended"


def test_an_export_that_was_killed_holds_triton_up_for_a_minute_and_no_longer(host: Host) -> None:
    host.export()
    (host.root / "building").touch()
    os.utime(host.root / "building", (time.time() - 61,) * 2)
    with host.triton():
        host.started(1)


def test_stopping_the_container_ends_triton(host: Host) -> None:
    host.export()
    with host.triton() as triton:
        host.started(1)
        triton.terminate()
        assert triton.wait(30) == 0
    assert host.started(2)[1] == "ended"
    (host.root / "building").touch()
    with host.triton() as waiting:
        assert waiting.stdout and "waiting for it" in waiting.stdout.readline()
        waiting.terminate()
        assert waiting.wait(30) == 143


def test_triton_that_crashes_ends_the_container_with_its_status(host: Host) -> None:
    host.tool("tritonserver", "#!/bin/sh\nif [ $1 = --help ]; then exit 0; fi\nexit 42\n")
    host.export()
    with host.triton() as triton:
        assert triton.wait(30) == 42


def test_missing_weights_are_named(host: Host) -> None:
    (host.root / "weights" / "player.pt").unlink()
    (host.root / "bundled" / "player.pt").unlink()
    refused = host.export()
    assert refused.returncode == 1
    assert "player.pt" in refused.stderr
    assert not host.calls


def test_a_link_that_leads_nowhere_does_not_give_way_to_the_bundled_model(host: Host) -> None:
    (host.root / "weights" / "player.pt").unlink()
    (host.root / "weights" / "player.pt").symlink_to("/nowhere/best.pt")
    refused = host.export()
    assert refused.returncode == 1
    assert "player.pt is a link" in refused.stderr
    assert not host.calls


def test_the_real_command_takes_these_options(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Parsed by the command itself, which then stops because TensorRT is not here; a wrong option would end in 2."""
    host.export(PLAYER_WEIGHTS="gone.pt", PITCH_WEIGHTS="gone.pt", BALL_WEIGHTS="gone.pt")
    (call,) = host.calls
    assert run(call[2:]) == 1
    assert "TensorRT" in capsys.readouterr().err
