"""The exported models answer as Ultralytics' own predict does: same boxes within 1 px and 0.01, same keypoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.command import ExportOptions
from tests.export.networks import ENGINES, SIZE, UNDECIDED, checkpoint, frames, predicted, strangers, written

pytestmark = pytest.mark.export

CONFIDENCE, IOU = 0.5, 0.5
DETECT = ("yolov8n", "yolo11n", "yolo26n", "yolov10n")
TWO_HEADS = ("yolo26n", "yolov10n")
POSE = ("yolov8n-pose", "yolo11n-pose", "yolo26n-pose")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


def exported(role: str, family: str, folder: Path, **options: Any) -> tuple[Path, Path]:
    weights = folder / f"{family}.pt"
    if not weights.exists():
        checkpoint(family, weights)
    wanted = ExportOptions("onnx", folder / family, confidence=CONFIDENCE, iou=IOU, precision="fp32", **options)
    done = written(role, weights, wanted)
    return weights, done.file


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("suppression", ["operator", "rounds"])
@pytest.mark.parametrize(
    ("family", "nms_free"), [(family, False) for family in DETECT] + [(f, True) for f in TWO_HEADS]
)
def test_boxes_are_those_of_ultralytics(
    family: str, nms_free: bool, suppression: Any, engine: str, folder: Path
) -> None:
    weights, file = exported("player", family, folder, suppression=suppression, candidates=1200, nms_free=nms_free)
    images = frames(3)
    answers = ENGINES[engine](file, images)
    assert answers.shape == (3, 150, 6)
    results = predicted(weights, images, conf=CONFIDENCE, iou=IOU, max_det=150, nms=False if nms_free else None)
    total = sum(len(result.boxes) for result in results)
    assert total > 40
    strange = 0
    for ours, result in zip(answers, results, strict=True):
        assert (np.diff(ours[:, 4]) <= 0).all(), "best first"
        found = ours[ours[:, 4] > 0]
        # Ultralytics clips to the image; the gateway does that, after the letterbox is undone.
        found[:, :4] = found[:, :4].clip(0, (*SIZE[::-1], *SIZE[::-1]))
        strange += strangers(found, result.boxes.data.numpy())
    assert strange <= UNDECIDED * total


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", POSE)
def test_keypoints_are_those_of_the_best_instance(family: str, engine: str, folder: Path) -> None:
    weights, file = exported("pitch", family, folder)
    images = frames(3)
    answers = ENGINES[engine](file, images)
    assert answers.shape == (3, 32, 3)
    for ours, result in zip(answers, predicted(weights, images, conf=CONFIDENCE, iou=0.999, nms=False), strict=True):
        # Of instances that score the same, either engine may take another one.
        best = (result.boxes.conf > result.boxes.conf.max() - 0.001).numpy()
        ours[:, :2] = np.clip(ours[:, :2], 0, SIZE[::-1])
        apart = np.abs(result.keypoints.data.numpy()[best] - ours)
        assert ((apart[..., :2].max((1, 2)) < 1) & (apart[..., 2].max(1) < 0.01)).any()


@pytest.mark.parametrize("role", ["player", "pitch"])
def test_nothing_found_is_all_zero(role: str, folder: Path) -> None:
    weights = folder / ("yolo11n-pose.pt" if role == "pitch" else "yolo11n.pt")
    if not weights.exists():
        checkpoint(weights.stem, weights)
    done = written(role, weights, ExportOptions("onnx", folder / "nothing", confidence=0.9999))
    assert not ENGINES["onnxruntime"](done.file, frames(2)).any()


def test_the_batch_is_free(folder: Path) -> None:
    _, file = exported("player", "yolo11n", folder)
    images = frames(5)
    together = ENGINES["onnxruntime"](file, images)
    for place in range(5):
        alone = ENGINES["onnxruntime"](file, images[place : place + 1])
        assert np.abs(alone[0] - together[place]).max() < 0.01
