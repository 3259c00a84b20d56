"""`touchline doctor`: what is missing or wrong on this host, one line each, with what to do about it."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from dotenv import dotenv_values
from pydantic import ValidationError
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from commands.terminal import CommandError, aside, check_lines, read_settings, screen
from gateway.doctor.examine import Check, everything, examine, gpu_host
from gateway.doctor.finding import Finding, worst
from gateway.doctor.probes import Host
from gateway.settings import Settings

PROJECT = Path(__file__).resolve().parent.parent
_COLOURS = {"good": "green", "warning": "yellow", "bad": "red"}


def command(
    before_start: Annotated[
        bool,
        typer.Option("--gpu-host", help="What docker compose needs on a GPU host, before anything is started."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what is missing or wrong on this host, and what to do about it. Exit status 1 if something is bad."""
    checks = _gpu_host() if before_start else everything(read_settings(), Host(), PROJECT)
    findings = asyncio.run(_examined(checks))
    if as_json:
        print(json.dumps({"worst": worst(findings), "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        screen.print(table(findings))
    raise typer.Exit(1 if worst(findings) == "bad" else 0)


def table(findings: list[Finding]) -> Table:
    """A row a finding; text of others (a subnet's name, a process) is shown as it is."""
    shown = Table("", "", "what is", "what to do")
    for finding in findings:
        level = Text(finding.level, style=_COLOURS[finding.level])
        shown.add_row(level, finding.about, Text(finding.says), Text(finding.remedy))
    return shown


async def _examined(checks: list[Check]) -> list[Finding]:
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=aside, transient=True) as progress:
        task = progress.add_task("", total=len(checks))
        return await examine(
            checks, lambda about, done, total: progress.update(task, description=about, completed=done, total=total)
        )


def _gpu_host() -> list[Check]:
    """By deploy/.env and the environment, as compose reads them."""
    file = PROJECT / "deploy" / ".env"
    try:
        check_lines(file)
        variables = {name: value or "" for name, value in dotenv_values(file).items()} | dict(os.environ)
        # conda and build tools set HOST, which compose would take too; it is the doctor's to say so.
        settings = Settings(_env_file=file, device="cuda")
    except ValidationError:
        read_settings()
        raise CommandError(f"{file} holds a setting that is wrong; `touchline settings` in deploy/ names it") from None
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is not UTF-8; save it as UTF-8") from error
    return gpu_host(settings, Host(environment=variables), PROJECT / "deploy", variables)
