"""Plans that do not fit are refused before Triton tries, on machines that are made up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from export import check
from export.check import Host, check_repository, this_host
from export.engine_stamp import BuildOptions, Device, same_version
from export.gpus import QUERY, Gpu
from export.tensorrt_engine import build_engine
from export.triton_model import ServedModel, plan_name, write_model

PROJECT = Path(__file__).parents[2]
L4 = Gpu("0", "GPU-4a", "NVIDIA L4", "8.9")
H100 = Gpu("1", "GPU-b0", "NVIDIA H100 80GB HBM3", "9.0")
RTX_4090 = Gpu("2", "GPU-c9", "NVIDIA GeForce RTX 4090", "8.9")
FITTING = Host("11.4.0", (L4,))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A player as a plan for an L4 and TensorRT 11.4.0.52, and a pitch model for the CPU."""
    network, out = tmp_path / "any.onnx", tmp_path / "models"
    network.write_bytes(b"network")
    plan = out / "player" / "1" / "model.plan"
    build = BuildOptions((384, 640), 8, 16)
    device = Device("11.4.0.52", L4.name, L4.compute_capability)
    build_engine(network, plan, build, tmp_path / "timing", device=device, builder=lambda *_: b"plan")
    write_model(ServedModel("player", "tensorrt", (384, 640), 150, max_batch=16), plan, out)
    write_model(ServedModel("pitch", "openvino", (384, 640), None), network, out)
    return out


def test_what_fits_has_no_problems(repository: Path) -> None:
    assert check_repository(repository, FITTING) == []
    assert check_repository(repository, Host("11.4.0.52+cuda13.4", (L4, L4))) == []
    assert check_repository(repository, Host()) == [], "what is not known cannot be wrong"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (Host("10.13.3", (L4,)), "built for TensorRT 11.4.0.52, this is 10.13.3."),
        (Host("11.4.1", ()), "built for TensorRT 11.4.0.52, this is 11.4.1."),
        (Host("11.4.0", (H100,)), "built for the GPU NVIDIA L4, this is NVIDIA H100 80GB HBM3."),
        (Host("11.4.0", (L4, H100)), "built for the GPU NVIDIA L4, this is NVIDIA H100 80GB HBM3."),
        (Host("", (replace(L4, compute_capability="9.0"),)), "built for compute capability 8.9, this is 9.0."),
    ],
)
def test_what_does_not_fit_names_the_command(repository: Path, host: Host, reason: str) -> None:
    (problem,) = check_repository(repository, host)
    assert problem.startswith(f"{repository / 'player' / '1' / 'model.plan'}: {reason}")
    assert "`touchline export --target tensorrt`" in problem


def test_a_plan_that_is_not_there_or_says_nothing(repository: Path) -> None:
    plan = repository / "player" / "1" / "model.plan"
    plan.with_name("model.plan.json").unlink()
    (problem,) = check_repository(repository, FITTING)
    assert "nothing says which TensorRT built it" in problem
    plan.unlink()
    (problem,) = check_repository(repository, FITTING)
    assert problem.startswith(f"{repository / 'player'}: there is no plan. Build it with `touchline export")


def test_a_batch_that_the_plan_was_not_built_for(repository: Path) -> None:
    config = repository / "player" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 16", "max_batch_size: 64"))
    (problem,) = check_repository(repository, FITTING)
    assert "built for batches up to 16, config.pbtxt says 64." in problem and "--max-batch 64" in problem


