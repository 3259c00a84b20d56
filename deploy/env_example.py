"""Writes the gateway's settings into .env.example and docs/settings.md, as gateway/settings.py has them.

Run it after a change of the settings: python deploy/env_example.py
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

from pydantic import SecretStr

PROJECT = Path(__file__).resolve().parent.parent
EXAMPLE = PROJECT / "deploy" / ".env.example"
PAGE = PROJECT / "docs" / "settings.md"
NEW_SETTINGS_GO_BEFORE = "# ---- Set inside the containers"


def updated(text: str) -> str:
    """The example with the block of every setting as it must be: known ones in their place, new ones added."""
    from gateway.settings import Settings  # noqa: PLC0415  found when the project is on the path, see __main__

    for name, field in Settings.model_fields.items():
        value = None if field.default_factory else field.default
        default = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        comment = textwrap.fill(str(field.description), 116, initial_indent="# ", subsequent_indent="# ")
        block = f"{comment}\n#{name.upper()}={default}\n"
        place = re.compile(rf"(?:^# [^-\n].*\n)+^#{name.upper()}=.*\n", re.MULTILINE)
        if place.search(text):
            text = place.sub(lambda _, block=block: block, text)
        else:
            text = text.replace(NEW_SETTINGS_GO_BEFORE, f"{block}\n{NEW_SETTINGS_GO_BEFORE}")
    return text


def page(text: str) -> str:
    """The page with the table of every setting as it must be."""
    from gateway.settings import Settings  # noqa: PLC0415

    rows = ["| name | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "detected" if field.default_factory else _written(field.default)
        rows.append(f"| `{name.upper()}` | {default} | {field.description} |")
    table = "\n".join(rows) + "\n"
    return re.sub(r"^\| name \| default \|.*?\n(?!\|)", lambda _: table, text, count=1, flags=re.DOTALL | re.MULTILINE)


def _written(value: object) -> str:
    """A default as a .env file has it."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    PAGE.write_text(page(PAGE.read_text()))
    EXAMPLE.write_text(updated(EXAMPLE.read_text()))
