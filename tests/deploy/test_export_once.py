"""export.sh: what it hands to `touchline export`, and that it does nothing when nothing has changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands.main import run
from tests.deploy.files import DEPLOY, PROJECT, tool

# In place of Python and nvidia-smi: notes the command and writes what an export writes; the check is the project's own.
PYTHON = """#!/bin/sh
if [ "$2" = export.check ]; then PYTHONPATH=PROJECT exec PYTHON "$@"; fi
echo "$@" >> calls
while [ $# -gt 0 ]; do
    case $1 in --out) out=$2;; --player|--pitch|--ball) models="$models ${1#--}";; esac
    shift
done
for model in $models; do mkdir -p "$out/$model"; : > "$out/$model/config.pbtxt"; done
""".replace("PROJECT", str(PROJECT)).replace("PYTHON ", f"{sys.executable} ")


class Host:
    """A folder that stands for the export container."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("bin", "weights", "bundled", "app/export", "app/touchline"):
            (root / name).mkdir(parents=True)
        (root / "bundled" / "pitch.onnx").write_text("pitch")
        (root / "weights" / "player.pt").write_text("player")
        self.tool("python", PYTHON)
        self.tool("triton-checked", (DEPLOY / "triton-checked.sh").read_text())
        self.gpu("NVIDIA L4, 8.9")

    def tool(self, name: str, text: str) -> None:
        (self.root / "bin" / name).write_text(text)
        (self.root / "bin" / name).chmod(0o755)

    def gpu(self, name: str) -> None:
        self.tool("nvidia-smi", f"#!/bin/sh\necho {name}\n")

    def export(self, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "app"),
            "WEIGHTS": "weights",
            "BUNDLED": "bundled",
            "OUT": "repository",
            "STAMP": "exported",
            "SERVE": ".",
        }
        return tool("sh", DEPLOY / "export.sh", cwd=self.root, env={**own, **environment})

    @property
    def calls(self) -> list[list[str]]:
        calls = self.root / "calls"
        return [line.split() for line in calls.read_text().splitlines()] if calls.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_bundled_pitch_model_without_other_weights(host: Host) -> None:
    done = host.export()
    assert done.returncode == 0, done.stderr
    (call,) = host.calls
    assert call[:3] == ["-m", "commands.main", "export"]
    assert call[call.index("--player") + 1] == "weights/player.pt"
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


@pytest.mark.parametrize("change", ["weights", "release", "gpu", "code", "lost", "unfit"])
def test_what_changed_is_exported_again(host: Host, change: str) -> None:
    host.export()
    if change == "weights":
        (host.root / "bundled" / "pitch.onnx").write_text("other")
    elif change == "gpu":
        host.gpu("NVIDIA H100, 9.0")
    elif change == "code":
        (host.root / "app" / "export" / "graph.py").write_text("new")
    elif change == "lost":
        (host.root / "repository" / "player" / "config.pbtxt").unlink()
    elif change == "unfit":
        (host.root / "repository" / "player" / "config.pbtxt").write_text('platform: "tensorrt_plan"')
    host.export(NGC_TAG="26.10" if change == "release" else "")
    assert len(host.calls) == 2


def test_a_ball_model_that_was_taken_away_is_served_no_more(host: Host) -> None:
    ball = host.root / "weights" / "ball.pt"
    ball.write_text("ball")
    host.export()
    assert (host.root / "repository" / "ball").exists()
    ball.unlink()
    host.export()
    assert not (host.root / "repository" / "ball").exists()


def test_a_failed_export_is_tried_again(host: Host) -> None:
    host.tool("python", "#!/bin/sh\nexit 3\n")
    assert host.export().returncode == 3
    host.tool("python", PYTHON)
    assert host.export().returncode == 0
    assert len(host.calls) == 1


def test_triton_starts_only_with_engines_that_fit(host: Host) -> None:
    """What the export leaves for Triton's container, run with the project's own check."""
    shutil.rmtree(host.root / "app" / "export")
    shutil.copytree(PROJECT / "export", host.root / "app" / "export")
    assert host.export().returncode == 0
    command = ("sh", host.root / "triton-checked", "echo", "serving")
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    served = tool(*command, env=environment, cwd="/")
    assert served.stdout == "serving\n", served.stderr
    (host.root / "repository" / "player" / "config.pbtxt").write_text('platform: "tensorrt_plan"')
    refused = tool(*command, env=environment, cwd="/")
    assert refused.returncode == 1
    assert "there is no plan" in refused.stderr
    assert not refused.stdout


def test_missing_weights_are_named(host: Host) -> None:
    (host.root / "weights" / "player.pt").unlink()
    refused = host.export()
    assert refused.returncode == 1
    assert "player.pt" in refused.stderr
    assert not host.calls


def test_the_real_command_takes_these_options(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Parsed by the command itself, which then stops because TensorRT is not here; a wrong option would end in 2."""
    host.export(PLAYER_WEIGHTS="gone.pt", PITCH_WEIGHTS="gone.pt", BALL_WEIGHTS="gone.pt")
    (call,) = host.calls
    assert run(call[2:]) == 1
    assert "TensorRT" in capsys.readouterr().err