def test_each_gpu_is_held_against_the_plan_it_will_load(tmp_path: Path) -> None:
    network, out = tmp_path / "any.onnx", tmp_path / "models"
    network.write_bytes(b"network")
    names = [plan_name(capability) for capability in ("8.9", "9.0")]
    served = ServedModel("player", "tensorrt", (384, 640), 150, plans=(("8.9", names[0]), ("9.0", names[1])))
    for gpu, name in zip((L4, H100), names, strict=True):
        build_engine(
            network,
            plan := out / "player" / "1" / name,
            BuildOptions((384, 640), portable=gpu is L4),
            tmp_path / "timing",
            device=Device("11.4.0", gpu.name, gpu.compute_capability),
            builder=lambda *_: b"plan",
        )
    write_model(served, plan, out)
    assert check_repository(out, Host("11.4.0", (L4, H100, RTX_4090))) == [], "the one for 8.9 was built for any of it"
    assert check_repository(out, Host("11.4.0", (H100,))) == check_repository(out, Host("11.4.0")) == []
    another = replace(H100, name="NVIDIA H200")
    (problem,) = check_repository(out, Host("11.4.0", (L4, another)))
    assert "model-9.0.plan: built for the GPU NVIDIA H100 80GB HBM3, this is NVIDIA H200." in problem
    (problem,) = check_repository(out, Host("11.4.0", (H100, Gpu("3", "GPU-d", "NVIDIA T4", "7.5"))))
    assert "there is no plan for NVIDIA T4 (7.5). Build it with `touchline export" in problem
    assert len(check_repository(out, Host("11.3.0", ()))) == 2, "TensorRT is known and the GPUs are not"


def smi(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def test_the_host_is_what_variables_libraries_and_the_driver_say() -> None:
    files = {
        check.LIBRARIES[0]: [
            "/usr/lib/x86_64-linux-gnu/libnvinfer.so.11",
            "/usr/lib/x86_64-linux-gnu/libnvinfer.so.11.4.0",
        ]
    }

    def find(pattern: str) -> list[str]:
        return files.get(pattern, [])

    def ask(command: Sequence[str]) -> str:
        assert command == QUERY
        return smi("0, GPU-4a, NVIDIA L4, 8.9", "1, GPU-b0, NVIDIA H100 80GB HBM3, 9.0")

    host = this_host({}, find, ask)
    assert host == Host("11.4.0", (L4, H100))
    assert host.unknown == []
    assert this_host({"TRT_VERSION": "11.4.0.52+cuda13.4"}, find, ask).tensorrt == "11.4.0.52+cuda13.4"
    said = {"TRT_VERSION": "11.4.0.52", "TENSORRT_VERSION": "10.16.1"}
    assert this_host(said, find, ask).tensorrt == "10.16.1", "the operator's word goes first"
    assert this_host({"TRT_VERSION": "latest"}, find, ask).tensorrt == "11.4.0"
    assert this_host({"CUDA_VISIBLE_DEVICES": "1"}, find, ask).gpus == (H100,), "the others are not to serve"


@pytest.mark.parametrize(
    "failure",
    [FileNotFoundError("nvidia-smi"), subprocess.CalledProcessError(9, "nvidia-smi"), ValueError("no answer")],
)
def test_what_is_not_known_is_said(failure: Exception) -> None:
    def ask(command: Sequence[str]) -> str:
        raise failure

    host = this_host({}, lambda pattern: [], ask)
    assert host == Host()
    version, gpu = host.unknown
    assert "TensorRT's version is not checked" in version and "TENSORRT_VERSION" in version
    assert gpu == "the GPU is not checked: nvidia-smi names none"


def test_versions_agree_in_what_both_say() -> None:
    assert same_version("10.13.3.9", "10.13.3") and same_version("10.13.3.9", "10.13.3.9+cuda13.0")
    assert not same_version("10.13.3.9", "10.13.2") and not same_version("10.13.3", "10.1.3")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The module as the serving image starts it: nothing of the project's packages can be imported."""
    blocked = "import sys, runpy; sys.modules |= dict.fromkeys(('numpy', 'onnx', 'torch', 'tensorrt', 'touchline'));"
    code = f"{blocked} sys.argv = ['check', *sys.argv[1:]]; runpy.run_module('export.check', run_name='__main__')"
    command = [sys.executable, "-c", code, *arguments]
    variables = {"PATH": "/nowhere", "PYTHONPATH": str(PROJECT), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)


def test_the_module_ends_with_a_status(repository: Path) -> None:
    fine = run(str(repository), TENSORRT_VERSION="11.4.0")
    assert (fine.returncode, fine.stderr) == (0, "note: the GPU is not checked: nvidia-smi names none\n")
    wrong = run(str(repository), TENSORRT_VERSION="10.13.3")
    assert wrong.returncode == 1
    assert "error: " in wrong.stderr and "this is 10.13.3. Build it again with" in wrong.stderr
    assert run(str(repository / "nowhere")).returncode == 2
