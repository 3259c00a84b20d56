"""Which GPUs are meant and how many engines they take, by answers of an nvidia-smi that is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from export import gpus
from export.errors import EngineError
from export.gpus import Gpu, kinds_of, parse_gpus, visible_gpus

ANSWER = """\
0, GPU-4a77, NVIDIA L4, 8.9
1, GPU-4a90, NVIDIA GeForce RTX 4090, 8.9
2, GPU-b0c1, NVIDIA H100 80GB HBM3, 9.0
3, GPU-b0d2, NVIDIA H100 80GB HBM3, 9.0
"""


def chosen(variable: str | None) -> list[str]:
    environment = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    return [gpu.index for gpu in visible_gpus(environment, lambda command: ANSWER)]


def test_all_or_those_that_are_named() -> None:
    assert chosen(None) == ["0", "1", "2", "3"]
    assert chosen("2,0") == ["2", "0"]
    assert chosen("GPU-b0d, 1") == ["3", "1"]
    assert chosen("1,1") == ["1"]
    assert chosen("MIG-5c1f") == ["0", "1", "2", "3"], "nvidia-smi does not list the parts of a device"


@pytest.mark.parametrize("wrong", ["4", "0,4", "GPU-4a", "all", "0;1", "-1"])
def test_one_that_is_not_there_is_named_with_those_that_are(wrong: str) -> None:
    with pytest.raises(EngineError, match=r"there is no GPU \S+ .*GPUS.* 0 \(NVIDIA L4, 8\.9\), 1"):
        chosen(wrong)


@pytest.mark.parametrize("empty", ["", " ", ","])
def test_an_empty_variable_hides_every_gpu(empty: str) -> None:
    with pytest.raises(EngineError, match="hides every GPU"):
        chosen(empty)


def test_an_engine_for_each_compute_capability() -> None:
    ada, hopper = kinds_of(parse_gpus(ANSWER))
    assert (ada.compute_capability, ada.first.index, ada.portable) == ("8.9", "0", True)
    assert (hopper.compute_capability, hopper.first.index, hopper.portable) == ("9.0", "2", False)
    assert str(ada) == "NVIDIA L4 and NVIDIA GeForce RTX 4090 (8.9)"


def test_a_gpu_that_tensorrt_has_left_behind_is_named() -> None:
    old = Gpu("1", "GPU-1", "NVIDIA GeForce GTX 1080", "6.1")
    with pytest.raises(EngineError, match=r"GPU 1 \(NVIDIA GeForce GTX 1080, 6\.1\) is older.*7\.5.*GPUS"):
        kinds_of([*parse_gpus(ANSWER), old])
    assert kinds_of([Gpu("0", "GPU-2", "NVIDIA B200", "10.0")]), "10.0 is not less than 7.5"


def test_answers_of_nvidia_smi() -> None:
    (gpu,) = parse_gpus("0, GPU-1, NVIDIA GeForce RTX 5070 Ti, 12.0\n")
    assert gpu == Gpu("0", "GPU-1", "NVIDIA GeForce RTX 5070 Ti", "12.0")
    assert parse_gpus("") == []
    for wrong in ("No devices were found", "0, GPU-1, NVIDIA L4, [N/A]"):
        with pytest.raises(ValueError, match="nvidia-smi answers"):
            parse_gpus(wrong)


def test_what_the_scripts_of_deploy_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\ncat <<END\n{ANSWER}END\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert (gpus.main(["--count"]), capsys.readouterr().out) == (0, "2\n")
    assert (gpus.main([]), capsys.readouterr().out) == (0, "NVIDIA H100 80GB HBM3, 9.0\n" * 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert gpus.main([]) == 1
    assert "there is no GPU 7" in capsys.readouterr().err
    smi.write_text("#!/bin/sh\necho No devices were found\nexit 6\n")
    assert gpus.main([]) == 1
    assert "nvidia-smi names no GPU" in capsys.readouterr().err
