"""NVIDIA's own parser and strongly typed builder take every graph that is exported, and refuse broken ones.

TensorRT-RTX stands for TensorRT, which needs a GPU: the same parser, type rules and calls, see export.tensorrt_library.
What it cannot say: whether TensorRT's kernels are right or quick, and whether Triton loads the engine.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from rich.console import Console
from typer.testing import CliRunner

from commands.main import app
from commands.terminal import CommandError
from export import engine_report, tensorrt_engine
from export.command import ExportOptions, export_model, export_models, write_onnx
from export.engine_report import Judged
from export.engine_stamp import BuildOptions, Device, check_plan
from export.errors import EngineError, ExportError, MissingPackageError
from export.precision import cast_at_once
from export.tensorrt_build import Built, Tensor, build, refusal, sentence
from export.tensorrt_engine import build_engine
from export.tensorrt_library import Library, tensorrt_rtx
from export.triton_model import ServedModel
from export.weights import load

pytest.importorskip("torch")
from tests.export.networks import checkpoint, frames

pytestmark = pytest.mark.export

PROJECT = Path(__file__).parents[2]
BUNDLED = {"player": PROJECT / "weights" / "player.pt", "pitch": PROJECT / "weights" / "pitch.onnx"}
SMALL, LARGE = (384, 640), (576, 1024)
HARMLESS: tuple[str, ...] = ()
"""Warnings of NVIDIA's builder that were looked at and mean nothing; there are none."""


@pytest.fixture(scope="module")
def library() -> Library:
    return tensorrt_rtx()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A seeded checkpoint of a family, made once."""
    folder = tmp_path_factory.mktemp("checkpoints")
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        names = {0: "ball"} if family == "yolov8n-p2" else None
        return made.setdefault(family, made.get(family) or checkpoint(family, folder / f"{family}.pt", names=names))

    return of


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    for index, frame in enumerate(frames(3)):
        cv2.imwrite(str(folder / f"{index}.png"), frame)
    return folder


def judged(role: str, source: Path, out: Path, **options: Any) -> Judged:
    """The last step of `export --check`."""
    (*_, done) = export_model(role, source, ExportOptions("tensorrt", out, check=True, **options))
    assert isinstance(done, Judged)
    return done


def holds(done: Judged, size: tuple[int, int]) -> None:
    """Inputs, outputs, types, dimensions and the profile are the contract's, and nothing was warned of."""
    output = {
        "pitch": Tensor("keypoints", "FP32", (-1, 32, 3)),
    }.get(done.role, Tensor("detections", "FP32", (-1, 150, 6)))
    assert done.built.inputs == (Tensor("frames", "UINT8", (-1, *size, 3)),)
    assert done.built.outputs == (output,)
    assert (done.build.size, done.build.opt_batch, done.build.max_batch) == (size, 32, 32)
    assert [text for text in done.built.warnings if not text.startswith(HARMLESS or ("\0",))] == []
    assert done.built.activation_bytes and done.built.weight_bytes and len(done.built.plan) > done.built.weight_bytes
    types = done.precisions
    first = next(layer for layer in done.built.layers if layer.operator == "CAST")
    assert first.precision == ("UINT8 to FP16" if done.precision == "fp16" else "UINT8 to FP32"), (
        "bytes are cast at once"
    )
    most = {"fp16": "FP16", "fp32": "FP32", "int8": "INT8"}[done.precision]
    ((_, count),) = types["CONVOLUTION"].most_common(1)
    assert types["CONVOLUTION"][most] == count
    assert types["TOPK"].keys() == {"FP32"}, "what is decided is decided in FP32"


@pytest.mark.parametrize("role", BUNDLED)
def test_the_bundled_models_are_taken(role: str, tmp_path: Path) -> None:
    holds(judged(role, BUNDLED[role], tmp_path, size=LARGE), LARGE)


CASES = [
    ("player", "yolov8n", SMALL, {}),
    ("player", "yolo26n", SMALL, {}),
    ("pitch", "yolo11n-pose", LARGE, {"pitch_size": SMALL}),
    ("ball", "yolov8n-p2", SMALL, {"precision": "fp32"}),
    ("player", "yolo11n", SMALL, {"precision": "int8"}),
]
MORE = [
    ("player", "yolo12n", SMALL, {}),
    ("player", "yolov10n", SMALL, {}),
    ("player", "yolo26n", SMALL, {"nms_free": False}),
    ("pitch", "yolov8n-pose", SMALL, {}),
    ("pitch", "yolo26n-pose", SMALL, {}),
    *(("player", family, LARGE, {}) for family in ("yolov8n", "yolo11n", "yolo12n", "yolo26n")),
    *(("pitch", family, LARGE, {}) for family in ("yolov8n-pose", "yolo26n-pose")),
    *(("player", family, SMALL, {"precision": "fp32"}) for family in ("yolov8n", "yolo11n", "yolo12n", "yolo26n")),
    *(("player", family, SMALL, {"precision": "int8"}) for family in ("yolov8n", "yolo12n", "yolo26n")),
    *(("pitch", family, SMALL, {"precision": "int8"}) for family in ("yolov8n-pose", "yolo11n-pose")),
    ("player", "yolo11x", (736, 1280), {}),
]


