"""Class names and files: what is understood, and what is said when it is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.class_names import IGNORED, map_classes
from export.errors import WeightsError
from export.input_size import input_size, portrait, training_note
from export.weights import class_table, load
from touchline.contract import BALL, GOALKEEPER, PLAYER, REFEREE


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ball", "goalkeeper", "player", "referee"], (BALL, GOALKEEPER, PLAYER, REFEREE)),
        (["Player", "BALL", "Keeper", "Main Referee"], (PLAYER, BALL, GOALKEEPER, REFEREE)),
        (["player_team_left", "goalkeeper-team-right", "side referee"], (PLAYER, GOALKEEPER, REFEREE)),
        (["football player", "football"], (PLAYER, BALL)),
        (["person", "sports ball", "tennis racket"], (PLAYER, BALL, IGNORED)),
        (["baseball bat", "refrigerator"], (IGNORED, IGNORED)),
        (["football field", "ball boy", "football goal", "Ball-Person"], (IGNORED, IGNORED, IGNORED, IGNORED)),
        (["soccer_ball", "the ball", "match-ball", "football_0"], (BALL, BALL, BALL, BALL)),
        (["player's shadow", "jersey number of player", "goalkeeper area", "referee flag"], (IGNORED,) * 4),
        (["player with ball", "line referee", "football goalkeeper"], (PLAYER, REFEREE, GOALKEEPER)),
    ],
)
def test_names(names: list[str], expected: tuple[int, ...]) -> None:
    assert map_classes(names) == expected


def test_a_name_can_be_said_to_be_a_class() -> None:
    assert map_classes(["A", "ball"], {"a": "Player"}) == (PLAYER, BALL)
    with pytest.raises(WeightsError, match="no class 'b' in these weights: they have A"):
        map_classes(["A"], {"b": "player"})
    with pytest.raises(WeightsError, match="'striker' is no class of the contract"):
        map_classes(["A"], {"a": "striker"})


def test_a_class_can_be_left_out() -> None:
    assert map_classes(["player", "ball"], {"ball": "none"}) == (PLAYER, IGNORED)
    with pytest.raises(WeightsError, match=r"'nobody' is no class of the contract.*none leaves it out"):
        map_classes(["player"], {"player": "nobody"})


def onnx_file(path: Path, names: list[str], **notes: str) -> Path:
    """A file as Ultralytics exports one, of a network without any layers worth the name."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 384, 640])
    rows = helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["n", 4 + len(names), 5040])
    pool = helper.make_node("AveragePool", ["images"], ["y"], kernel_shape=[2, 2])
    graph = helper.make_graph([pool], "g", [images], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    del graph.output[:]
    graph.output.append(rows)
    graph.node.append(helper.make_node("Reshape", ["y", "shape"], ["tall"]))
    graph.node.append(helper.make_node("Slice", ["tall", "zero", "many", "two"], ["output0"]))
    constants = {"shape": [0, 1, -1], "zero": [0], "many": [5040], "two": [2]}
    graph.initializer.extend(numpy_helper.from_array(np.array(v), k) for k, v in constants.items())
    graph.node.insert(2, helper.make_node("Expand", ["tall", "wide"], ["wider"], name="Expand"))
    graph.initializer.append(numpy_helper.from_array(np.array([1, 4 + len(names), 1]), "wide"))
    graph.node[3].input[0] = "wider"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    said = {"task": "detect", "names": str(dict(enumerate(names))), "imgsz": "[384, 640]", "stride": "32", **notes}
    for key, value in said.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("names", [["ball", "Spieler", "Torwart"], ["people", "ball"], ["team_a", "team_b", "ball"]])
def test_a_player_model_without_people_is_refused(names: list[str], tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "club.onnx", names)
    first = next(name for name in names if name != "ball")
    with pytest.raises(WeightsError, match=rf"club\.onnx: none of its classes .* --map-class '{first}=player'"):
        load(file, "player")
    weights = load(file, "player", {first: "player"})
    table = class_table(weights)
    assert f"player: {first}" in table and "ball: ball" in table
    assert load(file, "ball").class_map.count(BALL) == 1, "a ball model needs nobody"


def test_a_ball_model_without_a_ball_is_refused(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "field.onnx", ["football field", "football goal"])
    with pytest.raises(WeightsError, match=r"is one of ball\..*--map-class 'football field=ball'"):
        load(file, "ball")


def test_rt_detr_is_refused_by_its_name_and_by_what_it_answers(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "rtdetr.onnx", ["ball", "player"], head="RTDETRDecoder")
    with pytest.raises(WeightsError, match=r"rtdetr\.onnx: answers with RTDETRDecoder .*RT-DETR and others"):
        load(file, "player")
    model = onnx.load(file)  # 300 boxes in shares of the picture, two classes, no word of the head
    del model.metadata_props[-1]
    model.graph.initializer.append(numpy_helper.from_array(np.full((1, 300, 6), 0.5, np.float32), "boxes"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0.0], np.float32), "nothing"))
    del model.graph.node[3:]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 1, 1]), "one"))
    model.graph.node.extend([
        helper.make_node("ReduceMax", ["y"], ["m"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["m", "row"], ["r"]),
        helper.make_node("Mul", ["r", "nothing"], ["zero_"]),
        helper.make_node("Add", ["zero_", "boxes"], ["output0"]),
    ])  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 1, 1]), "row"))
    for place in (1, 2):
        model.graph.output[0].type.tensor_type.shape.dim[place].dim_param = f"free_{place}"
    onnx.save(model, file)
    with pytest.raises(WeightsError, match=r"rtdetr\.onnx: answers with boxes \[1, 300, 6\], where .* in pixels"):
        load(file, "player")


