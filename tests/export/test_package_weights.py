"""Weights of other things than soccer, packed and run as an audit runs them, against what Ultralytics answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.chute.package import package
from export.chute.preflight import agreement, worked
from tests.export.networks import SIZE, checkpoint, frames, predicted

pytestmark = pytest.mark.export

NAMES = {0: "hoodie", 1: "spray paint", 2: "glove", 3: "Balaclava", 4: "bat"}
SIDES = ("x1", "y1", "x2", "y2")
OBJECTS = ["balaclava", "hoodie", "glove", "bat"]


@pytest.mark.parametrize("family", ["yolo11n", "yolo26n"])
def test_weights_of_an_elements_own_classes_answer_as_ultralytics_does_in_its_order(
    family: str, tmp_path: Path
) -> None:
    source = checkpoint(family, tmp_path / "element.pt", names=NAMES)
    ids = package(source, tmp_path / "package", objects=OBJECTS, size=SIZE, confidence=0.5)
    assert ids == ["0: balaclava", "1: hoodie", "2: glove", "3: bat"]
    pictures = frames(2)
    run = worked(tmp_path / "package", [np.ascontiguousarray(picture[..., ::-1]) for picture in pictures], "cpu", 120)
    assert run.frames is not None, run.failure
    expected = []
    for found in predicted(source, pictures, conf=0.5, iou=0.5, max_det=150):
        boxes = [
            {**dict(zip(SIDES, box[:4], strict=True)), "cls_id": OBJECTS.index(NAMES[int(box[5])].lower())}
            for box in found.boxes.data.tolist()
            if NAMES[int(box[5])].lower() in OBJECTS
        ]
        expected.append({"boxes": boxes})
    mean, matched, lost, extra = agreement(expected, run.frames)
    assert matched > 50
    assert lost + extra < 0.1 * matched
    assert mean > 0.85