@pytest.mark.parametrize(
    ("role", "family", "size", "options"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.every_graph) for case in MORE)],
)
def test_every_family_is_taken(
    role: str,
    family: str,
    size: tuple[int, int],
    options: dict[str, Any],
    checkpoints: Callable[[str], Path],
    calibration: Path,
    tmp_path: Path,
) -> None:
    given = {"calibration": calibration} if options.get("precision") == "int8" else {}
    holds(judged(role, checkpoints(family), tmp_path, size=size, **options, **given), size)


@pytest.fixture(scope="module")
def for_cpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled player as a contract model that anybody might hand in."""
    file = tmp_path_factory.mktemp("given") / "player.onnx"
    options = ExportOptions("onnx", file.parent, size=SMALL, precision="fp32")
    write_onnx(load(BUNDLED["player"], "player"), file, options)
    return file


def named(model: ModelProto, operator: str, place: int = 0) -> Any:
    return [node for node in model.graph.node if node.op_type == operator][place]


def constant(model: ModelProto, values: Any, name: str = "broken") -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    return name


def half_beside_float(model: ModelProto) -> str:
    node = named(model, "Mul", 3)
    node.input[1] = constant(model, np.float16(2))
    return str(node.name)


def too_many_best(model: ModelProto) -> str:
    node = named(model, "TopK")
    node.input[1] = constant(model, [4000])
    for other in model.graph.node:  # what reads them is cut to what it was
        for place, name in enumerate(other.input):
            if name in node.output and other is not node:
                other.input[place] = f"{name}_cut"
    shape = [constant(model, values, f"cut_{index}") for index, values in enumerate(([0], [512], [1]))]
    cuts = [
        helper.make_node("Slice", [name, *shape], [f"{name}_cut"], name=f"cut {name}") for name in node.output if name
    ]
    place = list(model.graph.node).index(node)
    for cut in reversed(cuts):
        model.graph.node.insert(place + 1, cut)
    return str(node.name)


def an_operator_of_its_own(model: ModelProto) -> str:
    node = named(model, "Sigmoid", 4)
    node.op_type, node.domain = "Glow", "club"
    model.opset_import.append(helper.make_opsetid("club", 1))
    return str(node.name)


def too_few_channels(model: ModelProto) -> str:
    node = named(model, "Conv", 5)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    values = numpy_helper.to_array(weights)
    weights.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[:, 1:]), weights.name))
    return str(node.name)


def bytes_into_arithmetic(model: ModelProto) -> str:
    cast = named(model, "Cast")
    model.graph.node.insert(0, helper.make_node("Max", ["frames", "frames"], ["lit"], name="lighten"))
    for node in model.graph.node[1:]:
        node.input[:] = ["lit" if name == "frames" else name for name in node.input]
    assert cast is not None
    return "lighten"


def a_batch_that_is_fixed(model: ModelProto) -> str:
    node = model.graph.node[-1]
    name = node.output[0]
    node.output[0] = "free"
    shape = constant(model, [2, 150, 6])
    model.graph.node.append(helper.make_node("Reshape", ["free", shape], [name], name="fold"))
    del model.graph.output[0].type.tensor_type.shape.dim[0]
    model.graph.output[0].type.tensor_type.shape.dim.insert(0, onnx.TensorShapeProto.Dimension(dim_value=2))
    return "fold"


def from_nowhere(model: ModelProto) -> str:
    node = named(model, "Concat", 1)
    node.input[0] = "nowhere"
    return str(node.name)


@pytest.mark.parametrize(
    "breaking",
    [
        half_beside_float,
        too_many_best,
        an_operator_of_its_own,
        too_few_channels,
        bytes_into_arithmetic,
        a_batch_that_is_fixed,
        from_nowhere,
    ],
)
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_graph_that_was_broken_is_refused_with_the_name_of_its_layer(
    breaking: Callable[[ModelProto], str], precision: Any, for_cpu: Path, tmp_path: Path
) -> None:
    model = onnx.load(for_cpu)
    layer = breaking(model)
    file = tmp_path / "given.onnx"
    file.write_bytes(model.SerializeToString())
    command = ["export", "--check", "--player", str(file), "--precision", precision, "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, command)
    assert isinstance(told.exception, CommandError), "which the command line tells without a traceback"
    text = str(told.exception)
    print(text)
    assert text.startswith(f"{file}: ") and layer in text and "\n" not in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["Transpose", "Mul", "NonZero", "TopK"])
def test_the_builder_itself_refuses_what_tensorrt_refuses(kind: str, library: Library, tmp_path: Path) -> None:
    """Without the exporter's own checks before it: what they stand for is NVIDIA's word."""
    float_cast = helper.make_node("Cast", ["frames"], ["t"], name="first", to=TensorProto.FLOAT)
    half_cast = helper.make_node("Cast", ["frames"], ["t"], name="first", to=TensorProto.FLOAT16)
    constants = {"two": np.array(2, np.float32), "k": np.array([4000]), "flat": np.array([0, -1])}
    nodes, reason = {
        "Transpose": ([helper.make_node("Transpose", ["frames"], ["t"], name="it", perm=[0, 3, 1, 2]),
                       helper.make_node("Cast", ["t"], ["detections"], to=TensorProto.FLOAT)], "input has type UInt8"),
        "Mul": ([half_cast, helper.make_node("Mul", ["t", "two"], ["detections"], name="it")], "Half and Float"),
        "NonZero": ([float_cast, helper.make_node("NonZero", ["t"], ["detections"], name="it")], "plugin"),
        "TopK": ([float_cast, helper.make_node("Reshape", ["t", "flat"], ["row"]),
                  helper.make_node("TopK", ["row", "k"], ["best", "places"], name="it"),
                  helper.make_node("Reshape", ["best", "rows"], ["detections"])], "K exceeds the maximum"),
    }[kind]  # fmt: skip
    constants["rows"] = np.array([0, -1, 6])
    if kind == "TopK":
        constants["k"] = np.array([6000])
    graph = helper.make_graph(
        nodes,
        "broken",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", *SMALL, 3])],
        [helper.make_tensor_value_info("detections", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(EngineError, match=rf"TensorRT-RTX 1\.\S+ \w+.*\bit\b.*{reason}"):
        build(model.SerializeToString(), BuildOptions(SMALL), tmp_path / "timing", library)


def test_sentences_of_tensorrt() -> None:
    said = (
        "Invalid Node - move\nITensor::getDimensions: Error Code 4: API Usage Error (move: first input has type "
        "UInt8. In checkType at /_src/optimizer/common/nodeBase.cpp:456)\n[checkMacros.cpp::catchCudaError::250] "
        "Error Code 1: Cuda Runtime (In catchCudaError at /_src/checkMacros.cpp:250 (cudaError 35: CUDA driver version "
        "is insufficient for CUDA runtime version))"
    )
    assert refusal("move", "Transpose", said) == "layer move (Transpose): first input has type UInt8"
    assert refusal("", "Bark", "false") == "layer without a name (Bark): this operator is not supported"
    assert sentence("Assertion failed: (a::b(c)): Node input was not registered.") == "Node input was not registered"
    assert sentence('creator && "Plugin not found?"') == "Plugin not found?"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model of the contract that is built in a second."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["moved"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["moved", "weights"], ["maps"], strides=[32, 32]),
        helper.make_node("Reshape", ["maps", "shape"], ["detections"]),
    ]
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", 64, 64, 3])],
        [helper.make_tensor_value_info("detections", TensorProto.FLOAT, ["n", 4, 6])],
        [
            numpy_helper.from_array(rng.normal(size=(6, 3, 3, 3)).astype(np.float32), "weights"),
            numpy_helper.from_array(np.array([0, 4, 6]), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_the_seam_that_drives_tensorrt_drives_this_one(small: bytes, library: Library, tmp_path: Path) -> None:
    """Flags, profile, pools, timing cache, serialisation and the stamp beside the plan, by NVIDIA's own calls."""
    calls = 0

    def builder(network: bytes, options: BuildOptions, timing_cache: Path) -> bytes:
        nonlocal calls
        calls += 1
        return build(network, options, timing_cache, library).plan

    network, plan, cache = tmp_path / "model.onnx", tmp_path / "1" / "model.plan", tmp_path / "cache" / "timing"
    network.write_bytes(small)
    device = Device(library.version, "none", "0.0")
    options = BuildOptions((64, 64), opt_batch=8, max_batch=8, level=2, workspace_gib=0.5)
    assert build_engine(network, plan, options, cache, device=device, builder=builder)
    assert plan.stat().st_size > 1000 and cache.stat().st_size > 0
    assert json.loads(plan.with_name("model.plan.json").read_text())["device"]["tensorrt"] == library.version
    check_plan(plan, device)
    assert not build_engine(network, plan, options, cache, device=device, builder=builder) and calls == 1
    cache.write_bytes(b"no timing cache")
    assert build_engine(network, plan, BuildOptions((64, 64), 8, 16), cache, device=device, builder=builder), (
        "any cache"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": (64, 96)}, r"takes frames UINT8 \[-1, 64, 64, 3\]; the contract is frames UINT8 \[-1, 64, 96, 3\]"),
        ({"opt_batch": 9}, r"TensorRT-RTX \S+ cannot build the network: .*profile"),
    ],
)
def test_a_profile_that_does_not_fit(
    change: dict[str, Any], reason: str, small: bytes, library: Library, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"size": (64, 64), "opt_batch": 8, "max_batch": 8}
    options = BuildOptions(**(values | change))
    with pytest.raises(EngineError, match=reason):
        build(small, options, tmp_path / "timing", library)


