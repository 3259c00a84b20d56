"""Loads a finished network in the engine that will serve it and runs it once: what does not run is no export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import EngineError
from export.triton_model import ServedModel

LONGEST = 300
"""Characters of an engine's own words that are worth reading."""

ENGINES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "tensorrt": "ONNX Runtime"}


def run(network: Path, served: ServedModel) -> list[str]:
    """Run an ONNX file on frames of noise as its engine will; what to note, if it could not be run.

    What goes to TensorRT runs in ONNX Runtime here, with a batch of two; TensorRT itself loads what it builds.
    EngineError if it does not load, fails, or answers with another shape or with what is no number.
    """
    engine = ENGINES[served.engine]
    frames = np.random.default_rng(0).integers(0, 256, (2, *served.size, 3), np.uint8)
    try:
        if served.engine == "openvino":
            answer = openvino_answer(network, frames[:1])
        else:
            answer = onnxruntime_answer(network, frames)
    except ImportError as error:
        return [f"was not run, {engine} is not installed here ({error})"]
    except Exception as error:  # each engine has its own kinds
        raise EngineError(f"{engine} cannot run the network: {reason(error)}.") from error
    name, shape = served.output
    if answer.shape[1:] != shape or not np.isfinite(answer).all():
        found = "numbers that are not finite" if answer.shape[1:] == shape else f"{list(answer.shape)}"
        raise EngineError(f"{engine} answers with {found} where {name} {list(shape)} a frame are wanted.")
    return []


def openvino_answer(network: Path, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """As export/cpu_backend/model.py does it, with a batch of one."""
    import openvino

    core = openvino.Core()
    model = core.read_model(network)
    model.reshape({0: list(frames.shape)})
    compiled: Any = core.compile_model(model, "CPU")
    return np.asarray(compiled([frames])[0])


def onnxruntime_answer(network: Path, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The answer of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: frames})[0])


def reason(error: BaseException) -> str:
    """What an engine says, on one line and without the places in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from src", "Check '"))] or lines
    text = " ".join(told)
    return (text if len(text) <= LONGEST else f"{text[:LONGEST]} ...").rstrip(". ") or type(error).__name__
