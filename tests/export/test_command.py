"""The whole export: what it takes, what it refuses, and that Triton serves what it wrote."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from rich.console import Console
from tritonclient import grpc as triton
from tritonclient.grpc import model_config_pb2 as pb

from export import compose, tensorrt_engine
from export.command import Exported, ExportOptions, export_model, export_models
from export.engine_stamp import BuildOptions, Device
from export.errors import EngineError, ExportError, WeightsError
from export.gpus import Gpu, Kind
from local.triton import LocalTriton
from tests.export.networks import NAMES, SIZE, UNDECIDED, checkpoint, frames, run_onnxruntime, strangers, written

pytestmark = pytest.mark.export

PROJECT = Path(__file__).parents[2]
ADA = Kind((Gpu("0", "GPU-4a", "NVIDIA L4", "8.9"),))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {
        "player": checkpoint("yolo11n", folder / "player.pt"),
        "pitch": checkpoint("yolo11n-pose", folder / "pitch.pt"),
        "ball": checkpoint("yolov8n", folder / "ball.pt", names={0: "Kugel"}),
    }


def run(role: str, source: Path, target: Any, out: Path, **options: Any) -> Path:
    done = written(role, source, ExportOptions(target, out, **options))
    return done.file


@pytest.mark.parametrize("role", ["player", "pitch"])
def test_the_same_weights_give_the_same_bytes(role: str, weights: dict[str, Path], tmp_path: Path) -> None:
    first = run(role, weights[role], "onnx", tmp_path / "a").read_bytes()
    moved = tmp_path / "elsewhere.pt"
    moved.write_bytes(weights[role].read_bytes())
    second = run(role, moved, "onnx", tmp_path / "b").read_bytes()
    assert first == second
    assert str(tmp_path).encode() not in first and b".pt" not in first and b".py" not in first


def test_triton_serves_what_was_written_under_strict_configs(weights: dict[str, Path], tmp_path: Path) -> None:
    """LocalTriton runs the server with automatic configs off: a wrong config.pbtxt does not load."""
    report = io.StringIO()
    options = ExportOptions("openvino", tmp_path / "models", threads=1, confidence=0.5, cpu_precision="f32")
    export_models(weights, options, Console(file=report, width=600))
    for role in weights:
        assert str(tmp_path / "models" / role / "1" / "model.onnx") in report.getvalue().replace("\n", "")
    images = frames(3)
    with LocalTriton(tmp_path / "models", log=tmp_path / "triton.log") as server:
        server.wait_ready()
        client = triton.InferenceServerClient(server.grpc_url)
        for role, output in (("player", "detections"), ("pitch", "keypoints"), ("ball", "detections")):
            tensor = triton.InferInput("frames", list(images.shape), "UINT8")
            tensor.set_data_from_numpy(images)
            answer = client.infer(role, [tensor]).as_numpy(output)
            expected = run_onnxruntime(tmp_path / "models" / role / "1" / "model.onnx", images)
            assert answer.shape == expected.shape
            assert answer.any()
            # Another engine may decide otherwise on a score at the threshold, but not on what it is on the whole.
            confidence = 4 if output == "detections" else 2
            assert np.median(np.abs(answer - expected)[expected[..., confidence] > 0][:, confidence]) < 0.01
        client.close()


def test_a_ball_model_of_one_class_answers_class_0_whatever_its_name(weights: dict[str, Path], tmp_path: Path) -> None:
    answer = run_onnxruntime(run("ball", weights["ball"], "onnx", tmp_path, confidence=0.5), frames(1))[0]
    found = answer[answer[:, 4] > 0]
    assert len(found) and not found[:, 5].any()


def test_classes_are_mapped_by_name_and_unknown_ones_ignored(tmp_path: Path) -> None:
    source = checkpoint("yolo11n", tmp_path / "mixed.pt", names={0: "main referee", 1: "flag", 2: "Player", 3: "ball"})
    same = checkpoint("yolo11n", tmp_path / "same.pt", names=NAMES)
    done = written("player", source, ExportOptions("onnx", tmp_path / "mixed", confidence=0.5))
    assert done.note == "ignored classes: flag"
    mixed = run_onnxruntime(done.file, frames(2))
    plain = run_onnxruntime(run("player", same, "onnx", tmp_path / "same", confidence=0.5), frames(2))
    for ours, theirs in zip(mixed, plain, strict=True):
        for theirs_label, label in ((0, 3), (2, 2), (3, 0)):
            kept = theirs[(theirs[:, 4] > 0) & (theirs[:, 5] == theirs_label)]
            renamed = ours[(ours[:, 4] > 0) & (ours[:, 5] == label)]
            np.testing.assert_allclose(renamed[: len(kept), :5], kept[: len(renamed), :5], atol=1e-3)
        assert not (ours[ours[:, 4] > 0, 5] == 1).any()


@pytest.mark.parametrize(
    ("role", "family"),
    [
        ("player", "yolo11n"),
        ("player", "yolo26n"),
        pytest.param("player", "yolov8n-p2", marks=pytest.mark.every_graph),
        ("pitch", "yolov8n-pose"),
    ],
)
def test_an_onnx_file_of_ultralytics_answers_as_its_weights_do(role: str, family: str, tmp_path: Path) -> None:
    from ultralytics import YOLO

    source = checkpoint(family, tmp_path / "model.pt")
    raw = YOLO(source).export(format="onnx", dynamic=True, simplify=False, imgsz=list(SIZE), opset=17, verbose=False)
    from_onnx = run_onnxruntime(run(role, Path(raw), "openvino", tmp_path / "a", confidence=0.5), frames(2))
    options = {"confidence": 0.5, "nms_free": False}
    from_weights = run_onnxruntime(run(role, source, "openvino", tmp_path / "b", **options), frames(2))
    assert from_weights.any()
    if role == "pitch":
        np.testing.assert_allclose(from_onnx, from_weights, atol=0.02)
    else:
        pairs = zip(from_onnx, from_weights, strict=True)
        strange = sum(strangers(ours[ours[:, 4] > 0], theirs[theirs[:, 4] > 0]) for ours, theirs in pairs)
        assert strange <= UNDECIDED * (from_weights[..., 4] > 0).sum()


def test_an_old_opset_is_made_newer(tmp_path: Path) -> None:
    from ultralytics import YOLO

    source = checkpoint("yolov8n", tmp_path / "model.pt")
    raw = YOLO(source).export(format="onnx", dynamic=True, simplify=False, imgsz=list(SIZE), opset=12, verbose=False)
    assert onnx.load(raw).opset_import[0].version == 12
    old = run_onnxruntime(run("player", Path(raw), "onnxruntime", tmp_path / "a", confidence=0.5), frames(1))[0]
    new = run_onnxruntime(run("player", source, "onnxruntime", tmp_path / "b", confidence=0.5), frames(1))[0]
    assert (new[:, 4] > 0).sum() > 30
    assert strangers(old[old[:, 4] > 0], new[new[:, 4] > 0]) <= UNDECIDED * (new[:, 4] > 0).sum()


def test_what_its_engine_cannot_load_is_not_written(tmp_path: Path) -> None:
    """Ultralytics' own top-K of YOLO26 pose gathers by an index narrower than its rows, which OpenVINO refuses."""
    from ultralytics import YOLO

    source = checkpoint("yolo26n-pose", tmp_path / "pitch.pt")
    options = {"dynamic": True, "simplify": False, "imgsz": list(SIZE), "opset": 17, "nms": False}
    raw = Path(YOLO(source).export(format="onnx", verbose=False, **options))
    with pytest.raises(
        EngineError, match=r"pitch\.onnx: OpenVINO cannot run the network: .*Gather.*Give the \.pt file"
    ):
        run("pitch", raw, "openvino", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run("pitch", raw, "onnxruntime", tmp_path / "out").is_file(), "that one takes it"


@pytest.mark.every_graph
def test_yolo_world_v1_at_a_size_that_it_cannot_pool(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torch
    from ultralytics.nn.tasks import WorldModel

    model = WorldModel("yolov8s-world.yaml", nc=4, verbose=False)
    model.names, model.task = NAMES, "detect"
    torch.save({"model": model, "train_args": {"task": "detect", "imgsz": 640}}, tmp_path / "world.pt")
    capfd.readouterr()
    with pytest.raises(
        WeightsError, match=r"world\.pt: cannot be written as ONNX for 384x640 .*say --imgsz 384x672\.$"
    ) as error:
        run("player", tmp_path / "world.pt", "onnx", tmp_path / "out")
    assert "\n" not in str(error.value) and "graph(" not in "".join(capfd.readouterr())
    assert run("player", tmp_path / "world.pt", "onnx", tmp_path / "out", size=(384, 672)).is_file()


def test_what_a_checkpoint_was_trained_at_is_what_it_looks_at(weights: dict[str, Path], tmp_path: Path) -> None:
    import torch

    saved = torch.load(weights["ball"], weights_only=False)
    torch.save(saved | {"train_args": {"task": "detect", "imgsz": 960}}, tmp_path / "ball.pt")
    report = io.StringIO()
    (done,) = export_models({"ball": tmp_path / "ball.pt"}, ExportOptions("onnx", tmp_path), Console(file=report))
    assert isinstance(done, Exported) and done.size == (544, 960) and "trained at" not in done.note
    assert "ball: Kugel" in report.getvalue()
    options = ExportOptions("onnx", tmp_path, size=(640, 384), precision="fp32")
    (done,) = export_models({"ball": tmp_path / "ball.pt"}, options, Console(file=report))
    assert "trained at 960 pixels and looks at 640" in done.note and "was 384x640 meant?" in done.note


def test_the_pitch_models_training_is_not_what_is_exported(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights/pitch\.pt: .* not what can be exported\. Give .*pitch\.onnx"):
        run("pitch", PROJECT / "weights" / "pitch.pt", "onnx", tmp_path)
    alone = tmp_path / "mine.pt"
    alone.write_bytes((PROJECT / "weights" / "pitch.pt").read_bytes())
    with pytest.raises(WeightsError, match=r"mine\.pt: .*python -m training\.export_pitch --weights .*mine\.pt"):
        run("pitch", alone, "onnx", tmp_path)


def test_an_exported_file_is_taken_as_it_is(weights: dict[str, Path], tmp_path: Path) -> None:
    file = run("player", weights["player"], "onnx", tmp_path / "a")
    again = run("player", file, "openvino", tmp_path / "b")
    assert again.read_bytes() == file.read_bytes()
    images = tmp_path / "images"
    images.mkdir()
    for index, frame in enumerate(frames(2)):
        cv2.imwrite(str(images / f"{index}.png"), frame)
    options = ExportOptions("openvino", tmp_path / "d", precision="int8", calibration=images, parity_images=images)
    done = written("player", file, options)
    assert done.precision == "int8" and " px, " in done.parity, "unless it is to be otherwise"
    assert b"QuantizeLinear" in done.file.read_bytes() and b"QuantizeLinear" not in file.read_bytes()
    assert run_onnxruntime(done.file, frames(1))[..., 4].any()
    for wanted in (ExportOptions("tensorrt", tmp_path / "e"), ExportOptions("onnx", tmp_path / "e", precision="fp16")):
        with pytest.raises(WeightsError, match=r"model\.onnx: is INT8 already.* Give what it was made from"):
            list(export_model("player", done.file, wanted))
    assert run("player", done.file, "openvino", tmp_path / "f").read_bytes() == done.file.read_bytes()
    with pytest.raises(WeightsError, match=r"player\.onnx: a detect model cannot be the pitch model"):
        run("pitch", file, "onnx", tmp_path / "c")


def test_what_is_no_player_or_pitch_model(weights: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match=r"broken\.pt: not a checkpoint that Ultralytics can load"):
        run("player", broken, "onnx", tmp_path)
    with pytest.raises(WeightsError, match=r"pitch\.pt: a pose model cannot be the player model.*pass it as that"):
        run("player", weights["pitch"], "onnx", tmp_path)
    person = checkpoint("yolo11n-pose", tmp_path / "person.pt", keypoints=17)
    with pytest.raises(
        WeightsError, match=r"person\.pt: a pose model with 17 keypoints\. The pitch has 32: train with"
    ):
        run("pitch", person, "onnx", tmp_path)
    chess = checkpoint("yolo11n", tmp_path / "chess.pt", names={0: "rook", 1: "pawn"})
    with pytest.raises(
        WeightsError,
        match=r"chess\.pt: none of its classes \(rook, pawn\) is one of goalkeeper, player, referee.*'rook=player'",
    ):
        run("player", chess, "onnx", tmp_path)
    assert run("player", chess, "onnx", tmp_path, classes={"rook": "player"}).is_file()


def test_checkpoints_that_are_damaged_or_incomplete(weights: dict[str, Path], tmp_path: Path) -> None:
    import torch

    whole = weights["player"].read_bytes()
    saved = torch.load(weights["player"], weights_only=False)

    def refused_with(reason: str, name: str, content: bytes | dict[str, Any] | torch.nn.Module) -> None:
        file = tmp_path / name
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)
        with pytest.raises(WeightsError, match=rf"{re.escape(name)}: {reason}"):
            run("player", file, "onnx", tmp_path)

    def changed(change: Callable[[Any], None]) -> dict[str, Any]:
        model = copy.deepcopy(saved["model"])
        change(model)
        return {"model": model, "train_args": {"task": "detect"}}

    def diverged(model: Any) -> None:
        model.model[3].conv.weight.data[0] = float("nan")

    def renamed(model: Any) -> None:
        model.names = {0: "ball", 1: "player"}

    middle = len(whole) // 2
    flipped = whole[:middle] + bytes(value ^ 255 for value in whole[middle : middle + 64]) + whole[middle + 64 :]
    refused_with("the file is damaged .* Copy or download it again", "flipped.pt", flipped)
    refused_with("not a checkpoint that Ultralytics can load .* truncated", "half.pt", whole[:middle])
    refused_with("not a checkpoint that Ultralytics can load", "state.pt", saved["model"].state_dict())
    refused_with("its head Sequential is none of", "bare.pt", saved["model"])
    refused_with(r"its weight model\.3\.conv\.weight is not finite", "diverged.pt", changed(diverged))
    refused_with("it has 4 classes and names for 2 of them", "names.pt", changed(renamed))


def test_what_ultralytics_takes_too(weights: dict[str, Path], tmp_path: Path) -> None:
    """Full precision, a checkpoint of a training with its average beside it, names as a list."""
    import torch

    model = torch.load(weights["player"], weights_only=False)["model"]
    expected = run("player", weights["player"], "onnx", tmp_path / "a").read_bytes()
    other = copy.deepcopy(model)
    other.model[0].conv.weight.data *= 2
    listed = copy.deepcopy(model).float()
    listed.names = list(NAMES.values())
    for name, content in (("average", {"model": other, "ema": model}), ("listed", {"model": listed})):
        torch.save({**content, "train_args": {"task": "detect"}}, tmp_path / f"{name}.pt")
        assert run("player", tmp_path / f"{name}.pt", "onnx", tmp_path / name).read_bytes() == expected, name


def test_onnx_files_that_do_not_fit(tmp_path: Path) -> None:
    from ultralytics import YOLO

    source = checkpoint("yolo11n", tmp_path / "player.pt")
    raw = YOLO(source).export(format="onnx", dynamic=True, simplify=False, imgsz=list(SIZE), opset=17, verbose=False)

    def refused_with(reason: str, change: Callable[[onnx.ModelProto], None]) -> None:
        model = onnx.load(raw)
        change(model)
        onnx.save(model, tmp_path / "changed.onnx")
        with pytest.raises(WeightsError, match=rf"changed\.onnx: {reason}"):
            run("player", tmp_path / "changed.onnx", "onnx", tmp_path, size=SIZE)

    def suppressed(model: onnx.ModelProto) -> None:
        (entry,) = (entry for entry in model.metadata_props if entry.key == "args")
        entry.value = entry.value.replace("}", ", 'nms': True}")

    def fixed(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4

    def larger(model: onnx.ModelProto) -> None:
        for place, side in ((2, 320), (3, 512)):
            model.graph.input[0].type.tensor_type.shape.dim[place].dim_value = side

    def half(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16

    def unknown(model: onnx.ModelProto) -> None:
        del model.metadata_props[:]

    def diverged(model: onnx.ModelProto) -> None:
        weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
        values = onnx.numpy_helper.to_array(weight) * np.float32("nan")
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))

    refused_with("exported with nms=True, which Touchline does itself. Export it again with nms=False", suppressed)
    refused_with(r"its batch is fixed to 4\. Export it again with `dynamic=True`, or give the \.pt", fixed)
    refused_with("made for 320x512 pixels, and all models .* Say --imgsz 320x512 or give the .pt", larger)
    refused_with("its input is not FP32. Export it again with half=False", half)
    refused_with("neither exported by Touchline nor by Ultralytics .* Give the .pt file, or export it again", unknown)
    refused_with("its weight .* is not finite", diverged)
    (tmp_path / "cut.onnx").write_bytes(Path(raw).read_bytes()[:100_000])
    with pytest.raises(
        WeightsError, match=r"cut\.onnx: not a valid ONNX file .* Give the \.pt file, or export it again"
    ):
        run("player", tmp_path / "cut.onnx", "onnx", tmp_path)


def test_a_size_that_the_strides_of_the_network_do_not_divide(tmp_path: Path) -> None:
    import torch
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel("yolov8n-p6.yaml", nc=4, verbose=False)
    model.names, model.task = NAMES, "detect"
    torch.save({"model": model, "train_args": {"task": "detect"}}, tmp_path / "p6.pt")
    with pytest.raises(WeightsError, match=r"p6\.pt: a network of stride 64 cannot .* 736x1280\. Say --imgsz 768x1280"):
        run("player", tmp_path / "p6.pt", "onnx", tmp_path, size=(736, 1280))


def test_a_segment_model_is_refused(tmp_path: Path) -> None:
    import torch
    from ultralytics.nn.tasks import SegmentationModel

    model = SegmentationModel("yolo11n-seg.yaml", nc=4, verbose=False)
    model.task = "segment"
    torch.save({"model": model, "train_args": {}}, tmp_path / "seg.pt")
    with pytest.raises(WeightsError, match=r"seg\.pt: a segment model\. Touchline serves detect models"):
        run("player", tmp_path / "seg.pt", "onnx", tmp_path)


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="380x640: height and width must be multiples of 32"):
        ExportOptions("onnx", tmp_path, size=(380, 640))
    with pytest.raises(ExportError, match="int8 needs --calibration"):
        ExportOptions("onnx", tmp_path, precision="int8")
    with pytest.raises(ExportError, match="--opt-batch 16 must lie between 1 and --max-batch 8"):
        ExportOptions("tensorrt", tmp_path, max_batch=8, opt_batch=16)
    with pytest.raises(ExportError, match=r"--iou 1\.5 must lie between 0 and 1"):
        ExportOptions("onnx", tmp_path, iou=1.5)
    with pytest.raises(ExportError, match="--max-detections 0 must lie between 1 and 3840"):
        ExportOptions("onnx", tmp_path, max_detections=0)
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"--out .*file: there is a file of this name"):
        ExportOptions("onnx", tmp_path / "file")
    with pytest.raises(ExportError, match="nothing to export"):
        export_models({}, ExportOptions("onnx", tmp_path))


