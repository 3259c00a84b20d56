"""Rewrites ONNX graphs: everything constant except for the batch, and the same bytes for the same weights."""

from __future__ import annotations

import re
from itertools import count

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from touchline import __version__

BATCH = "batch"

SMALL = 4096
"""Constants with more values are weights or anchors: no shape is computed from them."""


def tidy(model: ModelProto, *, keep_nodes: bool = False) -> ModelProto:
    """The model without dead nodes and with no name, path or version in it that depends on how it was made.

    `keep_nodes` keeps the names of nodes, so that what an engine says of a layer can be found in the file it came from.
    """
    constants_as_initializers(model)
    while fold_shapes(model):
        pass
    if keep_nodes:
        name_nodes(model)
    else:
        for place, node in enumerate(model.graph.node):
            node.name = f"{node.op_type}_{place}"
    rename(model)
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    del model.graph.value_info[:], model.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    model.graph.name = "touchline"
    model.producer_name, model.producer_version = "touchline", __version__
    return model


def free_batch(two: ModelProto, three: ModelProto) -> ModelProto:
    """One model with a free batch from the same module traced with a batch of two and of three.

    Tracing fixed shapes folds every shape computation away. What differs between the two is the batch: it stands in
    the targets of Reshape (where it becomes -1) and Expand (where it becomes 1). ValueError if it is anywhere else.
    """
    two, three = tidy(two), tidy(three)
    ours, theirs = initializers(two), initializers(three)
    if [node.SerializeToString() for node in two.graph.node] != [node.SerializeToString() for node in three.graph.node]:
        raise ValueError("the graph has another form for another batch size: this module cannot have a free batch")
    users: dict[str, list[NodeProto]] = {}
    for node in two.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for name, tensor in ours.items():
        first, second = numpy_helper.to_array(tensor), numpy_helper.to_array(theirs[name])
        if first.shape == second.shape and np.array_equal(first, second):
            continue
        kinds = {node.op_type for node in users[name]}
        if first.shape != second.shape or len(kinds) != 1 or not kinds <= {"Reshape", "Expand"}:
            raise ValueError(f"the batch size is fixed in a constant {list(first.shape)} that {sorted(kinds)} use")
        # In a Reshape that already has its -1, 0 takes over the batch of the value that is reshaped.
        free = np.where(first == second, first, 1 if kinds == {"Expand"} else 0 if -1 in first else -1)
        tensor.CopyFrom(numpy_helper.from_array(free, name))
    for value in (*two.graph.input, *two.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    onnx.checker.check_model(two)
    return two


def constants_as_initializers(model: ModelProto) -> None:
    """Turn Constant nodes into initializers, so that everything fixed stands in one place."""
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            model.graph.initializer.append(tensor)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def fold_shapes(model: ModelProto) -> bool:
    """Compute what can be known of Shape nodes and of the integer arithmetic on them; whether that was anything."""
    drop_dead(model)
    folded = False
    inner = value_types(model)
    for value in (*model.graph.input, *model.graph.output):
        inner.pop(value.name, None)
    known = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if np.prod(tensor.dims) <= SMALL
    }
    for node in model.graph.node:
        if node.op_type == "Shape" and node.input[0] in inner and not node.attribute:
            dims = [dim.dim_value for dim in inner[node.input[0]].shape.dim]
            value = np.array(dims, np.int64) if all(dims) else None
        elif node.op_type != "Identity" and node.input and all(name in known for name in node.input if name):
            (value,) = ReferenceEvaluator(node).run(None, {name: known[name] for name in node.input if name})
        else:
            continue
        if value is not None and value.dtype in (np.int64, np.bool_) and value.ndim <= 1:
            known[node.output[0]] = value
            model.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
            node.output[0] = f"{node.output[0]}_folded"
            folded = True
    return folded


def drop_dead(model: ModelProto) -> None:
    """Remove nodes and initializers that no output needs, and Identity nodes that only rename a value."""
    outputs = {output.name for output in model.graph.output}
    same: dict[str, str] = {}
    for node in model.graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.output[0] not in outputs:
            same[node.output[0]] = node.input[0]
    needed = set(outputs)
    alive: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            alive.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(alive))
    # One by one: to empty the list and fill it again would copy every weight, and a message gives nothing back.
    for place in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[place].name not in needed:
            del model.graph.initializer[place]


def name_nodes(model: ModelProto) -> None:
    """Give every node without a name, or with another's, one of its own."""
    names = {node.name for node in model.graph.node}
    seen = {""}
    for node in model.graph.node:
        if node.name in seen:
            node.name = next(name for place in count() if (name := f"{node.op_type}_added_{place}") not in names)
            names.add(node.name)
        seen.add(node.name)


def rename(model: ModelProto) -> None:
    """Number values and constants in graph order; inputs and outputs keep their names."""
    constants = initializers(model)
    names = {value.name: value.name for value in (*model.graph.input, *model.graph.output)} | {"": ""}
    order: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            if name in constants and name not in names:
                names[name] = f"constant_{len(order)}"
                order[names[name]] = len(order)
        for name in node.output:
            names.setdefault(name, f"value_{len(names)}")
    for node in model.graph.node:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
        tensor.ClearField("doc_string")
    model.graph.initializer.sort(key=lambda tensor: order[tensor.name])


def value_types(model: ModelProto) -> dict[str, TypeProto.Tensor]:
    """Element type and shape of every input, output and value between nodes, as far as onnx can infer them.

    Large constants are left out of what is inferred on: a large network's weights would be copied several times.
    """
    light = ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    light.graph.value_info.extend(model.graph.value_info)
    weights = set()
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) <= SMALL:
            light.graph.initializer.append(tensor)
        else:
            weights.add(tensor.name)
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    graph = shape_inference.infer_shapes(light).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: value.type.tensor_type for value in values if value.name not in weights}


def initializers(model: ModelProto) -> dict[str, TensorProto]:
    """The constants of a graph by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def one_line(error: BaseException) -> str:
    """What an error of onnx or an engine says, without line breaks and the marks between its parts."""
    text = re.sub(r"\s*(?:==> Context:|\[ShapeInferenceError\]|\[TypeInferenceError\])\s*", " ", str(error))
    return " ".join(text.split()).rstrip(". ") or type(error).__name__
