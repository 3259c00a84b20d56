"""The first run on a GPU host, on a machine without one: what is skipped is said, what is wrong is seen."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import images, stale
from benchmarks.gpu.decoding import Decoded
from benchmarks.gpu.nvdec_frames import differences
from local.triton import LocalTriton

_CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 32
input [ {{ name: "frames" data_type: TYPE_UINT8 dims: [ 64, 96, 3 ] }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ 1, 3 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""
# What the first convolution of a network could say; a stale one says what was asked before.
_MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.before = None

    def execute(self, requests):
        answers = []
        for request in requests:
            frames = pb_utils.get_input_tensor_by_name(request, "frames").as_numpy()
            rows = frames.mean((1, 2))[:, None].astype(np.float32)
            told = self.before if {stale} and self.before is not None else rows
            self.before = rows
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("{output}", told)]))
        return answers
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, dict[str, str]]]:
    """Run the steps with neither GPU nor Docker in PATH; status, and what the table says of each step."""
    (tmp_path / "bin").mkdir()

    def run(*arguments: str) -> tuple[int, dict[str, str]]:
        command = [
            sys.executable,
            "-m",
            "benchmarks.gpu",
            "--clip",
            "none.mp4",
            "--out",
            str(tmp_path / "out"),
            *arguments,
        ]
        environment = {**os.environ, "PATH": str(tmp_path / "bin")}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
        lines = [line for line in done.stdout.splitlines() if line.endswith(" s]")]
        return done.returncode, {line[:28].strip(): line[28:] for line in lines}

    return run


def test_without_a_gpu_every_step_says_what_it_lacks_and_the_status_is_skipped(
    run: Callable[..., tuple[int, dict[str, str]]],
) -> None:
    status, told = run()
    assert status == 77
    assert len(told) == 10
    for name, text in told.items():
        lacks = "no Docker" if name.startswith(("images", "stack")) else "no GPU"
        assert f"skipped:  {lacks}" in text, name


def test_a_step_that_cannot_even_start_fails_the_run_and_hides_no_other(
    run: Callable[..., tuple[int, dict[str, str]]],
) -> None:
    status, told = run("--python", "/nowhere/python", "--only", "images", "FP16")
    assert status == 1
    assert "FAILED" in told["images of one TensorRT"]
    assert "could not be started" in told["images of one TensorRT"]
    assert "skipped:  no GPU" in told["FP16 in PyTorch"]


@pytest.mark.parametrize("step", ["host", "nvdec_open", "nvdec_frames", "nvdec_speed", "challenge"])
def test_a_step_of_its_own_is_skipped_without_a_gpu_too(
    step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [step, *(["none.mp4"] if step != "host" else [])])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.gpu.{step}").main()
    assert ended.value.code == 77
    assert json.loads(capsys.readouterr().out) == {"finding": "no GPU"}


def test_the_script_is_that_run(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "TORCH_PYTHON": sys.executable, "CLIP": "none.mp4"}
    done = subprocess.run(
        ["benchmarks/gpu_first_run.sh", "--only", "no such step", "--out", str(tmp_path)],
        capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_frames_under_the_wrong_number_are_seen() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (80, 24, 32, 3), np.uint8)
    cpu = Decoded(pictures=dict(enumerate(pictures)))
    assert differences(cpu, cpu)["shifts"] == [0]
    assert differences(cpu, cpu)["mean_difference"] == 0
    late = Decoded(pictures={number + 10: picture for number, picture in enumerate(pictures[:70])})
    assert differences(cpu, late)["shifts"] == [-10]
    assert float(str(differences(cpu, late)["mean_difference"])) > 50


def test_the_images_of_a_release_are_found_wherever_they_are_named() -> None:
    texts = [(images.DEPLOY / name).read_text() for name in images.FILES]
    found = images.named(texts, "99.01")
    assert "nvcr.io/nvidia/tritonserver:99.01-py3" in found
    assert all(image.startswith("nvcr.io/nvidia/") and ":99.01-py3" in image for image in found)
    assert images.named(texts, None) != found
    assert all("$" not in image for image in images.named(texts, None))


def test_a_triton_that_answers_with_anothers_result_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stale, "ROUNDS", 12)
    for name, output, wrong in (("player", "detections", False), ("pitch", "keypoints", True)):
        version = tmp_path / "models" / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(_MODEL.format(output=output, stale=wrong))
        (version.parent / "config.pbtxt").write_text(_CONFIG.format(name=name, output=output))
    with LocalTriton(tmp_path / "models", log=tmp_path / "triton.log") as triton:
        triton.wait_ready()
        monkeypatch.setattr(sys, "argv", ["stale", triton.grpc_url])
        assert stale.main() == 1
        finding = json.loads(capsys.readouterr().out)["finding"]
        assert "player: 0 of 24 another's" in finding
        assert "pitch: 0 of" not in finding
    assert stale.main() == 77
