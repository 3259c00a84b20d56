"""FP16 arithmetic on a CPU that has none: what an engine that rounds every value to half precision would answer.

ONNX Runtime's CPU kernels have no FP16: it computes FP16 nodes in FP32 and drops the casts in between, so that running
an FP16 file there shows the rounding of the weights only. Here the file is rewritten to FP32 with the rounding of every
value written out. Sums inside a convolution or matrix product stay FP32, as tensor cores accumulate; an engine that
fuses nodes rounds less often than this.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.onnx_file import initializers, value_types

EXACT = frozenset(
    ["Concat", "Expand", "Flatten", "Gather", "GatherElements", "Identity", "Max", "MaxPool", "Min", "Neg", "Pad",
     "Relu", "Reshape", "Slice", "Split", "Squeeze", "TopK", "Transpose", "Unsqueeze", "Where"]
)  # fmt: skip
"""Operators that only move or choose values: what was on the grid of FP16 stays there."""

STEPS = {"split": 2.0**13 + 1, "tiny": 0.75, "up": 2.0**112, "down": 2.0**-112}
"""Constants of the rounding, see rounding."""


def half_emulated(model: ModelProto) -> ModelProto:
    """A copy of a model in FP32 that answers what FP16 arithmetic would where the model has FP16 values."""
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    half = {name for name, kind in value_types(model).items() if kind.elem_type == TensorProto.FLOAT16}
    half |= {name for name, tensor in initializers(result).items() if tensor.data_type == TensorProto.FLOAT16}
    for tensor in graph.initializer:
        if tensor.name in half:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    nodes: list[NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
        nodes.append(node)
        if node.op_type in EXACT:
            continue
        for place, name in enumerate(node.output):
            if name in half:
                node.output[place] = f"{name}_exact"
                nodes.extend(rounding(node.output[place], name))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), f"round_{name}") for name, value in STEPS.items()
    )
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.checker.check_model(result, full_check=True)
    return result


def rounding(source: str, target: str) -> Iterator[NodeProto]:
    """Nodes that round an FP32 value to the nearest FP16 number, ties to even, by FP32 arithmetic alone.

    Cast nodes would be taken out again by the engine. First Veltkamp's splitting to 11 significant bits (T. J. Dekker,
    A floating-point technique for extending the available precision, 1971); then to multiples of 2^-24, the step of
    FP16's subnormal numbers, which only numbers under 2^-14 feel (rounded twice, they may be off by one such step);
    then out of FP32's range and back, which turns what is over FP16's range into infinity.
    """

    def step(operator: str, first: str, second: str, output: str) -> NodeProto:
        return helper.make_node(operator, [first, second], [output])

    names = [f"{target}_{place}" for place in range(7)]
    yield step("Mul", source, "round_split", names[0])
    yield step("Sub", names[0], source, names[1])
    yield step("Sub", names[0], names[1], names[2])
    yield step("Add", names[2], "round_tiny", names[3])
    yield step("Sub", names[3], "round_tiny", names[4])
    yield step("Mul", names[4], "round_up", names[5])
    yield step("Mul", names[5], "round_down", target)