def test_what_config_pbtxt_would_say_is_held_against_the_network(
    small: bytes, library: Library, tmp_path: Path
) -> None:
    network = tmp_path / "model.onnx"
    network.write_bytes(small)
    options = BuildOptions((64, 64), 8, 8)
    served = ServedModel("player", "tensorrt", (64, 64), 4, max_batch=8)
    assert engine_report.judged(network, served, options, library).layers
    with pytest.raises(EngineError, match=r"detections FP32 \[-1, 4, 6\], config\.pbtxt would say .*\[-1, 5, 6\]"):
        engine_report.judged(network, ServedModel("player", "tensorrt", (64, 64), 5, max_batch=8), options, library)
    with pytest.raises(EngineError, match=r"batches up to 16, built for 8"):
        engine_report.judged(network, ServedModel("player", "tensorrt", (64, 64), 4, max_batch=16), options, library)


def test_memory_grows_with_the_batch_and_the_weights_do_not(small: bytes, library: Library, tmp_path: Path) -> None:
    def memory(batch: int) -> Built:
        return build(small, BuildOptions((64, 64), batch, batch), tmp_path / "timing", library)

    few, many = memory(8), memory(512)
    assert few.activation_bytes and many.activation_bytes and many.activation_bytes > 2 * few.activation_bytes
    assert few.weight_bytes == many.weight_bytes


