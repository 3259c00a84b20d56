"""Seeded networks of several YOLO families, their checkpoints and what Ultralytics itself answers with them."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

STANDINS = Path(__file__).parents[1] / "standins"

# A real torchvision wins; the stand-in fills in where none is built for this torch.
if importlib.util.find_spec("torch") and not importlib.util.find_spec("torchvision"):
    sys.path.append(str(STANDINS))
if not importlib.util.find_spec("torch"):
    collect_ignore = [
        "test_suppression.py",
        "test_parity.py",
        "test_half.py",
        "test_command.py",
        "test_package_weights.py",
        "test_precision.py",
        "test_rescale.py",
        "test_tensorrt_names.py",
        "networks.py",
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """torch and Ultralytics warn of one another's and of their own calls, which is theirs to mend."""
    if importlib.util.find_spec("torch"):
        for item in items:
            if {"export", "training"} & set(item.path.parts):
                item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session", autouse=True)
def ultralytics_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ultralytics writes its settings into a directory of the test run."""
    before = dict(os.environ)
    os.environ["YOLO_CONFIG_DIR"] = str(tmp_path_factory.mktemp("ultralytics"))
    os.environ["YOLO_OFFLINE"] = "true"
    yield
    os.environ.clear()
    os.environ.update(before)
