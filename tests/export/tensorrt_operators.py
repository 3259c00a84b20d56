"""Which ONNX operators TensorRT's parser takes, of those that exported graphs have, and for which types.

Source: docs/operators.md of github.com/onnx/onnx-tensorrt at TensorRT 9.2; later versions only add to it.
"""

from __future__ import annotations

import onnx
from onnx import ModelProto, TensorProto

FLOATS = frozenset([TensorProto.FLOAT, TensorProto.FLOAT16])
NUMBERS = FLOATS | {TensorProto.INT32, TensorProto.INT64}
ANY = NUMBERS | {TensorProto.BOOL}
LOGIC = frozenset([TensorProto.BOOL])

OPERATORS = (
    ("AveragePool Clip Conv Gemm MatMul MaxPool Reciprocal Resize Sigmoid Softmax", FLOATS),
    ("Abs Add ArgMax Div Equal Greater Less LessOrEqual Max Min Mod Mul Pad", NUMBERS),
    ("ConstantOfShape Range ReduceMax ReduceMean ReduceSum ScatterElements Sub TopK", NUMBERS),
    ("Concat Expand Flatten Gather GatherElements Reshape Shape Slice Split Transpose Trilu Unsqueeze Where", ANY),
    ("And Not Xor", LOGIC),
    ("Cast", ANY | {TensorProto.UINT8}),
)
TAKEN = {name: types for names, types in OPERATORS for name in names.split()}
"""Operator to the types its first input may have."""


def refused(model: ModelProto) -> list[str]:
    """Nodes of a model that TensorRT's parser would not take: operator and type."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return [
        f"{node.op_type} of {TensorProto.DataType.Name(types[node.input[0]])}"
        for node in graph.node
        if types[node.input[0]] not in TAKEN.get(node.op_type, frozenset())
    ]
