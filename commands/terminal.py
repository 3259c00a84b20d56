"""What every command prints with, and how it says what is wrong: in one line that names the input and the remedy."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from gateway.settings import Settings

WIDE: Final = 160
"""Columns of tables in a log, which no terminal's width bounds."""
screen: Final = Console(width=None if sys.stdout.isatty() else WIDE)
aside: Final = Console(stderr=True)
"""For what is said beside a command's output, and for what is wrong."""


SECRET: Final = ("TOKEN", "PROXY", "REDIS", "PASSWORD")
"""In the name of a setting whose value is not to be shown."""


_PLAINLY: Final = {
    "int_parsing": "write a whole number in digits alone, without a unit",
    "float_parsing": "write a number in digits and a point alone, without a unit",
    "bool_parsing": "write true or false",
}
"""In the place of pydantic's words, by kind of error."""


class CommandError(Exception):
    """What the user is told instead of a traceback."""


def tell(message: str) -> None:
    """Say what is wrong, on the error output."""
    aside.print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)


def read_settings(**over: str) -> Settings:
    """The gateway's settings, with `over` in the place of what they are. Raises CommandError naming each wrong one."""
    from pydantic import ValidationError  # noqa: PLC0415  only some commands need settings
    from pydantic_settings import SettingsError  # noqa: PLC0415

    from gateway.settings import Settings  # noqa: PLC0415

    file = Path(str(Settings.model_config.get("env_file")))
    try:
        check_lines(file)
        return Settings(**over)  # type: ignore[arg-type]  # the arguments of its own begin with _
    except ValidationError as error:
        wrong = [_wrong(one) for one in error.errors()]
        raise CommandError(f"{', '.join(wrong)}; correct it in .env or the environment") from error
    except SettingsError as error:
        raise CommandError(f"the settings cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f".env is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error


def check_lines(file: Path) -> None:
    """Raises CommandError for a .env file with lines that would be left out, and with them what they mean to set."""
    from gateway.doctor.settings_file import unreadable_lines  # noqa: PLC0415

    if lines := unreadable_lines(file):
        several = f"s {', '.join(map(str, lines))} are" if len(lines) > 1 else f" {lines[0]} is"
        raise CommandError(f"{file}: line{several} no NAME=value (a quote left open?); correct what is written there")


def _wrong(error: Mapping[str, Any]) -> str:
    name, given = ".".join(str(part) for part in error["loc"]).upper(), error["input"]
    shown = f" {given!r}" if isinstance(given, str) and not any(word in name for word in SECRET) else ""
    return f"setting {name}{shown}: {_PLAINLY.get(str(error['type']), error['msg'])}"


def numbers(option: str, text: str, least: int = 1, most: int = 10_000) -> list[int]:
    """Whole numbers with commas between them. Raises CommandError naming the option."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and least <= int(part) <= most for part in parts):
        raise CommandError(f"{option} {text}: write whole numbers from {least} to {most} with commas between them")
    return [int(part) for part in parts]


def check_folder(option: str, folder: Path) -> None:
    """Raises CommandError where `folder` is none and cannot be made, before work is done whose result would be lost."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise CommandError(f"{option} {folder}: {there} is a file; name a folder")
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CommandError(f"{option} {folder}: {there} cannot be written to: {why}; name another folder") from error


def check_file(option: str, file: Path | None) -> None:
    """The same for a file that is to be written."""
    if file is not None:
        if file.is_dir():
            raise CommandError(f"{option} {file} is a folder; name a file")
        check_folder(option, file.parent)
