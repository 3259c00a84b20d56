"""Checks of a .env file: lines that are none, and names that nothing reads."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dotenv.parser import Binding, parse_stream

from gateway.doctor.finding import Finding, good, warning
from gateway.settings import Settings

ABOUT: Final = "settings"
_COMPOSE: Final = ("COMPOSE_", "DOCKER_")
"""How the names begin that Docker itself reads."""


def unreadable_lines(file: Path) -> list[int]:
    """Numbers of the lines that are no NAME=value, which readers of .env files leave out."""
    return [one.original.line for one in _bindings(file) if one.error]


def names_nobody_reads(file: Path, example: Path) -> Finding:
    """Names with a value that are neither settings nor in `example`, deploy's list of all: mostly typing errors."""
    known = {name.upper() for name in Settings.model_fields} | {"TRITON_URL"} | _named_in(example)
    given = {one.key.upper() for one in _bindings(file) if one.key and (one.value or "").strip()}
    unread = sorted(name for name in given - known if not name.startswith(_COMPOSE))
    if not unread:
        return good(ABOUT, f"{len(given)} in {file}" if given else f"none in {file}, the environment's and defaults")
    shown = [f"{name} ({near[0]}?)" if (near := get_close_matches(name, known, 1, 0.7)) else name for name in unread]
    return warning(ABOUT, f"{file} names what nothing reads: {', '.join(shown)}", "correct the name, or take it out")


def _named_in(example: Path) -> set[str]:
    lines = example.read_text().splitlines() if example.is_file() else ()
    return {name for line in lines if (name := line.lstrip("#").partition("=")[0]).isupper() and " " not in name}


def _bindings(file: Path) -> Iterator[Binding]:
    if file.is_file():
        with file.open(encoding="utf-8-sig") as opened:
            yield from parse_stream(opened)
