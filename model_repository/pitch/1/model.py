"""Triton's Python backend for a CPU: runs the model.onnx beside this file with OpenVINO or ONNX Runtime.

Copied into a model directory by the exporter and read by Triton alone, so it imports nothing of the project.
Parameters in config.pbtxt: engine (openvino | onnxruntime), threads (0: all cores), precision (f32 | bf16).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the served model; Triton calls initialize once and execute for every batch it formed."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the model and run it once, so that the first request does not wait for that."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        self.max_batch = max(1, int(config["max_batch_size"]))
        self.input = config["input"][0]["name"]
        self.output = config["output"][0]["name"]
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        start = {"openvino": openvino_engine, "onnxruntime": onnxruntime_engine}[parameters["engine"]]
        self.infer = start(path, int(parameters["threads"]), parameters["precision"])
        self.infer(np.zeros((1, *config["input"][0]["dims"]), np.uint8))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request, each with its own error where it has one; whole requests are joined up to max_batch."""
        responses: list[Any] = [None] * len(requests)
        waiting: list[tuple[int, Any]] = []
        for index, request in enumerate(requests):
            if request.is_cancelled():
                responses[index] = failure("the request was cancelled", pb_utils.TritonError.CANCELLED)
                continue
            tensor = pb_utils.get_input_tensor_by_name(request, self.input)
            if tensor is None:
                responses[index] = failure(f"the request has no input {self.input}", pb_utils.TritonError.INVALID_ARG)
                continue
            waiting.append((index, tensor.as_numpy()))
        for group in joined(waiting, self.max_batch):
            self.answer(group, responses)
        return responses

    def answer(self, group: list[tuple[int, Any]], responses: list[Any]) -> None:
        """Infer the frames of a group together and put each one's share into `responses`."""
        frames = group[0][1] if len(group) == 1 else np.concatenate([frames for _, frames in group])
        try:
            rows = self.infer(frames)
        except Exception as error:
            for index, _ in group:
                responses[index] = failure(f"inference failed: {error}", pb_utils.TritonError.INTERNAL)
            return
        first = 0
        for index, frames in group:
            share = np.ascontiguousarray(rows[first : first + len(frames)])
            responses[index] = pb_utils.InferenceResponse([pb_utils.Tensor(self.output, share)])
            first += len(frames)


def failure(message: str, code: int) -> Any:
    """A response that carries an error instead of tensors."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def joined(waiting: list[tuple[int, Any]], max_batch: int) -> list[list[tuple[int, Any]]]:
    """Neighbouring requests in groups of at most `max_batch` frames; one larger request stays alone."""
    groups: list[list[tuple[int, Any]]] = []
    size = 0
    for index, frames in waiting:
        if not groups or size + len(frames) > max_batch:
            groups.append([])
            size = 0
        groups[-1].append((index, frames))
        size += len(frames)
    return groups


def openvino_engine(path: Path, threads: int, precision: str) -> Any:
    """A function from frames uint8 [N, H, W, 3] to the model's output, run by OpenVINO."""
    import openvino

    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
    }
    compiled = openvino.Core().compile_model(path, "CPU", config)
    request = compiled.create_infer_request()

    def infer(frames: Any) -> Any:
        return request.infer([frames], share_inputs=True)[0]

    return infer


def onnxruntime_engine(path: Path, threads: int, precision: str) -> Any:
    """A function from frames uint8 [N, H, W, 3] to the model's output, run by ONNX Runtime (always f32)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def infer(frames: Any) -> Any:
        return session.run(None, {name: frames})[0]

    return infer
