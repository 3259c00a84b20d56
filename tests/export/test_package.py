"""Packages for the public track, in processes of their own as an audit runs them, and every rule broken once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from commands.main import run as touchline
from demo.views import random_view
from export.chute import preflight, rules
from export.chute.package import MODEL_FILE, NOTES, package
from export.chute.preflight import Run, agreement, check, of_run, worked
from export.errors import ExportError
from export.first_run import onnxruntime_answer
from export.parity import session
from gateway.inference.outputs import detections_from_rows
from gateway.protocol.predict import boxes_json
from gateway.video.pictures import place

BUNDLED = Path(__file__).parents[2] / "model_repository" / "player" / "1" / "model.onnx"
WALL_S = 120.0


def small_model(path: Path, rows: list[list[float]]) -> Path:
    """A contract model of 96x160 that answers `rows` whatever it sees."""
    fixed = numpy_helper.from_array(np.array([rows], np.float32), "rows")
    nodes = [
        helper.make_node("Cast", ["frames"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["cast"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["mean", "last"], ["flat"]),
        helper.make_node("Mul", ["flat", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "rows"], ["detections"]),
    ]
    constants = [fixed, numpy_helper.from_array(np.array([3], np.int64), "last"),
                 numpy_helper.from_array(np.array(0, np.float32), "zero")]  # fmt: skip
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", 96, 160, 3])
    answer = helper.make_tensor_value_info("detections", TensorProto.FLOAT, ["batch", len(rows), 6])
    graph = helper.make_graph(nodes, "small", [frames], [answer], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return small_model(
        tmp_path / "small.onnx", [[20, 20, 30, 44, 0.9, 2], [60, 60, 64, 64, 0.5, 0], [0, 0, 9, 9, 0.1, 1]]
    )


@pytest.fixture
def packaged(small: Path, tmp_path: Path) -> Path:
    package(small, tmp_path / "package")
    return tmp_path / "package"


def view(seed: int, size: tuple[int, int] = (720, 1280)) -> np.ndarray:
    """A picture BGR of `size` (H, W)."""
    return np.ascontiguousarray(random_view(np.random.default_rng(seed), size)[0][..., ::-1])


def test_the_bundled_player_answers_in_a_chute_what_its_export_answers_in_the_gateway(tmp_path: Path) -> None:
    package(BUNDLED, tmp_path / "package")
    pictures = [view(3), view(4, (540, 700))]
    run = worked(tmp_path / "package", pictures, "cpu", WALL_S, calls=1)
    assert not run.failure and run.frames is not None and len(run.each_s) == 1
    frames = np.empty((len(pictures), 576, 1024, 3), np.uint8)
    letterboxes = [place(bgr[..., ::-1].copy(), frame) for bgr, frame in zip(pictures, frames, strict=True)]
    rows = np.concatenate([onnxruntime_answer(BUNDLED, frame[None]) for frame in frames])
    assert sum(len(frame["boxes"]) for frame in run.frames) > 10
    for index, (frame, letterbox) in enumerate(zip(run.frames, letterboxes, strict=True)):
        assert frame["frame_id"] == index and frame["keypoints"] == [[0, 0]] * 32
        (found,) = detections_from_rows(rows[index : index + 1], letterbox, min_score=0.25)
        expected = boxes_json(found.xyxy, found.scores, found.classes, letterbox.source_size)
        assert [round(box["conf"], 4) for box in frame["boxes"]] == [box["conf"] for box in expected]
        for ours, theirs in zip(frame["boxes"], expected, strict=True):
            assert ours["cls_id"] == theirs["cls_id"]
            assert max(abs(ours[side] - theirs[side]) for side in ("x1", "y1", "x2", "y2")) <= 1
    assert not list(of_run(run, len(pictures), WALL_S))[1].found.startswith("result")


def test_a_package_keeps_every_rule_that_is_no_time(packaged: Path) -> None:
    verdicts = list(check(packaged, None, wall_s=WALL_S))
    assert len(verdicts) >= 15
    for verdict in verdicts:
        assert verdict.kept is True or "p95" in verdict.rule, verdict


def test_the_same_weights_give_the_same_bytes_and_are_packed_anew_from_themselves(small: Path, tmp_path: Path) -> None:
    package(small, tmp_path / "a", objects=["Player", "ball"])
    package(tmp_path / "a" / MODEL_FILE, tmp_path / "b", objects=["player", "ball"])
    assert (tmp_path / "a" / MODEL_FILE).read_bytes() == (tmp_path / "b" / MODEL_FILE).read_bytes()
    assert (tmp_path / "b" / "class_names.txt").read_text() == "player\nball\n"
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        MODEL_FILE, "miner.py", "class_names.txt", "chute_config.yml",
    }  # fmt: skip


def test_classes_have_the_elements_order_and_those_it_does_not_ask_for_are_left_out(
    small: Path, tmp_path: Path
) -> None:
    package(small, tmp_path / "package", objects=["player", "referee", "ball"])
    run = worked(tmp_path / "package", [view(0, (96, 160))], "cpu", WALL_S)
    assert run.frames is not None, run.failure
    assert [(box["cls_id"], box["x1"], box["y2"]) for box in run.frames[0]["boxes"]] == [(0, 20, 44), (2, 60, 64)]


def test_a_model_of_other_things_has_the_classes_that_it_is_told(small: Path, tmp_path: Path) -> None:
    ids = package(small, tmp_path / "package", objects=["balaclava", "hoodie", "glove"])
    assert ids == ["0: balaclava", "1: hoodie", "2: glove"]
    notes = {entry.key: entry.value for entry in onnx.load(tmp_path / "package" / MODEL_FILE).metadata_props}
    assert json.loads(notes[NOTES])["names"] == ["balaclava", "hoodie", "glove"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"objects": ["player", "hoodie"]}, "no class 'hoodie'"), ({"objects": ["ball", "Ball"]}, "one name")],
)
def test_objects_that_the_weights_do_not_have_are_refused_and_nothing_is_written(
    arguments: dict[str, Any], said: str, small: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=said):
        package(small, tmp_path / "package", **arguments)
    assert not (tmp_path / "package").exists()


def test_what_lies_in_the_folder_already_is_not_published(small: Path, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "wallet.json").touch()
    with pytest.raises(ExportError, match="wallet"):
        package(small, tmp_path / "package")


def _append(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        miner = folder / "miner.py"
        miner.write_text(f"{miner.read_text()}\n{text}\n")

    return change


def _file(name: str, size: int = 0) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(size)

    return change


def _links_out(folder: Path) -> None:
    (folder.parent / "wallet.txt").touch()
    (folder / "notes.txt").symlink_to(folder.parent / "wallet.txt")


def _without_offset(folder: Path) -> None:
    miner = folder / "miner.py"
    miner.write_text(miner.read_text().replace("offset", "start"))


def _helper(folder: Path) -> None:
    (folder / "helper.py").touch()
    _append("from helper import *")(folder)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "size at most 30 MiB": (_file("big.onnx", 30 * 2**20), "MiB"),
    "only .onnx .py .json .txt .md .yml .yaml .labels .csv": (_file("weights.pt"), "weights.pt"),
    "at least one .onnx": (lambda folder: (folder / MODEL_FILE).unlink(), "none"),
    "no link leads out": (_links_out, "notes.txt"),
    "miner.py at most 1 MiB": (_append("#" * 2**20), "1029 KiB"),
    "no forbidden import": (_append("def f():\n    from urllib.request import urlopen"), "urllib"),
    "own code in miner.py alone": (_helper, "helper"),
    "no forbidden call": (_append("def f():\n    import os\n    os.remove('x'), open('x')"), "os.remove"),
    "class Miner as the chute calls it": (_without_offset, "offset"),
}


def test_every_rule_of_the_folder_is_broken_once(packaged: Path) -> None:
    assert BROKEN.keys() == {rule for rule, _ in rules.RULES}
    for rule, (change, said) in BROKEN.items():
        folder = packaged.with_name("changed")
        shutil.copytree(packaged, folder)
        change(folder)
        broken = [verdict for verdict in rules.look(folder) if verdict.kept is False]
        assert [verdict.rule for verdict in broken] == [rule], rule
        assert said in broken[0].found, broken
        shutil.rmtree(folder)


def test_without_a_miner_or_with_one_that_is_no_python_nothing_is_run(packaged: Path) -> None:
    for text in (None, "class Miner(:"):
        (packaged / "miner.py").unlink() if text is None else (packaged / "miner.py").write_text(text)
        verdicts = list(check(packaged, None))
        assert verdicts[-1].kept is None and any(verdict.kept is False for verdict in verdicts)


ODD = {
    "from the folder": (
        "import sys; sys.path.insert(0, str(path_hf_repo)); import helper", "", "imports miner.py alone",
    ),
    "of ours": ("import touchline.contract", "", "not installed in a chute"),
    "network": ("import socket; socket.create_connection(('127.0.0.1', 9))", "", "no network"),
    "memory": ("self.much = bytearray(9 << 30)", "", "MemoryError"),
    "an end": ("import os; os._exit(3)", "", "ended with 3"),
    "an error at work": ("pass", "1 / 0", "ZeroDivisionError"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_what_a_chute_does_not_allow_fails_and_says_why(kind: str, tmp_path: Path) -> None:
    start, work, said = ODD[kind]
    (tmp_path / "helper.py").touch()
    (tmp_path / "miner.py").write_text(
        f"class Miner:\n    def __init__(self, path_hf_repo):\n        {start}\n"
        f"    def predict_batch(self, batch_images, offset, n_keypoints):\n        {work or 'return []'}\n"
    )
    run = worked(tmp_path, [view(0, (32, 32))], "cpu", WALL_S)
    assert said in run.failure and run.frames is None
    verdicts = list(of_run(run, 1, WALL_S))
    assert verdicts[-1].kept is False and said in verdicts[-1].found
    assert (len(verdicts) == 2) is (kind == "an error at work")


def test_a_start_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    (tmp_path / "miner.py").write_text("while True:\n    pass\n")
    run = worked(tmp_path, [view(0, (32, 32))], "cpu", 1.0)
    assert "longer than 1 s" in run.failure
    assert [verdict.kept for verdict in of_run(run, 1, 1.0)] == [False]


def result(*boxes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"frame_id": 0, "boxes": list(boxes), "keypoints": None, **fields}


BOX = {"x1": 0, "y1": 0, "x2": 100, "y2": 10, "cls_id": 1, "conf": 0.5}


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([], "0 results for 1"),
        ([result(), result()], "2 results for 1"),
        ([{"boxes": []}], "no frame_id"),
        ([result({name: value for name, value in BOX.items() if name != "cls_id"})], "no cls_id"),
        ([result(BOX, keypoints=[[0, 0]] * 31)], "31 keypoints"),
    ],
)
def test_output_of_another_form_breaks_its_rule(frames: list[dict[str, Any]], said: str) -> None:
    verdicts = list(of_run(Run(frames=frames, each_s=[0.01]), 1, 45))
    (broken,) = [verdict for verdict in verdicts if verdict.kept is False]
    assert said in broken.found


@pytest.mark.parametrize(
    ("run", "rule"),
    [
        (Run(frames=[result()], each_s=[0.05] * 9 + [0.2], threads=4), "p95"),
        (Run(frames=[result()], each_s=[0.05], threads=17), "processes"),
        (Run(frames=[result()], each_s=[0.05], peak_gib=5.1), "memory"),
    ],
)
def test_time_threads_and_memory_break_their_rules(run: Run, rule: str) -> None:
    (broken,) = [verdict for verdict in of_run(run, 1, 45) if verdict.kept is False]
    assert rule in broken.rule


def test_boxes_without_a_partner_and_shifted_ones_lower_the_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    shifted, other = {**BOX, "x2": 50}, {**BOX, "cls_id": 2}
    assert agreement([result(BOX, other)], [result(other, BOX)]) == (1.0, 2, 0, 0)
    assert agreement([result(BOX)], [result(shifted)]) == (0.5, 1, 0, 0)
    assert agreement([result(BOX)], [result(other)]) == (0.0, 0, 1, 1)
    assert agreement([result()], [result()]) == (1.0, 0, 0, 0)
    monkeypatch.setattr(preflight, "engines", lambda: [("cuda", "CUDA")])
    monkeypatch.setattr(preflight, "worked", lambda *_: Run(frames=[result(shifted)]))
    (verdict,) = preflight.agreements(Path(), [], [result(BOX)], 1)
    assert verdict.kept is False and "0.5" in verdict.found
    (verdict,) = preflight.agreements(Path(), [], [result()], 1)
    assert verdict.kept is None and "--pictures" in verdict.found


def test_the_command_packs_checks_and_ends_with_1_where_a_rule_is_broken(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "package"
    assert touchline(["package", str(small), "--out", str(out), "--objects", "player,ball"]) == 0
    assert "0: player, 1: ball" in " ".join(capfd.readouterr().out.split())
    (out / "weights.pt").touch()
    assert touchline(["package", "--check", str(out)]) == 1
    said = capfd.readouterr().out
    assert "weights.pt" in said and "broken" in said and "not tried" in said


def test_the_small_model_runs_as_it_is_meant(small: Path) -> None:
    answer = session(onnx.load(small)).run(None, {"frames": np.zeros((2, 96, 160, 3), np.uint8)})[0]
    assert answer.shape == (2, 3, 6)
