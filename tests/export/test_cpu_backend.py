"""The CPU backend's manners towards Triton: every request gets its own frames' answers, or its own error."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.triton_model import CPU_BACKEND

CONFIG = {
    "max_batch_size": 8,
    "input": [{"name": "frames", "dims": ["2", "2", "3"]}],
    "output": [{"name": "keypoints", "dims": ["1", "3"]}],
    "parameters": {
        "engine": {"string_value": "openvino"},
        "threads": {"string_value": "1"},
        "precision": {"string_value": "f32"},
    },
}


class Request(SimpleNamespace):
    def is_cancelled(self) -> bool:
        return bool(self.cancelled)


def request(values: list[int] | None, *, cancelled: bool = False) -> Request:
    frames = None if values is None else np.array(values, np.uint8).reshape(-1, 1, 1, 1).repeat(12, 1)
    return Request(frames=frames, cancelled=cancelled)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The served class with an engine that answers a frame with its first value, and breaks on 13."""
    utils: Any = ModuleType("triton_python_backend_utils")
    utils.Tensor = lambda name, array: SimpleNamespace(name=name, array=array)
    utils.TritonError = type("TritonError", (Exception,), {"CANCELLED": 1, "INVALID_ARG": 2, "INTERNAL": 3})
    utils.InferenceResponse = lambda tensors=(), error=None: SimpleNamespace(tensors=tensors, error=error)
    utils.get_input_tensor_by_name = lambda req, name: (
        None if req.frames is None else SimpleNamespace(as_numpy=lambda: req.frames)
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    spec = importlib.util.spec_from_file_location("served_model", CPU_BACKEND)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def engine(path: Path, threads: int, precision: str) -> Any:
        assert (path, threads, precision) == (Path("/models/pitch/1/model.onnx"), 1, "f32")

        def infer(frames: list[Any], rows: list[Any]) -> None:
            for frame, row in zip(frames, rows, strict=True):
                if frame.flat[0] == 13:
                    raise RuntimeError("engine trouble")
                row[...] = frame.flat[0]

        return infer

    monkeypatch.setattr(module, "openvino_engine", engine)
    model = module.TritonPythonModel()
    model.initialize({"model_config": json.dumps(CONFIG), "model_repository": "/models/pitch", "model_version": "1"})
    return model


def test_joined_requests_get_their_own_rows(backend: Any) -> None:
    responses = backend.execute([request([1, 2]), request([3]), request([4, 5, 6])])
    answers = [response.tensors[0].array for response in responses]
    assert [answer.shape for answer in answers] == [(2, 1, 3), (1, 1, 3), (3, 1, 3)]
    assert [answer[:, 0, 0].tolist() for answer in answers] == [[1, 2], [3], [4, 5, 6]]
    assert all(answer.dtype == np.float32 for answer in answers)


def test_a_bad_request_does_not_spoil_its_neighbours(backend: Any) -> None:
    responses = backend.execute([request([1]), request(None), request([2], cancelled=True), request([3])])
    assert [response.error and response.error.args[1] for response in responses] == [None, 2, 1, None]
    assert "no input frames" in responses[1].error.args[0]
    assert responses[3].tensors[0].array[0, 0, 0] == 3


def test_trouble_in_the_engine_is_an_error_and_not_the_end(backend: Any) -> None:
    responses = backend.execute([request([1]), request([13]), request(None)])
    assert [response.error.args[1] for response in responses] == [3, 3, 2]
    assert "engine trouble" in responses[0].error.args[0]
    assert backend.execute([request([7])])[0].tensors[0].array[0, 0, 0] == 7
