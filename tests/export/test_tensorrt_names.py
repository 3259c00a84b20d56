"""What is said to TensorRT exists: types of 10.13 and symbols of 11.4, read from their packages; no GPU is needed."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from export import tensorrt_build

pytestmark = pytest.mark.export

PACKAGES = Path(sys.prefix) / "tensorrt"
"""Where the Makefile puts requirements/export-tensorrt.txt: on no path, since half a tensorrt must not be imported."""

OBJECTS = {
    "trt",
    "logger",
    "builder",
    "definition",
    "parser",
    "e",
    "settings",
    "profile",
    "tensor",
    "layer",
    "first",
    "made",
}

MYPY = """
[mypy]
python_version = 3.11
strict = True
[mypy-tensorrt.*,tensorrt_bindings.*]
ignore_errors = True
[mypy-tensorrt_libs.*,tensorrt_rtx_libs.*,tensorrt_rtx_bindings.*]
ignore_missing_imports = True
"""


def names_used() -> set[str]:
    """Every attribute that the building asks a TensorRT object for."""
    tree = ast.parse(Path(tensorrt_build.__file__).read_text())
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "build")

    def root(node: ast.expr) -> str:
        while not isinstance(node, ast.Name):
            if isinstance(node, ast.Attribute):
                node = node.value
            elif isinstance(node, ast.Call):
                node = node.func
            else:
                return ""
        return node.id

    return {n.attr for n in ast.walk(function) if isinstance(n, ast.Attribute) and root(n) in OBJECTS}


def test_every_name_is_a_symbol_of_tensorrt_11() -> None:
    (library,) = PACKAGES.glob("tensorrt_bindings/tensorrt.so")
    binary = library.read_bytes()

    def known(name: str) -> bool:
        return name.encode() + b"\0" in binary  # strings that end alike share their end: no start is looked for

    used = names_used()
    assert {"STRONGLY_TYPED", "build_serialized_network", "set_shape", "serialize"} <= used
    assert not [name for name in used if not known(name)]
    assert not known("FP16"), "this look-up would find what version 11 took away"


def test_every_call_has_the_types_of_tensorrt_10(tmp_path: Path) -> None:
    stubs = tmp_path / "stubs"
    for package in ("tensorrt", "tensorrt_bindings"):
        shutil.copytree(PACKAGES / package, stubs / package, ignore=shutil.ignore_patterns("*.so", "*.py"))
    # The published stubs are no valid Python where a parameter is a keyword, or has no default behind one that has.
    file = stubs / "tensorrt_bindings" / "tensorrt.pyi"
    text = re.sub(r"\b(in|pass): ", r"\1_: ", file.read_text())
    file.write_text(re.sub(r"(?<=, )channel_axis: int\)", "channel_axis: int = 0)", text))
    config = tmp_path / "mypy.ini"
    config.write_text(MYPY)

    def check(source: Path) -> str:
        command = [sys.executable, "-m", "mypy", "--config-file", str(config), str(source)]
        environment = {"MYPYPATH": f"{stubs}:{Path(tensorrt_build.__file__).parents[1]}", "PATH": "/usr/bin:/bin"}
        run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
        return run.stdout + run.stderr

    assert "Success" in check(Path(tensorrt_build.__file__))
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import tensorrt as trt\n\ntrt.Builder(trt.Logger()).create_network('0')\n")
    assert "incompatible type" in check(wrong), "this check would see a wrong type"
