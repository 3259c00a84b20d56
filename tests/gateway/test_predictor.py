"""Predictors of the operator's own: what is loaded, what is refused, and what a model is asked and answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import PredictorFailed, StartupError
from gateway.inference.triton import _under_way
from gateway.predictor import checked, peaks, predictor_of, scene_tensor
from gateway.scene import Scene
from gateway.settings import Settings
from local.scraped import scraped
from local.triton import LocalTriton
from touchline.actions import RULES, Action

_CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 0
input [ {{ name: "scene" data_type: TYPE_FP32 dims: [ -1, -1, 5 ] }} ]
output [ {{ name: "actions" data_type: TYPE_FP32 dims: [ -1, {labels} ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""
_MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            scene = pb_utils.get_input_tensor_by_name(request, "scene").as_numpy()
            actions = np.zeros((len(scene), {labels}), np.float32)
            # A pass where the ball is furthest along the pitch.
            actions[scene[:, 0, 0].argmax(), 0] = 0.9
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("actions", actions)]))
        return answers
"""


def scene(frames: int = 10) -> Scene:
    feet = np.full((frames, 2, 2), 100.0)
    feet[0, 1] = np.nan
    ball = np.column_stack([np.arange(frames) * 100.0, np.full(frames, 200.0)])
    ball[7:] = np.nan
    apart = np.full((frames, 2), 500.0)
    return Scene(25.0, (12000.0, 7000.0), feet, ball, apart, np.array([0, 1]), np.array([False, True]))


def settings(predictor: str, **values: Any) -> Settings:
    return Settings(_env_file=None, actions_predictor=predictor, **values)


@pytest.mark.parametrize(
    ("predictor", "named"), [("nowhere_to_be_found:f", "nowhere_to_be_found"), ("json:nothing", "nothing")]
)
def test_a_predictor_that_is_not_there_is_told_at_the_start(predictor: str, named: str) -> None:
    with pytest.raises(StartupError, match=named):
        predictor_of(settings(predictor))


def test_a_predictor_that_breaks_when_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_spotter.py").write_text("raise SystemError('no weights')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(StartupError, match="no weights"):
        predictor_of(settings("broken_spotter:f"))


@pytest.mark.parametrize("predictor", ["spotter", "a:b:c", "a b:c", ":f", "triton:"])
def test_a_setting_that_names_no_predictor(predictor: str) -> None:
    with pytest.raises(ValueError, match="MODULE:FUNCTION"):
        settings(predictor)


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ((3,), "is not"),
        (3, "is not"),
        (("soon", "pass"), "is not"),
        ((10, "pass"), "0 to 9"),
        ((-1, "pass"), "0 to 9"),
        ((3, "throw"), "throw"),
        ((3, "pass", float("nan")), "between"),
        ((3, "pass", 1.5), "between"),
    ],
)
def test_an_answer_that_no_validator_would_take_is_refused(item: object, named: str) -> None:
    with pytest.raises(PredictorFailed, match=named):
        checked([item], 10)


def test_what_a_model_sees() -> None:
    rows = scene_tensor(scene())
    assert rows.shape == (10, 3, 5) and rows.dtype == np.float32
    assert rows[2, 0].tolist() == [2.0, 2.0, -1.0, 0.0, 1.0]
    assert rows[2, 2].tolist() == [1.0, 1.0, 1.0, 1.0, 1.0]
    assert not rows[0, 2].any() and not rows[8, 0].any()


def test_peaks_of_a_label_are_its_tolerance_apart() -> None:
    probabilities = np.zeros((100, len(RULES)))
    probabilities[10:14, 0] = [0.6, 0.9, 0.7, 0.6]
    probabilities[60, 0] = 0.55
    probabilities[30, 1] = 0.49
    probabilities[40, 1] = np.nan
    assert peaks(probabilities) == [Action(11, "pass", 0.9), Action(60, "pass", 0.55)]


async def test_a_model_of_triton(tmp_path: Path) -> None:
    for name, labels in (("spotter", len(RULES)), ("narrow", 3)):
        version = tmp_path / "models" / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(_MODEL.replace("{labels}", str(labels)))
        (version.parent / "config.pbtxt").write_text(_CONFIG.format(name=name, labels=labels))
    with LocalTriton(tmp_path / "models", log=tmp_path / "triton.log") as triton:
        triton.wait_ready()
        addresses = f"127.0.0.1:9,{triton.grpc_url}"
        (found,) = await predictor_of(settings("triton:spotter", triton_urls=addresses))(scene())
        assert found[:2] == (6, "pass")
        asking = asyncio.ensure_future(predictor_of(settings("triton:spotter", triton_urls=triton.grpc_url))(scene()))
        async with asyncio.timeout(20):
            while not _under_way:
                await asyncio.sleep(0)
            asking.cancel()
            while _under_way:
                await asyncio.sleep(0.01)
            while sum(counted(triton, "nv_inference_request_success")) < 2:
                await asyncio.sleep(0.05)
        assert not any(counted(triton, "nv_inference_request_failure")), "Triton may die of what is cancelled"
        with pytest.raises(PredictorFailed, match=r"narrow.*3"):
            await predictor_of(settings("triton:narrow", triton_urls=addresses))(scene())
        with pytest.raises(PredictorFailed, match="nobody"):
            await predictor_of(settings("triton:nobody", triton_urls=addresses))(scene())


def counted(triton: LocalTriton, metric: str) -> list[float]:
    return [sample.value for sample in scraped(triton.metrics_url, metric)]
