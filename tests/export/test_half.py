"""FP16 keeps what the bundled models see, with every value rounded as FP16 arithmetic rounds it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from rich.console import Console

from export.command import Exported, ExportOptions, export_models
from export.frames import parity_frames
from export.half_emulation import half_emulated
from export.parity import Parity, answers, compare, compare_boxes, compare_keypoints, session, with_candidates
from export.precision import cast_at_once, half_computed, last_nodes, network_nodes

PROJECT = Path(__file__).parents[2]
BUNDLED = ("player", "pitch")


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled models before INT8, as an ONNX file for the CPU each."""
    out = tmp_path_factory.mktemp("bundled")
    options = ExportOptions("openvino", out, size=(576, 1024), confidence=0.01)
    (player,) = export_models({"player": PROJECT / "weights" / "player.pt"}, options, Console(file=io.StringIO()))
    assert isinstance(player, Exported)
    return {"player": player.file, "pitch": PROJECT / "weights" / "pitch.onnx"}


@pytest.mark.parametrize("name", BUNDLED)
def test_fp16_keeps_what_the_bundled_models_see(name: str, bundled: dict[str, Path]) -> None:
    """Every box over 0.3 within 1 px and 0.01 of FP32, every keypoint over 0.3 within 1 px."""
    model = onnx.load(bundled[name])
    height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    parity = Parity()
    for seed in (0, 1):
        frames = parity_frames(None, (height, width), seed)
        parity = parity.and_then(compare(model, half_emulated(half_computed(model)), frames))
    print(f"{name}: {parity} of {parity.seen} seen")
    assert parity.seen > 80
    assert parity.lost == 0
    assert parity.swapped <= 0.02 * parity.seen
    assert parity.pixels < 1
    assert parity.score < 0.01
    assert parity.pixels > 0.002, "an engine that leaves the rounding out would see no difference"


@pytest.mark.parametrize("name", BUNDLED)
def test_frames_are_cast_before_anything_else(name: str, bundled: dict[str, Path]) -> None:
    """TensorRT takes UINT8 into a Cast only."""
    model = onnx.load(bundled[name])
    moved = cast_at_once(model)
    frames = model.graph.input[0].name
    assert [node.op_type for node in model.graph.node if frames in node.input] == ["Transpose"], (
        "else this tests nothing"
    )
    assert [node.op_type for node in moved.graph.node if frames in node.input] == ["Cast"]
    height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    parity = compare(model, moved, parity_frames(None, (height, width))[:1])
    assert parity.seen > 3 and not parity.lost and not parity.swapped
    assert parity.pixels < 0.01 and parity.score < 1e-4
    assert cast_at_once(moved) == moved