def test_the_table_of_a_check(for_cpu: Path, tmp_path: Path) -> None:
    report = io.StringIO()
    options = ExportOptions("tensorrt", tmp_path / "out", check=True, max_batch=4)
    (done,) = export_models({"player": for_cpu}, options, Console(file=report, width=160))
    text = report.getvalue()
    assert isinstance(done, Judged)
    assert "Judged, nothing written" in text and not (tmp_path / "out").exists()
    for row in ("convolution", "activations", "weights", "parity", "MiB", "1 to 4", "UINT8 [-1, 384, 640, 3]", "FP16"):
        assert row in text, row
    counts = [int(count) for count in re.findall(r"(\d+) FP16", text)]
    assert sum(counts) > 100


def test_without_the_wheels_the_check_says_what_to_install(
    for_cpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_libs", None)
    with pytest.raises(MissingPackageError, match=r"`pip install -r requirements/export-check\.txt`"):
        export_models({"player": for_cpu}, ExportOptions("tensorrt", tmp_path, check=True), Console(file=io.StringIO()))
    with pytest.raises(ExportError, match="--check judges what --target tensorrt would write, not openvino"):
        ExportOptions("openvino", tmp_path, check=True)


def test_the_check_would_see_bytes_that_are_moved_before_they_are_cast(
    for_cpu: Path, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cast_at_once is needed, and enough."""
    assert cast_at_once(onnx.load(for_cpu)) != onnx.load(for_cpu), "else this tests nothing"
    with pytest.raises(EngineError, match=r"Transpose.*UInt8"):
        build(for_cpu.read_bytes(), BuildOptions(SMALL), tmp_path / "timing", library)


@pytest.fixture(autouse=True)
def no_gpu_is_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A check never asks for a GPU."""

    def fail() -> Device:
        raise AssertionError("asked for the GPU")

    monkeypatch.setattr(tensorrt_engine, "kinds_here", fail)
    yield
