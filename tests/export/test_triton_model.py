"""The configs that the exporter writes, parsed back with Triton's own protobuf."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.triton_model import CPU_BACKEND, ServedModel, config_text, write_model
from local.triton import DEFAULT_REPOSITORY

PLAYER = ServedModel("player", "tensorrt", (384, 640), 150, preferred=(8, 16, 32), queue_delay_us=1500)
PITCH = ServedModel("pitch", "openvino", (736, 1280), None, max_batch=16, preferred=(), threads=2, cpu_precision="bf16")


def parsed(model: ServedModel) -> Any:
    return text_format.Parse(config_text(model), pb.ModelConfig())


def test_tensors_are_those_of_the_contract() -> None:
    player, pitch = parsed(PLAYER), parsed(PITCH)
    assert [(t.name, t.data_type, list(t.dims)) for t in player.input] == [("frames", pb.TYPE_UINT8, [384, 640, 3])]
    assert [(t.name, t.data_type, list(t.dims)) for t in player.output] == [("detections", pb.TYPE_FP32, [150, 6])]
    assert [(t.name, list(t.dims)) for t in pitch.output] == [("keypoints", [32, 3])]
    assert (player.max_batch_size, pitch.max_batch_size) == (32, 16)


def test_a_plan_runs_on_every_gpu_and_takes_the_next_batch_meanwhile() -> None:
    config = parsed(replace(PLAYER, instances=2))
    assert (config.platform, config.default_model_filename) == ("tensorrt_plan", "model.plan")
    assert [(group.count, group.kind) for group in config.instance_group] == [(2, pb.ModelInstanceGroup.KIND_GPU)]
    assert config.optimization.eager_batching and not parsed(PITCH).optimization.eager_batching
    assert config.optimization.input_pinned_memory.enable and config.optimization.output_pinned_memory.enable
    assert not config.optimization.cuda.graphs and not config.optimization.cuda.graph_spec, "only where asked for"


def test_cuda_graphs_can_be_asked_for() -> None:
    cuda = parsed(replace(PLAYER, cuda_graphs=True)).optimization.cuda
    assert cuda.graphs and not cuda.output_copy_stream, "both together crash the server"
    assert [(g.batch_size, list(g.input["frames"].dim)) for g in cuda.graph_spec] == [
        (size, [384, 640, 3]) for size in (1, 8, 16, 32)
    ]


def test_gpus_of_several_kinds_load_each_their_own_plan_and_no_other(tmp_path: Path) -> None:
    plans = (("8.9", "model-8.9.plan"), ("12.0", "model-12.0.plan"))
    several = replace(PLAYER, plans=plans)
    config = parsed(several)
    assert dict(config.cc_model_filenames) == dict(plans)
    assert config.default_model_filename == "", "one of a third kind finds nothing"
    assert [(group.count, group.kind, list(group.gpus)) for group in config.instance_group] == [
        (1, pb.ModelInstanceGroup.KIND_GPU, [])
    ], "on every GPU that Triton sees"
    version = tmp_path / "player" / "1"
    version.mkdir(parents=True)
    for name in ("model.plan", "model-8.9.plan", "model-12.0.plan", "model-7.5.plan"):
        for file in (name, f"{name}.json"):
            (version / file).write_text(name)
    write_model(several, version / "model-12.0.plan", tmp_path)
    kept = [file for _, name in plans for file in (name, f"{name}.json")]
    assert sorted(path.name for path in version.iterdir()) == sorted(kept)
    (version / "model.plan").write_text("plan")
    write_model(PLAYER, version / "model.plan", tmp_path)
    assert [path.name for path in version.iterdir()] == ["model.plan"]


def test_batching() -> None:
    batching = parsed(replace(PLAYER, max_batch=16)).dynamic_batching
    assert list(batching.preferred_batch_size) == [8, 16], "no preferred size is over max_batch_size"
    assert batching.max_queue_delay_microseconds == 1500


BUNDLED = [
    text_format.Parse(file.read_text(), pb.ModelConfig()) for file in sorted(DEFAULT_REPOSITORY.glob("*/config.pbtxt"))
]


@pytest.mark.parametrize("config", [parsed(PLAYER), parsed(PITCH), *BUNDLED])
def test_triton_takes_requests_in_while_it_computes(config: Any) -> None:
    """With priorities or a queue policy it does not, and they lie there after the instance has become idle."""
    set_ones = {field.name for field, _ in config.dynamic_batching.ListFields()}
    assert config.HasField("dynamic_batching")
    assert set_ones <= {"preferred_batch_size", "max_queue_delay_microseconds"}


def test_warm_up_covers_the_smallest_and_the_largest_batch() -> None:
    assert [warm_up.batch_size for warm_up in parsed(PLAYER).model_warmup] == [1, 32]
    assert [warm_up.batch_size for warm_up in parsed(PITCH).model_warmup] == [1]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_cpu_model_is_a_python_backend_with_its_parameters(engine: Any, tmp_path: Path) -> None:
    network = tmp_path / "any.onnx"
    network.write_bytes(b"network")
    config = parsed(replace(PITCH, engine=engine))
    assert (config.backend, config.platform) == ("python", "")
    assert {name: value.string_value for name, value in config.parameters.items()} == {
        "engine": engine,
        "threads": "2",
        "precision": "bf16",
    }
    directory = write_model(replace(PITCH, engine=engine), network, tmp_path / "repository")
    assert (directory / "1" / "model.onnx").read_bytes() == b"network"
    assert (directory / "1" / "model.py").read_text() == CPU_BACKEND.read_text()


def test_another_target_leaves_nothing_of_the_last_one(tmp_path: Path) -> None:
    network = tmp_path / "any"
    network.write_bytes(b"network")
    write_model(replace(PLAYER, engine="openvino"), network, tmp_path)
    write_model(PLAYER, network, tmp_path)
    assert sorted(path.name for path in (tmp_path / "player" / "1").iterdir()) == ["model.plan"]
    write_model(replace(PLAYER, engine="openvino"), network, tmp_path)
    assert sorted(path.name for path in (tmp_path / "player" / "1").iterdir()) == ["model.onnx", "model.py"]


@pytest.mark.parametrize("model", ["player", "pitch"])
def test_the_bundled_models_run_the_exporters_backend(model: str) -> None:
    """Triton wants the file in each model directory; the copies must not drift apart."""
    bundled = Path(__file__).parents[2] / "model_repository" / model / "1" / "model.py"
    assert bundled.read_text() == CPU_BACKEND.read_text()
