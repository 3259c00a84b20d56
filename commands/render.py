"""`touchline render`: the pictures of a saved answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.terminal import CommandError, aside, check_folder, screen
from local.progress import progress_bar, spinner
from touchline.render import RenderError, read_response, render_contact_sheet, render_video


def command(
    video: Annotated[Path, typer.Argument(help="The video that was answered.", exists=True, dir_okay=False)],
    response: Annotated[Path, typer.Argument(help="The saved answer.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for annotated.mp4 and contact_sheet.png.")] = Path("out"),
) -> None:
    """Make the pictures of an answer: an annotated video and a contact sheet with pitch maps."""
    check_folder("--out", out)
    made = not out.exists()
    try:
        answer = read_response(response)
        with progress_bar(aside, "annotated video") as advance:
            render_video(video, answer, out / "annotated.mp4", advance)
        with spinner(aside, "contact sheet"):
            render_contact_sheet(video, answer, out / "contact_sheet.png")
    except RenderError as error:
        if made and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        raise CommandError(str(error)) from error
    screen.print(f"{out / 'annotated.mp4'}\n{out / 'contact_sheet.png'}")
