"""The README's settings table says what the gateway reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.settings import Settings

README = Path(__file__).parent.parent / "README.md"


def documented() -> dict[str, tuple[str, str]]:
    section = README.read_text().split("## Settings")[1].split("\n## ")[0]
    return {
        name: (default, meaning)
        for name, default, meaning in re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*) \|$", section, re.M)
    }


def test_every_setting_is_documented_and_no_other() -> None:
    assert set(documented()) == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_the_documented_default_is_the_default(name: str) -> None:
    field = Settings.model_fields[name]
    default, meaning = documented()[name.upper()]
    assert meaning == field.description
    if field.default_factory is None:
        assert default == _written(field.default)


def _written(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
