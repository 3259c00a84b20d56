"""The exported models answer as Ultralytics' own predict does: same boxes within 1 px and 0.01, same keypoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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


Made = Callable[..., tuple[Path, Path]]
Said = Callable[..., Any]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Checkpoint and ONNX file of a role, a family and options; each is exported once, for all engines."""
    folder = tmp_path_factory.mktemp("parity")

    @cache
    def made(role: str, family: str, **options: Any) -> tuple[Path, Path]:
        weights = folder / f"{family}.pt"
        if not weights.exists():
            checkpoint(family, weights)
        given = {"confidence": CONFIDENCE, "iou": IOU, "precision": "fp32", **options}
        wanted = ExportOptions("onnx", folder / "-".join([family, *map(str, options.values())]), **given)
        return weights, written(role, weights, wanted).file

    return made


@pytest.fixture(scope="module")
def said() -> Said:
    """What Ultralytics answers on three frames; each is asked once."""

    @cache
    def answered(weights: Path, **options: Any) -> Any:
        return predicted(weights, frames(3), **options)

    return answered


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("suppression", ["operator", "rounds"])
@pytest.mark.parametrize(
    ("family", "nms_free"), [(family, False) for family in DETECT] + [(f, True) for f in TWO_HEADS]
)
def test_boxes_are_those_of_ultralytics(
    family: str, nms_free: bool, suppression: Any, engine: str, exported: Made, said: Said
) -> None:
    weights, file = exported("player", family, suppression=suppression, candidates=1200, nms_free=nms_free)
    answers = ENGINES[engine](file, frames(3))
    assert answers.shape == (3, 150, 6)
    results = said(weights, conf=CONFIDENCE, iou=IOU, max_det=150, nms=False if nms_free else None)
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
def test_keypoints_are_those_of_the_best_instance(family: str, engine: str, exported: Made, said: Said) -> None:
    weights, file = exported("pitch", family)
    answers = ENGINES[engine](file, frames(3))
    assert answers.shape == (3, 32, 3)
    for ours, result in zip(answers, said(weights, conf=CONFIDENCE, iou=0.999, nms=False), strict=True):
        # Of instances that score the same, either engine may take another one.
        best = (result.boxes.conf > result.boxes.conf.max() - 0.001).numpy()
        ours[:, :2] = np.clip(ours[:, :2], 0, SIZE[::-1])
        apart = np.abs(result.keypoints.data.numpy()[best] - ours)
        assert ((apart[..., :2].max((1, 2)) < 1) & (apart[..., 2].max(1) < 0.01)).any()


@pytest.mark.parametrize("role", ["player", "pitch"])
def test_nothing_found_is_all_zero(role: str, exported: Made) -> None:
    _, file = exported(role, "yolo11n-pose" if role == "pitch" else "yolo11n", confidence=0.9999)
    assert not ENGINES["onnxruntime"](file, frames(2)).any()


def test_the_batch_is_free(exported: Made) -> None:
    _, file = exported("player", "yolo11n")
    images = frames(5)
    together = ENGINES["onnxruntime"](file, images)
    for place in range(5):
        alone = ENGINES["onnxruntime"](file, images[place : place + 1])
        assert np.abs(alone[0] - together[place]).max() < 0.01
