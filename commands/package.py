"""`touchline package`: weights to the folder of the subnet's public track, and the check of such a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from commands.terminal import CommandError, aside, screen
from export.chute.package import package
from export.chute.preflight import check as preflight
from export.chute.rules import Verdict
from export.errors import ExportError
from local.progress import spinner

_SAID = {True: "[green]kept[/]", False: "[red]broken[/]", None: "[yellow]not known[/]"}


def command(  # noqa: PLR0917
    weights: Annotated[
        str | None, typer.Argument(help=".pt or .onnx of a detection model, whatever its classes, or owner/name:file.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write, which is what gets published.")] = Path("package"),
    objects: Annotated[
        str | None,
        typer.Option(help="The element's objects in its order, with commas between. Default: the weights' own."),
    ] = None,
    imgsz: Annotated[
        str | None, typer.Option(help="Height x width of the input. Default: what the weights were trained at.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Least score of a box that is answered.")] = 0.25,
    iou: Annotated[float, typer.Option(help="Overlap above which suppression drops the lesser box.")] = 0.5,
    check: Annotated[
        Path | None, typer.Option(help="Write nothing: hold this folder against the track's rules, one by one.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Pictures of the element for --check. Default: the synthetic match.")
    ] = None,
) -> None:
    """Pack weights for the subnet's public track, or check such a package rule by rule."""
    try:
        if (check is None) == (weights is None):
            raise CommandError("weights or --check: give one of the two")
        if check is not None:
            verdicts = list(spinner_over(check, pictures))
            screen.print(table(check, verdicts))
            if any(verdict.kept is False for verdict in verdicts):
                raise typer.Exit(1)
            return
        size = _size(imgsz) if imgsz else None
        names = [name.strip() for name in (objects or "").split(",") if name.strip()]
        if objects is not None and not names:
            raise CommandError("--objects names nothing: give the element's objects with commas between")
        with spinner(aside, f"packing {escape(str(weights))}"):
            ids = package(str(weights), out, objects=names, size=size, confidence=confidence, iou=iou)
        screen.print(
            f"{out}: {', '.join(ids)}\nNow see whether it keeps the rules: touchline package --check {out}",
            highlight=False, soft_wrap=True, markup=False,
        )  # fmt: skip
    except ExportError as error:
        raise CommandError(str(error)) from error


def spinner_over(folder: Path, pictures: Path | None) -> list[Verdict]:
    with spinner(aside, f"checking {escape(str(folder))}"):
        return list(preflight(folder, pictures))


def table(folder: Path, verdicts: list[Verdict]) -> Table:
    """What became of each rule."""
    shown = Table("rule", "", "found", title=escape(str(folder)), title_justify="left")
    for verdict in verdicts:
        shown.add_row(escape(verdict.rule), _SAID[verdict.kept], escape(verdict.found))
    return shown


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise CommandError(f"--imgsz {text}: write height x width, as 384x640")
    return int(height), int(width)
