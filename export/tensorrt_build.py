"""The calls that make a plan of an ONNX file, with TensorRT or TensorRT-RTX, and what the builder said of it."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from export.engine_stamp import BuildOptions
from export.errors import EngineError
from export.tensorrt_library import Library
from touchline.contract import DETECTIONS, INPUT, KEYPOINT_COUNT, KEYPOINTS

TYPE_NAMES = {"FLOAT": "FP32", "HALF": "FP16"}
"""What TensorRT calls the types that the rest of the world calls so; the others have their own names."""

NOT_OF_THE_GRAPH = "CUDA driver version is insufficient"
"""TensorRT-RTX says so on every machine without a GPU, beside what it has to say."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as TensorRT has it: its type (FP32, UINT8, ...) and its shape, -1 where it is free."""

    name: str
    kind: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.kind} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the network before fusion: the operator TensorRT makes of a node, and the type it computes in."""

    name: str
    operator: str
    precision: str


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and what TensorRT said of it. Memory in bytes for the largest batch; None where it did not say."""

    plan: bytes
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    warnings: tuple[str, ...]
    activation_bytes: int | None
    weight_bytes: int | None


def build(  # noqa: PLR0915  (the calls in the order that they have to be made in)
    network: bytes, options: BuildOptions, timing_cache: Path, library: Library
) -> Built:
    """Parse and build an ONNX file of the contract with either of NVIDIA's builders.

    EngineError, which names the layer, for a graph that it does not take or that is no model of the contract.
    """
    if TYPE_CHECKING:
        import tensorrt as trt
    else:
        trt = library.api
    said: list[tuple[str, str]] = []

    class Listener(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            said.append((severity.name, msg))
            if library.on_gpu and severity.name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                print(f"[TRT] [{severity.name[0]}] {msg}", file=sys.stderr)

    logger = Listener()
    builder = trt.Builder(logger)
    # Up to TensorRT 10 this has to be asked for; 11 knows nothing else and keeps the name.
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, logger)
    if not parser.parse(network):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = "; ".join(refusal(e.node_name(), e.node_operator(), e.desc()) for e in errors)
        raise EngineError(f"{library} does not take the network: {reasons or 'it does not say why'}.")
    inputs = [definition.get_input(place) for place in range(definition.num_inputs)]
    outputs = [definition.get_output(place) for place in range(definition.num_outputs)]
    layers = [definition.get_layer(place) for place in range(definition.num_layers)]
    makers = {
        tensor.name: layer
        for layer in layers
        for tensor in (layer.get_output(place) for place in range(layer.num_outputs))
        if tensor is not None
    }

    def tensor_of(tensor: trt.ITensor) -> Tensor:
        shape = tensor.shape
        return Tensor(tensor.name, type_name(tensor.dtype.name), tuple(shape[axis] for axis in range(len(shape))))

    def precision(layer: trt.ILayer) -> str:
        first, made = layer.get_input(0), layer.get_output(0)
        if first is None or layer.type == trt.LayerType.SELECT:
            return type_name(made.dtype.name)
        if layer.type == trt.LayerType.CAST:
            return f"{type_name(first.dtype.name)} to {type_name(made.dtype.name)}"
        source = makers.get(first.name)
        # Strong typing joins the two: what reads INT8 through a DequantizeLinear computes in INT8.
        if layer.type == trt.LayerType.CONVOLUTION and source and source.type == trt.LayerType.DEQUANTIZE:
            return "INT8"
        return type_name(first.dtype.name)

    ends = tuple(map(tensor_of, inputs)), tuple(map(tensor_of, outputs))
    hold_against_contract(*ends, options.size, {tensor.name: makers[tensor.name].name for tensor in outputs})

    settings = builder.create_builder_config()
    settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options.workspace_gib * 2**30))
    settings.builder_optimization_level = options.level
    # On by default, it would round what is FP32 on purpose, box decoding above all, to 11 bits.
    settings.clear_flag(trt.BuilderFlag.TF32)
    if options.portable:
        settings.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    profile = builder.create_optimization_profile()
    low, best, high = (trt.Dims([batch, *options.size, 3]) for batch in (1, options.opt_batch, options.max_batch))
    profile.set_shape(INPUT, low, best, high)
    settings.add_optimization_profile(profile)
    with warnings.catch_warnings():
        if not library.on_gpu:
            warnings.simplefilter("ignore", DeprecationWarning)
        known = timing_cache.read_bytes() if timing_cache.is_file() else b""
        if not settings.set_timing_cache(settings.create_timing_cache(known), False):
            settings.set_timing_cache(settings.create_timing_cache(b""), False)
        plan = builder.build_serialized_network(definition, settings)
        if plan is None:
            reasons = "; ".join(dict.fromkeys(sentence(text) for kind, text in said if kind.endswith("ERROR")))
            raise EngineError(f"{library} cannot build the network: {reasons or 'it does not say why'}.")
        timing_cache.write_bytes(bytes(settings.get_timing_cache().serialize()))
    # What was built is loaded once before anybody relies on it; a plan of TensorRT-RTX would need a GPU for that.
    if library.on_gpu and trt.Runtime(logger).deserialize_cuda_engine(plan) is None:
        raise EngineError(f"{library} built an engine that it cannot load; its own messages stand above.")
    text = "\n".join(message for _, message in said)
    return Built(
        plan=bytes(plan),
        inputs=ends[0],
        outputs=ends[1],
        layers=tuple(
            Layer(layer.name, layer.type.name, precision(layer)) for layer in layers if layer.get_output(0) is not None
        ),
        warnings=tuple(dict.fromkeys(sentence(message) for kind, message in said if kind == "WARNING")),
        activation_bytes=number_after("Total Activation Memory:", text),
        weight_bytes=number_after("Total Weights Memory:", text),
    )


