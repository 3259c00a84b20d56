"""Two kinds of GPU in a host: the real export.sh and `touchline export`; nvidia-smi and TensorRT are stand-ins."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2 as pb

from tests.deploy.files import DEPLOY, PROJECT, tool

SMI = """#!/bin/sh
cat <<END
0, GPU-aaaa, NVIDIA GeForce RTX 3060, 8.6
1, GPU-bbbb, NVIDIA L4, 8.9
2, GPU-cccc, NVIDIA GeForce RTX 4090, 8.9
3, GPU-dddd, NVIDIA GeForce GTX 1080, 6.1
END
"""

# Read by every Python at its start: what TensorRT's package says of itself, and a plan that says what CUDA was shown.
TENSORRT = '__version__ = "11.4.0.52"\n'
BUILDER = """
import os
from export import tensorrt_engine

def tensorrt_builder(network, options, timing_cache):
    with open(timing_cache, "a") as file:
        file.write(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    return f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')} portable={options.portable}".encode()

tensorrt_builder.__module__ = "export.tensorrt_engine"
tensorrt_engine.tensorrt_builder = tensorrt_builder
"""


def write_model(path: Path, output: str, rows: int, columns: int) -> None:
    """A finished model of the contract that answers nothing: FP32 [N, rows, columns] of zeros."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["cast", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["column"]),
        helper.make_node("Mul", ["column", "zeros"], [output]),
    ]
    constants = {
        "axes": np.array([1, 2, 3], np.int64),
        "shape": np.array([-1, 1, 1], np.int64),
        "zeros": np.zeros((1, rows, columns), np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "nothing",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 64, 96, 3])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", rows, columns])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


class Host:
    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("bin", "weights", "here"):
            (root / name).mkdir()
        write_model(root / "weights" / "player.onnx", "detections", 150, 6)
        write_model(root / "weights" / "pitch.onnx", "keypoints", 32, 3)
        for name, text in (
            ("nvidia-smi", SMI),
            ("python", f'#!/bin/sh\nPYTHONPATH={root / "here"}:$PYTHONPATH exec {sys.executable} "$@"\n'),
            ("triton-checked", (DEPLOY / "triton-checked.sh").read_text()),
        ):
            (root / "bin" / name).write_text(text)
            (root / "bin" / name).chmod(0o755)
        (root / "here" / "tensorrt.py").write_text(TENSORRT)
        (root / "here" / "sitecustomize.py").write_text(BUILDER)

    def export(self, gpus: str) -> tuple[int, str]:
        environment = {
            "PATH": f"{self.root / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(PROJECT),
            "WEIGHTS": "weights",
            "OUT": "repository",
            "STAMP": "exported",
            "SERVE": ".",
            "EXPORT_IMGSZ": "64x96",
            "EXPORT_PRECISION": "fp32",
            "GPUS": gpus,
        }
        done = tool("sh", DEPLOY / "export.sh", cwd=self.root, env=environment)
        return done.returncode, done.stdout + done.stderr

    def check(self, gpus: str) -> str:
        """What Triton's container says of the engines before it starts."""
        environment = {
            "PATH": f"{self.root / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(PROJECT),
            "CUDA_VISIBLE_DEVICES": gpus,
            "TENSORRT_VERSION": "11.4.0",
        }
        return tool(sys.executable, "-m", "export.check", self.root / "repository", env=environment).stderr

    def config(self, model: str) -> pb.ModelConfig:
        return text_format.Parse((self.root / "repository" / model / "config.pbtxt").read_text(), pb.ModelConfig())

    def plans(self, model: str) -> dict[str, str]:
        return {path.name: path.read_text() for path in (self.root / "repository" / model / "1").glob("*.plan")}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_each_kind_gets_its_engine_and_triton_finds_it(host: Host) -> None:
    status, said = host.export("0,1,2")
    assert status == 0, said
    assert "GPU: NVIDIA GeForce RTX 3060, 8.6\nGPU: NVIDIA L4, 8.9\nGPU: NVIDIA GeForce RTX 4090, 8.9" in said
    for model in ("player", "pitch"):
        config = host.config(model)
        assert dict(config.cc_model_filenames) == {"8.6": "model-8.6.plan", "8.9": "model-8.9.plan"}
        assert config.default_model_filename == ""
        (group,) = config.instance_group
        assert (group.kind, group.count, list(group.gpus)) == (pb.ModelInstanceGroup.KIND_GPU, 1, [])
        # Each was built by a process that saw one GPU; the two cards of 8.9 share one, as TensorRT was told.
        assert host.plans(model) == {
            "model-8.6.plan": "GPU-aaaa portable=False",
            "model-8.9.plan": "GPU-bbbb portable=True",
        }
        stamp = json.loads((host.root / "repository" / model / "1" / "model-8.9.plan.json").read_text())
        assert stamp["device"] == {"tensorrt": "11.4.0.52", "gpu": "NVIDIA L4", "compute_capability": "8.9"}
    assert host.check("0,1,2") == host.check("0") == host.check("2") == ""
    assert "up to date" in host.export("0,1,2")[1]


def test_cards_that_are_alike_share_one_plan(host: Host) -> None:
    status, said = host.export("1")
    assert status == 0, said
    assert host.config("player").default_model_filename == "model.plan" and not host.config("player").cc_model_filenames
    assert host.plans("player") == {"model.plan": "1 portable=False"}
    assert host.check("1") == ""
    assert "built for the GPU NVIDIA L4, this is NVIDIA GeForce RTX 4090" in host.check("2")
    assert host.export("0,1")[0] == 0
    assert set(host.plans("player")) == {"model-8.6.plan", "model-8.9.plan"}, "nothing of the last export is left"


def test_a_card_that_tensorrt_left_behind_is_named_before_anything_is_touched(host: Host) -> None:
    status, said = host.export("all")
    assert status == 1
    assert "GPU 3 (NVIDIA GeForce GTX 1080, 6.1) is older than TensorRT runs on" in said and "GPUS" in said
    assert not (host.root / "repository").exists()
