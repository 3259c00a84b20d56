"""Reads deploy/ as its tools do: compose files with `extends` and variables resolved, Dockerfiles as instructions."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"
VARIANTS = ("gpu", "cpu")

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::-(?P<default>[^}]*))?\}")


def from_yaml(text: str) -> Any:
    """As yaml.safe_load, in C: compose files are read a hundred times."""
    return yaml.load(text, yaml.CSafeLoader)


def compose_files() -> list[Path]:
    return sorted(DEPLOY.glob("docker-compose.*.yml"))


def default_files() -> list[Path]:
    """What compose finds by itself, without a .env: in the project's folder and in deploy/."""
    return [PROJECT / "compose.yaml", DEPLOY / "compose.yaml"]


def compose(variant: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A compose file as the engine gets it: one `extends` level merged, ${NAME:-default} filled in."""
    document = from_yaml((DEPLOY / f"docker-compose.{variant}.yml").read_text())
    for name, service in document["services"].items():
        base = service.pop("extends", None)
        if base is not None:
            common = from_yaml((DEPLOY / base["file"]).read_text())["services"][base["service"]]
            document["services"][name] = _merge(common, service)
    filled = _fill(document, environment or {})
    assert isinstance(filled, dict)
    return filled


def variables() -> dict[str, set[str]]:
    """Every variable of the compose files and the defaults it has there."""
    found: dict[str, set[str]] = {}
    for path in compose_files():
        text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        for match in _VARIABLE.finditer(text):
            found.setdefault(match["name"], set()).add(match["default"] or "")
    return found


def tool(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A tool that has ended, whatever its status, with all that it said."""
    return subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, **options)


def bytes_of(size: str) -> int:
    """2g, 256m."""
    return int(size[:-1]) * {"k": 2**10, "m": 2**20, "g": 2**30}[size[-1]]


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, continuation lines joined, and the stage it stands in."""

    stage: str
    name: str
    value: str


def instructions(dockerfile: Path) -> list[Instruction]:
    lines = [line for line in dockerfile.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    stage, found = "", []
    for line in joined:
        name, value = line.split(maxsplit=1)
        if name == "FROM":
            stage = value.split(" AS ")[1] if " AS " in value else "final"
        found.append(Instruction(stage, name, value))
    return found


def _merge(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        # A command replaces, as in compose; everything else that is a list is joined.
        return {
            key: over[key]
            if key in ("command", "test") and key in over
            else _merge(base[key], over[key])
            if key in base and key in over
            else over.get(key, base.get(key))
            for key in {**base, **over}
        }
    if isinstance(base, list) and isinstance(over, list):
        return base + over
    return over


def _fill(node: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _fill(value, environment) for key, value in node.items()}
    if isinstance(node, list):
        return [_fill(value, environment) for value in node]
    if isinstance(node, str):
        return _VARIABLE.sub(lambda match: environment.get(match["name"]) or match["default"] or "", node)
    return node