def hold_against_contract(
    inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], size: tuple[int, int], makers: Mapping[str, str]
) -> None:
    """EngineError unless a network has the contract's one input and one output; `makers` are the outputs' layers."""
    wanted = Tensor(INPUT, "UINT8", (-1, *size, 3))
    if inputs != (wanted,):
        raise EngineError(f"the network takes {', '.join(map(str, inputs))}; the contract is {wanted}.")
    if len(outputs) == 1:
        (output,) = outputs
        rows = output.shape[1] if len(output.shape) == 3 else 0
        shapes = {DETECTIONS: (-1, rows, 6), KEYPOINTS: (-1, KEYPOINT_COUNT, 3)}
        if output == Tensor(output.name, "FP32", shapes.get(output.name, ())) and rows > 0:
            return
    found = ", ".join(f"{tensor} of layer {makers[tensor.name]}" for tensor in outputs)
    raise EngineError(
        f"the network answers with {found or 'nothing'}; the contract is {DETECTIONS} FP32 [-1, K, 6] or "
        f"{KEYPOINTS} FP32 [-1, {KEYPOINT_COUNT}, 3]."
    )


def type_name(name: str) -> str:
    """FP32 for FLOAT and so on."""
    return TYPE_NAMES.get(name, name)


def refusal(node: str, operator: str, description: str) -> str:
    """What the parser has against a node, as one sentence without its own source files and this machine's CUDA."""
    reason = sentence(re.sub(r"^Invalid Node - .*\n", "", description)).removeprefix(f"{node}: ")
    if reason in ("", "false"):
        reason = "this operator is not supported"
    if reason.startswith("Plugin not found"):
        reason = "it is no operator of ONNX, and TensorRT has no plugin of this name"
    return f"layer {node or 'without a name'} ({operator or 'unknown'}): {reason}"


def sentence(message: str) -> str:
    """A message of TensorRT's without the places in its sources that it names, on one line."""
    lines = [line.strip() for line in message.splitlines() if line.strip() and NOT_OF_THE_GRAPH not in line]
    text = " ".join(lines)
    text = re.sub(r"I\w+::\w+: Error Code \d+: [\w ]+? \((.*)\)", r"\1", text)
    text = re.sub(r"\.? In \w+ at /_src/\S+(?: In \w+ at /_src/\S+?)*(?=\)|$)", "", text)
    # Of "Assertion failed: (condition): reason" and the like the condition is C++.
    text = re.sub(r"^(?:Assertion failed: )?(?:\(.*?\)|\w+ && .*?): (?=[A-Z])", "", text)
    return re.sub(r'^\w+ && "(.*)"$', r"\1", text).strip().rstrip(".")


def number_after(words: str, text: str) -> int | None:
    """The last number that follows some words in a text."""
    found = re.findall(re.escape(words) + r"\s*(\d+)", text)
    return int(found[-1]) if found else None