def test_the_default_size_is_that_of_the_training_made_widescreen(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "player.onnx", ["player", "ball"])
    weights = load(file, "player")
    assert (weights.fixed_size, weights.trained_at) == ((384, 640), 640)
    assert input_size([weights], None) == (384, 640)
    for wide, stride, size in ((960, 32, (544, 960)), (1280, 32, (736, 1280)), (1280, 64, (768, 1280))):
        free = replace(weights, fixed_size=None, trained_at=wide, stride=stride)
        assert input_size([free], None) == size
        assert input_size([replace(free, trained_at=None), free], None) == size, "the first that knows"
        assert input_size([free, weights], None) == (384, 640), "all share one, and this file knows no other"
        assert input_size([free], (384, 640)) == (384, 640)
        assert f"trained at {wide} pixels and looks at 640" in training_note(free, (384, 640))
        assert training_note(free, size) == ""
    assert input_size([replace(weights, fixed_size=None, trained_at=None)], None) == (384, 640)
    with pytest.raises(WeightsError, match=r"player\.onnx: made for 384x640 pixels, and all models share one input"):
        input_size([weights], (576, 1024))
    assert "was 384x640 meant?" in portrait((640, 384)) and not portrait((384, 640)) and not portrait((640, 640))


def test_the_layer_whose_types_do_not_fit_is_named(tmp_path: Path) -> None:
    model = onnx.load(onnx_file(tmp_path / "player.onnx", ["player"]))
    next(tensor for tensor in model.graph.initializer if tensor.name == "wide").CopyFrom(
        numpy_helper.from_array(np.array([1.0, 5.0, 1.0], np.float32), "wide")
    )
    onnx.save(model, tmp_path / "broken.onnx")
    with pytest.raises(WeightsError, match=r"broken\.onnx: not a valid ONNX file .*Expand"):
        load(tmp_path / "broken.onnx", "player")


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"best\.pt: there is no such file.*owner/name:file"):
        load(tmp_path / "best.pt", "player")
    other = tmp_path / "notes.txt"
    other.write_text("no weights")
    with pytest.raises(WeightsError, match=r"notes\.txt: weights are a \.pt file"):
        load(other, "player")
