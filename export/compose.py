"""Puts weights and the contract's pre- and post-processing together into one ONNX file. Needs torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import ModelProto, compose, helper, numpy_helper, version_converter
from torch import nn

from export.errors import WeightsError
from export.graph import (
    OPSET,
    BestPose,
    CornerRows,
    Detections,
    EndToEndDetections,
    ListedDetections,
    Preprocessing,
    StaticSuppression,
    Thresholds,
    YoloRows,
    to_onnx,
    traced,
    with_preprocessing,
)
from export.onnx_file import BATCH, initializers, one_line, tidy, value_types
from export.parity import session
from export.rescale import Rescaled
from export.weights import EXPORT_AGAIN, Weights
from touchline.contract import DETECTIONS, INPUT, KEYPOINT_COUNT, KEYPOINTS


def contract_model(
    weights: Weights,
    path: Path,
    size: tuple[int, int],
    thresholds: Thresholds,
    pitch_size: tuple[int, int] | None = None,
) -> None:
    """Write the contract model of an Ultralytics module, or of its raw ONNX export, for inputs of H, W pixels.

    With `pitch_size` the module, a pose model, looks at the input scaled to that size (H, W).
    """
    output = KEYPOINTS if weights.task == "pose" else DETECTIONS
    if weights.form == "torch":
        check_stride(weights, "--pitch-imgsz" if pitch_size else "--imgsz", pitch_size or size)
        rows = YoloRows(weights.model, pitch_size or size, nms_free=thresholds.nms_free)
        core: nn.Module = nn.Sequential(rows, finish(weights, thresholds, end_to_end=rows.end_to_end))
        if pitch_size and pitch_size != size:
            core = Rescaled(core, size, pitch_size)
        to_onnx(with_preprocessing(core), path, size, output)
    else:
        path.write_bytes(around(weights, size, thresholds, output).SerializeToString(deterministic=True))


def check_stride(weights: Weights, flag: str, size: tuple[int, int]) -> None:
    """WeightsError for a size that the coarsest maps of a module do not divide (P6 networks have a stride of 64)."""
    stride = int(max(weights.model.stride))
    height, width = (-(-side // stride) * stride for side in size)
    if (height, width) != size:
        raise WeightsError(
            f"{weights.path}: a network of stride {stride} cannot look at {size[0]}x{size[1]}. "
            f"Say {flag} {height}x{width}."
        )


def remedy(weights: Weights, size: tuple[int, int]) -> str:
    """What may help a network that cannot be written for H, W pixels."""
    if weights.form != "torch":
        return EXPORT_AGAIN
    if any(type(module).__name__ == "ImagePoolingAttn" for module in weights.model.modules()):
        # YOLO-World v1 pools every map to 3 x 3, which ONNX can only do where 3 divides it.
        height, width = (-(-side // (3 * weights.stride)) * 3 * weights.stride for side in size)
        return f"YOLO-World v1 takes multiples of {3 * weights.stride} only: say --imgsz {height}x{width}."
    return "Give another size, or the .onnx file that `yolo export format=onnx dynamic=True` makes of it."


def with_static_suppression(model: ModelProto, thresholds: Thresholds) -> ModelProto:
    """A contract model that suppresses with ONNX NonMaxSuppression, as it does for CPUs, with the rounds instead.

    Its own overlap, least score and number of boxes stay. ValueError if this exporter did not write it.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {name: numpy_helper.to_array(tensor) for name, tensor in initializers(model).items()}
    (suppression,) = (node for node in model.graph.node if node.op_type == "NonMaxSuppression")
    boxes = makers.get(suppression.input[0])
    iou, confidence = (constants.get(name) for name in suppression.input[3:5])
    if boxes is None or boxes.op_type != "Slice" or iou is None or confidence is None:
        raise ValueError("its suppression is not the one that this exporter writes")
    rows, output = boxes.input[0], model.graph.output[0]
    kind = value_types(model)[rows]
    dims = [dim.dim_value for dim in kind.shape.dim]
    limits = replace(
        thresholds,
        suppression="rounds",
        iou=float(iou.item()),
        confidence=float(confidence.item()),
        max_detections=output.type.tensor_type.shape.dim[1].dim_value,
    )
    after = traced(StaticSuppression(limits), (dims[1], 6), torch.float32, "rows", output.name)
    before = ModelProto()
    before.CopyFrom(model)
    before.graph.output[0].name = rows
    before.graph.output[0].type.tensor_type.CopyFrom(kind)
    before = compose.add_prefix(tidy(before, keep_nodes=True), "before/", rename_inputs=False, rename_nodes=False)
    after = compose.add_prefix(after, "after/", rename_outputs=False)
    before.ir_version = after.ir_version = max(before.ir_version, after.ir_version)
    merged = compose.merge_models(before, after, [(before.graph.output[0].name, "after/rows")])
    for value in (*merged.graph.input, *merged.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    merged = tidy(merged, keep_nodes=True)
    onnx.checker.check_model(merged, full_check=True)
    return merged


def finish(weights: Weights, thresholds: Thresholds, *, end_to_end: bool) -> nn.Module:
    """The module from rows [N, A, 4 + classes + ...] to the contract's output."""
    classes = len(weights.class_map)
    if weights.task == "pose":
        return BestPose(classes, 4 + classes, weights.keypoint_dims, thresholds.confidence)
    return (EndToEndDetections if end_to_end else Detections)(weights.class_map, thresholds)


def anchors(core: ModelProto, size: tuple[int, int]) -> int:
    """How many rows an Ultralytics file with dynamic shapes answers with for H, W pixels: found by running it once."""
    run = session(core)
    images = np.zeros((1, 3, *size), np.float32)
    return int(run.run(None, {run.get_inputs()[0].name: images})[0].shape[2])


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that a model uses."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def at_least(model: ModelProto, opset: int, weights: Weights) -> ModelProto:
    """The model with its operators in a version not older than `opset`; WeightsError where onnx cannot say it so."""
    if opset_of(model) >= opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except Exception as error:  # onnx raises what its C++ says
        raise WeightsError(
            f"{weights.path}: is written in opset {opset_of(model)} of ONNX, which cannot be converted to {opset} "
            f"({one_line(error)}). Export it again with `opset={opset}`, or give the .pt."
        ) from error


def around(weights: Weights, size: tuple[int, int], thresholds: Thresholds, output: str) -> ModelProto:
    """Pre- and post-processing merged with an ONNX file that Ultralytics exported."""
    core = weights.model
    source, result = core.graph.input[0], core.graph.output[0]
    dims = [dim.dim_value for dim in result.type.tensor_type.shape.dim]
    values = KEYPOINT_COUNT * weights.keypoint_dims if weights.task == "pose" else 0
    if weights.form == "listed":
        tail: nn.Module = (
            BestPose(1, 6, weights.keypoint_dims, thresholds.confidence)
            if weights.task == "pose"
            else ListedDetections(weights.class_map, thresholds)
        )
        shape = (dims[1] or 300, 6 + values)
    else:
        tail = nn.Sequential(CornerRows(), finish(weights, thresholds, end_to_end=False))
        shape = (4 + len(weights.class_map) + values, dims[2] or anchors(core, size))
    before = traced(Preprocessing(), (*size, 3), torch.uint8, INPUT, "images")
    after = traced(tail, shape, torch.float32, "rows", output)
    core = at_least(core, OPSET, weights)
    opset = opset_of(core)
    before, after = (version_converter.convert_version(part, opset) for part in (before, after))
    before = compose.add_prefix(before, "before/", rename_inputs=False)
    network = compose.add_prefix(core, "network/", rename_nodes=False)
    after = compose.add_prefix(after, "after/", rename_outputs=False)
    parts = (before, network, after)
    ir_version = max(part.ir_version for part in parts)
    for part in parts:
        part.ir_version = ir_version
    merged = compose.merge_models(before, network, [("before/images", f"network/{source.name}")])
    merged = compose.merge_models(merged, after, [(f"network/{result.name}", "after/rows")])
    for value in (*merged.graph.input, *merged.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    merged = tidy(merged, keep_nodes=True)
    onnx.checker.check_model(merged)
    return helper.make_model(merged.graph, opset_imports=merged.opset_import, ir_version=ir_version,
                             producer_name=merged.producer_name, producer_version=merged.producer_version)  # fmt: skip