def test_the_tensorrt_flow_with_another_builder(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: list[bytes] = []

    def builder(network: bytes, options: BuildOptions, timing_cache: Path) -> bytes:
        networks.append(network)
        assert (options.size, options.opt_batch, options.max_batch) == (SIZE, 32, 32)
        return b"plan"

    device = Device("11.4.0", "NVIDIA L4", "8.9")
    monkeypatch.setattr(tensorrt_engine, "kinds_here", lambda: [ADA])
    monkeypatch.setattr(tensorrt_engine, "device_of", lambda kind: device)

    monkeypatch.setattr(tensorrt_engine, "tensorrt_builder", builder)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "models"
    plan = run("player", weights["player"], "tensorrt", out)
    assert (plan, plan.read_bytes()) == (out / "player" / "1" / "model.plan", b"plan")
    config = text_format.Parse((out / "player" / "config.pbtxt").read_text(), pb.ModelConfig())
    assert config.platform == "tensorrt_plan"
    second = written("player", weights["player"], ExportOptions("tensorrt", out))
    assert second.note.endswith("not of the engine; unchanged, kept") and len(networks) == 1
    assert b"NonMaxSuppression" not in networks[0], "static shapes only"
    nodes = onnx.load_from_string(networks[0]).graph.node
    assert [node.op_type for node in nodes if "frames" in node.input] == ["Cast"], "UINT8 goes into a Cast only"


def test_without_tensorrt_the_remedy_is_named(weights: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"needs TensorRT's Python package.*`export` service"):
        export_models(weights, ExportOptions("tensorrt", tmp_path), Console(file=io.StringIO()))


def test_a_model_for_the_cpu_gets_static_shapes_for_tensorrt(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: list[bytes] = []

    def builder(network: bytes, *_: object) -> bytes:
        networks.append(network)
        return b"plan"

    monkeypatch.setattr(tensorrt_engine, "kinds_here", lambda: [ADA])
    monkeypatch.setattr(tensorrt_engine, "device_of", lambda kind: Device("11.4.0", "NVIDIA L4", "8.9"))
    monkeypatch.setattr(tensorrt_engine, "tensorrt_builder", builder)
    monkeypatch.chdir(tmp_path)
    for_cpu = run("player", weights["player"], "openvino", tmp_path / "cpu", confidence=0.5, precision="fp32")
    options = ExportOptions("tensorrt", tmp_path / "gpu", precision="fp32")
    done = written("player", for_cpu, options)
    assert "suppression by rounds instead of NonMaxSuppression" in done.note
    static = tmp_path / "static.onnx"
    static.write_bytes(networks[0])
    assert all(node.op_type != "NonMaxSuppression" for node in onnx.load(static).graph.node)
    whole, other = run_onnxruntime(for_cpu, frames(3)), run_onnxruntime(static, frames(3))
    assert (whole[..., 4] > 0.5).sum() > 30, "a crowd, or the comparison says nothing"
    np.testing.assert_allclose(other, whole, atol=1e-3)

    def fail(*_: Any) -> None:
        raise ValueError("another one")

    monkeypatch.setattr(compose, "with_static_suppression", fail)
    with pytest.raises(WeightsError, match=r"exported for a CPU.*another one.* give the \.pt .*--target onnx`"):
        run("player", for_cpu, "tensorrt", tmp_path)


def test_the_table_says_how_near_to_fp32_it_is(weights: dict[str, Path], tmp_path: Path) -> None:
    report = io.StringIO()
    (done,) = export_models(
        {"player": weights["player"]}, ExportOptions("onnx", tmp_path), Console(file=report, width=200)
    )
    assert isinstance(done, Exported)
    assert "parity" in report.getvalue() and done.parity in report.getvalue()
    assert re.fullmatch(r"\d+\.\d\d px, \d\.\d{3}(, \d+ of \d+ swapped)?(, \d+ of \d+ lost)?|nothing seen", done.parity)
    (again,) = export_models({"player": done.file}, ExportOptions("openvino", tmp_path), Console(file=report))
    assert again.parity == "as given"


def test_pictures_to_compare_on(weights: dict[str, Path], tmp_path: Path) -> None:
    for index, frame in enumerate(frames(2, size=(360, 500))):
        cv2.imwrite(str(tmp_path / f"{index}.png"), frame)
    options = ExportOptions("onnx", tmp_path / "out", confidence=0.5, parity_images=tmp_path)
    done = written("player", weights["player"], options)
    assert " px, " in done.parity
    (tmp_path / "empty").mkdir()
    options = ExportOptions("onnx", tmp_path / "out", parity_images=tmp_path / "empty")
    with pytest.raises(ExportError, match=r"--parity-images .*empty: there are no \.jpg or \.png images in it"):
        list(export_model("player", weights["player"], options))
