"""Writes a precision into an ONNX file: half-precision storage, FP16 arithmetic for TensorRT, INT8 by Q/DQ nodes.

TensorRT 11 has no precision flags left: networks are strongly typed, so what is FP16 or INT8 must stand in the file.
The same file builds on 10.12 to 10.16 with STRONGLY_TYPED. Inputs and outputs keep the types of the contract.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.errors import ExportError, MissingPackageError
from export.onnx_file import initializers, one_line, tidy, value_types

HALF_MAX = float(np.finfo(np.float16).max)
HALF_TYPE, FLOAT_TYPE = TensorProto.FLOAT16, TensorProto.FLOAT

Int8Engine = Literal["tensorrt", "openvino", "onnxruntime"]

STORED_WHOLE = 64
"""Constants with fewer values stay FP32 in half_stored: they weigh nothing."""


def half_stored(model: ModelProto) -> ModelProto:
    """The model with its weights stored as FP16 and cast back to FP32: half the file, arithmetic in FP32 as before."""
    result = copied(model)
    cast_back: list[NodeProto] = []
    weights = {
        name for node in result.graph.node if node.op_type in ("Conv", "MatMul", "Gemm") for name in node.input[1:]
    }
    for tensor in result.graph.initializer:
        if tensor.name not in weights or tensor.data_type != FLOAT_TYPE or np.prod(tensor.dims) < STORED_WHOLE:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max(initial=0) > HALF_MAX or is_projection(values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        cast_back.append(helper.make_node("Cast", [f"{name}_half"], [name], to=FLOAT_TYPE))
    nodes = [*cast_back, *result.graph.node]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return checked(tidy(result, keep_nodes=True))


def half_computed(model: ModelProto) -> ModelProto:
    """The model with its network in FP16 and the rest in FP32.

    The rest is everything after the last convolutions: box decoding, thresholds and suppression. Pixel coordinates over
    512 have steps of 0.5 px in FP16 and over 1024 of 1 px, so that decoding must not be rounded. The last convolution
    of every branch is FP32 too, by measurement (half_emulated, frames of demo/): the keypoints of an Ultralytics pose
    model lie within 0.125 px with them, 0.18 px without. They are some 1 % of the arithmetic. Attention in FP32 gains
    nothing.

    Frames become FP16 at once, which is exact for bytes, and so half of what FP32 would write and read of the largest
    pictures of all. It costs next to nothing: on 12 frames 99 % of the bundled player's 245 boxes over 0.3 lie within
    0.020 px (0.012 with scaling and first convolution in FP32, 0.024 with the scaling alone), of the pitch model's
    keypoints within 0.031 px (0.019, 0.017).

    ModelOpt 0.47's AutoCast, measured in the same way on 30 synthetic frames, converts more (407 of the player model's
    460 nodes instead of 283), decoding among them, and is worse: 99 % of the boxes within 0.25 px instead of 0.014 px,
    of a heatmap network's keypoints within 0.41 px instead of 0.012 px, of a pose network's within 0.85 px instead of
    0.15 px. On 30 real frames it is 0.24, 0.32 and 0.32 px instead of 0.008, 0.008 and 0.11 px.
    """
    result = whole_weights(model)
    graph = result.graph
    inside = network_nodes(result) - last_nodes(result)
    constants = initializers(result)
    half: dict[str, str] = {}
    floats = float_values(result)
    made_inside = {name for node in graph.node if node.name in inside for name in node.output}
    nodes: list[NodeProto] = []

    def cast(name: str, to: int, suffix: str) -> str:
        if name not in half:
            half[name] = f"{name}{suffix}"
            if name in constants:
                values = numpy_helper.to_array(constants[name])
                if np.abs(values).max(initial=0) > HALF_MAX:
                    raise ExportError(
                        f"a weight of {np.abs(values).max():.0f} does not fit FP16: use --precision fp32."
                    )
                graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), half[name]))
            else:
                nodes.append(helper.make_node("Cast", [name], [half[name]], to=to))
        return half[name]

    for node in graph.node:
        if node.op_type == "Cast" and node.name in inside and node.attribute[0].i == FLOAT_TYPE:
            node.attribute[0].i = HALF_TYPE
        for place, name in enumerate(node.input):
            if name not in floats or (node.op_type == "Resize" and place > 0):
                continue
            if node.name in inside and name not in made_inside:
                node.input[place] = cast(name, HALF_TYPE, "_half")
            elif node.name not in inside and name in made_inside:
                node.input[place] = cast(name, FLOAT_TYPE, "_float")
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return checked(tidy(result, keep_nodes=True))


def cast_at_once(model: ModelProto) -> ModelProto:
    """A copy of the model in which frames become FP32 before they are transposed.

    TensorRT takes UINT8 as the type of an input that goes into a Cast and nowhere else, transpositions included
    (github.com/NVIDIA/TensorRT issue 3985). CPU engines are better off moving bytes.
    """
    result = copied(model)
    frames = result.graph.input[0].name
    nodes = {name: node for node in result.graph.node for name in node.output}
    for move in [node for node in nodes.values() if node.op_type == "Transpose" and node.input[0] == frames]:
        casts = [node for node in result.graph.node if move.output[0] in node.input]
        if [node.op_type for node in casts] == ["Cast"]:
            # The two change places, and attributes and names with them.
            (cast,) = casts
            first, second = NodeProto(), NodeProto()
            first.CopyFrom(cast)
            second.CopyFrom(move)
            first.input[0], first.output[0] = frames, move.output[0]
            second.input[0], second.output[0] = move.output[0], cast.output[0]
            move.CopyFrom(first)
            cast.CopyFrom(second)
    for node in result.graph.node:
        if frames in node.input and node.op_type != "Cast":
            raise ExportError(
                f"layer {node.name} ({node.op_type}) reads the frames as bytes, which TensorRT takes into a Cast only."
            )
    return checked(tidy(result, keep_nodes=True))


def whole_weights(model: ModelProto) -> ModelProto:
    """A copy of the model whose weights are FP32 constants, also where they were stored as FP16."""
    result = copied(model)
    constants = initializers(result)
    nodes = []
    for node in result.graph.node:
        if node.op_type == "Cast" and node.input[0] in constants and node.attribute[0].i == FLOAT_TYPE:
            values = numpy_helper.to_array(constants[node.input[0]]).astype(np.float32)
            result.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            nodes.append(node)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return tidy(result, keep_nodes=True)


def network_nodes(model: ModelProto) -> set[str]:
    """Names of the nodes up to the last convolutions: those and all that they are fed by.

    The convolution that sums up a distribution over distances (DFL) decodes boxes and does not count.
    """
    constants = initializers(model)
    maker = {name: node for node in model.graph.node for name in node.output}
    waiting = [node for node in model.graph.node if node.op_type == "Conv" and not is_dfl(node, constants)]
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node.name not in seen:
            seen.add(node.name)
            waiting.extend(maker[name] for name in node.input if name in maker)
    return seen


def is_dfl(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    """Whether a convolution is the one of DFL; its weights need not be constants, in INT8 they are not."""
    return node.input[1] in constants and is_projection(numpy_helper.to_array(constants[node.input[1]]))


def last_nodes(model: ModelProto) -> set[str]:
    """Names of the nodes of the network from the last convolution of every branch on."""
    inside = network_nodes(model)
    found: set[str] = set()
    ahead: dict[str, int] = {}
    for node in reversed([node for node in model.graph.node if node.name in inside]):
        after = max((ahead.get(name, 0) for name in node.output), default=0) + (node.op_type == "Conv")
        if after <= 1:
            found.add(node.name)
        for name in node.input:
            ahead[name] = max(after, ahead.get(name, 0))
    return found


def is_projection(weights: npt.NDArray[Any]) -> bool:
    """Whether these are the weights 0, 1, 2, ... that turn a distribution over distances into its mean."""
    return weights.size > 1 and weights.shape[0] == 1 and np.array_equal(weights.ravel(), np.arange(weights.size))


def float_values(model: ModelProto) -> set[str]:
    """Names of all FP32 values and constants of a graph."""
    found = {name for name, kind in value_types(model).items() if kind.elem_type == FLOAT_TYPE}
    return found | {tensor.name for tensor in model.graph.initializer if tensor.data_type == FLOAT_TYPE}


def is_quantized(model: ModelProto) -> bool:
    """Whether some of it is INT8 already."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def int8_quantized(model: ModelProto, frames: Iterable[npt.NDArray[np.uint8]], engine: Int8Engine) -> ModelProto:
    """The model with its convolutions in INT8 by Q/DQ nodes, ranges taken from calibration frames uint8 [n, H, W, 3].

    Weights per channel. The last convolution of every branch, decoding and suppression stay FP32: they cost nothing.
    TensorRT takes symmetric ranges of activations only; from the least to the largest value they waste nothing on what
    SiLU never gives, under -0.28. On a CPU weights have 7 bits, so that a sum of two products fits 16: without VNNI it
    is cut there. ONNX Runtime computes in INT8 where the outputs of convolutions are rounded too; elsewhere that only
    costs accuracy and keeps SiLU from being joined with them. What each is worth stands in training/MODEL_CARD.md.
    """
    try:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.calibrate import CalibrationDataReader
    except ImportError as error:
        raise MissingPackageError("--precision int8 needs onnxruntime, see `make .venv-export/.ready`.") from error

    class Frames(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[npt.NDArray[np.uint8]] = iter(frames)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {model.graph.input[0].name: batch}

    symmetric = engine == "tensorrt"
    model = whole_weights(model)
    inner = network_nodes(model) - last_nodes(model)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv" and node.name in inner]
    with tempfile.TemporaryDirectory() as folder:
        whole, quantized = Path(folder) / "whole.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, whole)
        logging.disable(logging.WARNING)  # it asks for a preparation that this graph has had
        try:
            quantize_static(
                whole,
                quantized,
                Frames(),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=convolutions,
                per_channel=True,
                reduce_range=not symmetric,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={
                    "ActivationSymmetric": symmetric,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    "OpTypesToExcludeOutputQuantization": [] if engine == "onnxruntime" else ["Conv"],
                },
            )
        finally:
            logging.disable(logging.NOTSET)
        return checked(tidy(onnx.load(quantized), keep_nodes=True))


def copied(model: ModelProto) -> ModelProto:
    """A copy of a model that can be rewritten."""
    result = ModelProto()
    result.CopyFrom(model)
    return result


def checked(model: ModelProto) -> ModelProto:
    """The model itself; ExportError, which names the layer, if it is not valid."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the network is not valid ONNX: {one_line(error)}") from error
    return model
