"""Triton's Python backend for a CPU: runs the model.onnx beside this file with OpenVINO or ONNX Runtime.

Copied into a model directory by the exporter and loaded by Triton alone, so it imports nothing of the project.
Parameters in config.pbtxt: engine (openvino | onnxruntime), threads (0: all cores it may use), precision (f32 | bf16 |
auto: bf16 where the CPU computes it natively, which halves the time).

Frames run one by one, as many at a time as the engine has streams: on a CPU a batch only pushes the activations out of
the caches, and a fixed batch of one needs no new plan for each batch size that Triton forms.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

Infer = Callable[[list[Any], list[Any]], None]
"""From frames, each uint8 [1, H, W, 3], into as many rows, each float32 [1, ...]."""


class TritonPythonModel:
    """One instance of the served model; Triton calls initialize once and execute for every batch it formed."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the model."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        self.input = config["input"][0]["name"]
        self.output = config["output"][0]["name"]
        self.output_dims = [int(dim) for dim in config["output"][0]["dims"]]
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        start = {"openvino": openvino_engine, "onnxruntime": onnxruntime_engine}[parameters["engine"]]
        self.infer: Infer = start(path, int(parameters["threads"]), parameters["precision"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request; the frames of all of them share the engine's streams."""
        responses: list[Any] = [None] * len(requests)
        waiting: dict[int, Any] = {}
        frames: list[Any] = []
        rows: list[Any] = []
        for index, request in enumerate(requests):
            tensor = pb_utils.get_input_tensor_by_name(request, self.input)
            if request.is_cancelled():
                responses[index] = failure("the request was cancelled", pb_utils.TritonError.CANCELLED)
            elif tensor is None:
                responses[index] = failure(f"the request has no input {self.input}", pb_utils.TritonError.INVALID_ARG)
            else:
                batch = tensor.as_numpy()
                waiting[index] = np.empty((len(batch), *self.output_dims), np.float32)
                frames.extend(batch[place : place + 1] for place in range(len(batch)))
                rows.extend(waiting[index][place : place + 1] for place in range(len(batch)))
        try:
            self.infer(frames, rows)
        except Exception as error:
            message = f"inference failed: {error}"
            return [response or failure(message, pb_utils.TritonError.INTERNAL) for response in responses]
        for index, answer in waiting.items():
            responses[index] = pb_utils.InferenceResponse([pb_utils.Tensor(self.output, answer)])
        return responses


def failure(message: str, code: int) -> Any:
    """A response that carries an error instead of tensors."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def openvino_engine(path: Path, threads: int, precision: str) -> Infer:
    """OpenVINO with a batch of one, compiled twice: all threads on one frame when it comes alone, as many streams as
    pay on this CPU when there are more."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({0: [1, *(int(dim.get_length()) for dim in model.input(0).partial_shape[1:])]})
    config: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads or len(os.sched_getaffinity(0)),
        # Several models share the cores: pinned, they would all sit on the first ones.
        "ENABLE_CPU_PINNING": False,
    }
    if precision != "auto":
        config["INFERENCE_PRECISION_HINT"] = precision
    alone = core.compile_model(model, "CPU", {**config, "PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
    queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", {**config, "PERFORMANCE_HINT": "THROUGHPUT"}))
    queue.set_callback(lambda request, row: np.copyto(row, request.get_output_tensor(0).data))

    def infer(frames: list[Any], rows: list[Any]) -> None:
        if len(frames) == 1:
            np.copyto(rows[0], alone.infer([frames[0]], share_inputs=True)[0])
            return
        try:
            for frame, row in zip(frames, rows, strict=True):
                queue.start_async([frame], row, share_inputs=True)
        finally:
            queue.wait_all()

    return infer


def onnxruntime_engine(path: Path, threads: int, precision: str) -> Infer:
    """ONNX Runtime, always f32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def infer(frames: list[Any], rows: list[Any]) -> None:
        for frame, row in zip(frames, rows, strict=True):
            row[...] = session.run(None, {name: frame})[0]

    return infer
