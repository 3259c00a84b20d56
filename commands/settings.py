"""`touchline settings`: every setting, its value, where it comes from and what it means."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from dotenv import dotenv_values
from pydantic import AliasChoices, SecretStr
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from commands.terminal import SECRET, aside, read_settings, screen
from gateway.doctor.examine import ENV_EXAMPLE
from gateway.doctor.settings_file import names_nobody_reads
from gateway.settings import Settings

EFFECTIVE = {
    "external_port": lambda settings: settings.external_port or settings.port,
    "batch_size": lambda settings: settings.slot_frames,
    "pitch_stride": lambda settings: settings.effective_pitch_stride,
    "max_concurrent_challenges": lambda settings: settings.concurrent_challenges,
}
"""What a 0 stands for, by setting."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as the gateway would take it now."""

    name: str
    value: str
    source: str
    """default, environment, or the file."""
    meaning: str


def command(
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not the default's.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the settings: value, where it comes from (environment, .env or default), meaning. Secrets are not shown."""
    settings = read_settings()
    file = Path(str(Settings.model_config.get("env_file")))
    shown = [
        row
        for row in rows(settings, os.environ, dotenv_values(file) if file.is_file() else {}, str(file))
        if not changed or row.source != "default"
    ]
    if (unread := names_nobody_reads(file, ENV_EXAMPLE)).level != "good":
        aside.print(f"[yellow]{escape(str(unread))}[/]", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps([asdict(row) for row in shown], indent=1))
        return
    if not shown:
        screen.print(f"nothing is set: neither the environment nor {file.resolve()} names a setting", highlight=False)
        return
    table = Table("setting", "value", "from", "meaning")
    for row in shown:
        table.add_row(row.name, Text(row.value), row.source, Text(row.meaning))
    screen.print(table)


def rows(
    settings: Settings, environment: Mapping[str, str], file: Mapping[str, str | None], file_name: str
) -> list[Row]:
    """A row for each setting, in the order of settings.py. An empty value in either place does not count."""
    found = []
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [name]
        source = "environment" if _named(names, environment) else file_name if _named(names, file) else "default"
        found.append(Row(name.upper(), _shown(name, settings), source, field.description or ""))
    return found


def _named(names: list[str], where: Mapping[str, str | None]) -> bool:
    """Whether one of the names stands there with a value, in whatever case, as pydantic reads them."""
    return any(key.lower() in names and (value or "").strip() for key, value in where.items())


def _shown(name: str, settings: Settings) -> str:
    value: Any = getattr(settings, name)
    plain = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(value, SecretStr) or any(word in name.upper() for word in SECRET):
        return "set, not shown" if plain else ""
    if isinstance(value, bool):
        return str(value).lower()
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    if name in EFFECTIVE and value == 0:
        text += f" ({EFFECTIVE[name](settings)} here)"
    return text