def cast_twice(kind: int) -> ModelProto:
    """A graph that takes FP32 to another type and back."""
    nodes = [helper.make_node("Cast", ["x"], ["half"], to=kind), helper.make_node("Cast", ["half"], ["y"], to=1)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph(nodes, "rounding", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model: ModelProto, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(session(model).run(None, {"x": values})[0])


def test_the_emulation_rounds_as_numpy_does() -> None:
    rng = np.random.default_rng(3)
    values = (rng.normal(0, 1, 200_000) * 10.0 ** rng.uniform(-4, 5, 200_000)).astype(np.float32)
    ties = np.array([2049, 2051, 65503.9, 65519, 65520, -65520, 1e6, 0, 2.0**-24, 2.0**-26], np.float32)
    values = np.concatenate([values[np.abs(values) > 2.0**-14], ties])
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(run(half_emulated(cast_twice(TensorProto.FLOAT16)), values), expected)


def test_onnxruntime_alone_does_not_round() -> None:
    """Why the emulation is there: 2048 + 1 is 2048 in FP16."""
    model = cast_twice(TensorProto.FLOAT16)
    ends = model.graph.node
    ends[0].output[0], ends[1].input[0] = "a", "c"
    constants = [numpy_helper.from_array(np.array([value], np.float16), f"{value}") for value in (1, 2048)]
    model.graph.initializer.extend(constants)
    between = [helper.make_node("Add", ["a", "1"], ["b"]), helper.make_node("Sub", ["b", "2048"], ["c"])]
    nodes = [ends[0], *between, ends[1]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    values = np.array([2048], np.float32)
    assert run(half_emulated(model), values) == 0
    assert run(model, values) == 1, "then half_emulated is no longer needed on this CPU"


def test_pixels_are_counted_in_fp32_and_the_last_convolutions_are_too(bundled: dict[str, Path]) -> None:
    model = half_computed(onnx.load(bundled["player"]))
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    inside, last = network_nodes(model), last_nodes(model)
    assert sum(node.op_type == "Conv" for node in model.graph.node if node.name in last) == 6, "two a scale"
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and node.name in inside]
    assert len(convolutions) > 50
    for node in convolutions:
        half = types[node.input[1]] == TensorProto.FLOAT16
        assert half == (node.name not in last), node.name


def boxes(*rows: tuple[float, ...]) -> npt.NDArray[np.float32]:
    return np.array([*rows, (0,) * 6], np.float32)


def test_boxes_are_compared_with_the_nearest_of_their_class() -> None:
    whole = boxes((10, 10, 50, 90, 0.8, 2), (200, 10, 240, 90, 0.6, 2), (10, 10, 50, 90, 0.31, 3), (0, 0, 9, 9, 0.2, 2))
    same = boxes((200, 10, 240.5, 90, 0.62, 2), (10.25, 10, 50, 90, 0.8, 2), (10, 10, 50, 90, 0.31, 3))
    parity = compare_boxes(whole, same, 0.3)
    assert (parity.seen, parity.lost) == (3, 0)
    assert parity.pixels == pytest.approx(0.5)
    assert parity.score == pytest.approx(0.02, abs=1e-5)
    assert str(parity) == "0.50 px, 0.020"
    gone = compare_boxes(whole, boxes((10, 10, 50, 90, 0.8, 2), (260, 10, 300, 90, 0.6, 2)), 0.3)
    assert (gone.seen, gone.lost) == (3, 2)
    assert str(gone) == "0.00 px, 0.000, 2 of 3 lost"
    assert compare_boxes(whole, np.full_like(whole, np.nan), 0.3).lost == 3, "an overflow loses everything"


def test_a_tie_that_falls_the_other_way_is_a_swap_and_no_shift() -> None:
    """Two boxes on one object, 0.0002 apart in score: FP16 keeps the other one, but has the first one too."""
    first, second = (10, 10, 50, 90, 0.6001, 2), (14, 12, 53, 95, 0.5999, 2)
    alone = (200, 10, 240, 90, 0.6, 2)
    whole, other = boxes(first, alone), boxes(second, alone)
    candidates = boxes(second, (10.02, 10, 50, 90, 0.5998, 2), alone, (200, 10, 240, 90, 0.2, 2))
    parity = compare_boxes(whole, other, 0.3, candidates)
    assert (parity.seen, parity.swapped, parity.lost) == (2, 1, 0)
    assert parity.pixels == pytest.approx(0.02, abs=1e-4)
    assert parity.score == pytest.approx(0.0003, abs=1e-5)
    assert str(parity) == "0.02 px, 0.000, 1 of 2 swapped"
    moved = compare_boxes(whole, other, 0.3, boxes(second, alone))
    assert (moved.pixels, moved.swapped) == (5, 0), "a box that is nowhere in the other form has moved"
    weaker = compare_boxes(whole, other, 0.3, boxes(second, (*first[:4], 0.5, 2), alone))
    assert weaker.swapped == 0, "nor is a box the same whose score fell"


def test_boxes_before_suppression_are_found_in_the_bundled_player(bundled: dict[str, Path]) -> None:
    """Every box of the answer is one of them, and there are more of them than answers."""
    model = onnx.load(bundled["player"])
    height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    ((rows, candidates),) = answers(with_candidates(model), parity_frames(None, (height, width))[:1])
    kept = rows[rows[:, 4] > 0]
    assert len(kept) > 3 and (candidates[:, 4] > kept[:, 4].min()).sum() > len(kept)
    for row in kept:
        assert np.abs(candidates - row).max(axis=1).min() == 0
    pitch = onnx.load(bundled["pitch"])
    assert with_candidates(pitch) is pitch


def test_keypoints_are_compared_with_themselves() -> None:
    whole = np.zeros((32, 3), np.float32)
    whole[:3] = (100, 50, 0.9), (300, 60, 0.5), (10, 10, 0.29)
    other = whole + np.array([0.25, -0.75, 0.01], np.float32)
    parity = compare_keypoints(whole, other, 0.3)
    assert (parity.seen, parity.lost) == (2, 0)
    assert parity.pixels == 0.75
    assert parity.score == pytest.approx(0.01, abs=1e-6)
    assert compare_keypoints(whole, np.zeros_like(whole), 0.3).lost == 2
    assert str(compare_keypoints(np.zeros_like(whole), other, 0.3)) == "nothing seen"
