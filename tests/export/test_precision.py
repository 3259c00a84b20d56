"""Lower precision keeps the answers: FP16 within 1 px and 0.01, with FP32 where pixels are counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import ModelProto, TensorProto

from export.command import ExportOptions
from export.half_emulation import half_emulated
from export.precision import (
    Int8Engine,
    half_computed,
    half_stored,
    int8_quantized,
    is_quantized,
    last_nodes,
    network_nodes,
)
from tests.export.networks import checkpoint, frames, run_onnxruntime, written

pytestmark = pytest.mark.export

FAMILIES = ("yolov8n", "yolo11n", "yolo26n", "yolo11n-pose")


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    role = "pitch" if "pose" in request.param else "player"
    options = ExportOptions("onnx", folder, precision="fp32", confidence=0.5)
    done = written(role, checkpoint(request.param, folder / "weights.pt"), options)
    return done.file


def answers(model: ModelProto, folder: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    file = folder / "other.onnx"
    onnx.save(model, file)
    return run_onnxruntime(file, images)


def differences(
    whole: npt.NDArray[np.float32], other: npt.NDArray[np.float32], over: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """How far each box or keypoint over a confidence is from its nearest in `other`: in pixels and in confidence."""
    if whole.shape[2] == 3:
        seen = whole[..., 2] > over
        return np.abs(whole - other)[seen][:, :2].max(1), np.abs(whole - other)[seen][:, 2]
    pixels, scores = [], []
    for rows, others in zip(whole, other, strict=True):
        for row in rows[rows[:, 4] > over]:
            same = others[others[:, 5] == row[5]]
            distance = np.abs(same[:, :4] - row[:4]).max(1)
            pixels.append(distance.min())
            scores.append(abs(same[distance.argmin(), 4] - row[4]))
    return np.array(pixels), np.array(scores)


@pytest.mark.parametrize("lower", [half_stored, half_computed])
def test_fp16_of_every_family(lower: Callable[[ModelProto], ModelProto], exported: Path, tmp_path: Path) -> None:
    """Random networks magnify every rounding, so this asks for the typical box; the bundled models answer for all."""
    model = onnx.load(exported)
    lowered = lower(model)
    whole, other = run_onnxruntime(exported, frames(4)), answers(half_emulated(lowered), tmp_path, frames(4))
    pixels, scores = differences(whole, other, 0.52 if whole.shape[2] == 6 else 0.0)
    assert len(pixels) > 40
    assert np.median(pixels) < 2
    assert np.median(scores) < 0.01
    assert len(lowered.SerializeToString()) < 0.6 * exported.stat().st_size


def test_lowering_is_deterministic_and_leaves_its_input_alone(exported: Path) -> None:
    model = onnx.load(exported)
    before = model.SerializeToString(deterministic=True)
    for lower in (half_stored, half_computed):
        first, second = (lower(model).SerializeToString(deterministic=True) for _ in range(2))
        assert first == second
    assert model.SerializeToString(deterministic=True) == before


def test_pixels_are_counted_in_fp32(exported: Path) -> None:
    """Convolutions are FP16, but no constant of the decoding (anchors, strides, thresholds) is."""
    model = half_computed(onnx.load(exported))
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {TensorProto.FLOAT}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    inside, last = network_nodes(model), last_nodes(model)
    assert 60 < len(inside) < len(model.graph.node)
    for node in model.graph.node:
        kinds = {types[name] for name in node.input if name in types}
        assert node.name in inside or TensorProto.FLOAT16 not in kinds, node.name
        wanted = {TensorProto.FLOAT} if node.name in last else {TensorProto.FLOAT16}
        assert node.op_type != "Conv" or node.name not in inside or kinds == wanted, node.name


@pytest.mark.parametrize("engine", get_args(Int8Engine))
def test_int8_quantizes_the_convolutions_but_the_last_ones(engine: Int8Engine, exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    calibration = (frame[None] for frame in frames(6, seed=3))
    quantized = int8_quantized(model, calibration, engine)
    assert is_quantized(quantized) and not is_quantized(model)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    pairs = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) > 30
    without_zero_point = all(not constants[node.input[2]].any() for node in pairs)
    assert without_zero_point is (engine == "tensorrt"), "TensorRT takes no zero points but 0"
    makers = {name: node for node in quantized.graph.node for name in node.output}
    inner = network_nodes(model) - last_nodes(model)
    plain = [node for node in model.graph.node if node.op_type == "Conv" and node.name in inner]
    fed = [
        node
        for node in quantized.graph.node
        if node.op_type == "Conv" and makers.get(node.input[1], node).op_type == "DequantizeLinear"
    ]
    assert len(fed) == len(plain)
    made = {name for node in fed for name in node.output}
    rounded = [node for node in pairs if node.input[0] in made]
    # SiLU stands behind most, so that what is joined with it must not be rounded in between; some feed one another.
    assert len(rounded) == len(plain) if engine == "onnxruntime" else len(rounded) < len(plain) / 3
    weights = [constants[makers[node.input[1]].input[0]] for node in fed]
    most = max(abs(values.astype(int)).max() for values in weights)
    assert most == (127 if engine == "tensorrt" else 64), "two products of 255 x 64 fit 16 bits"
    assert answers(quantized, tmp_path, frames(4)).shape == run_onnxruntime(exported, frames(4)).shape
