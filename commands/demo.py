"""`touchline demo`, which `make demo` runs: a synthetic match through the real servers, and pictures of the answer."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from commands.challenge import inferred_frames_bar, print_advice, save, stage_table
from commands.terminal import CommandError, check_folder, read_settings, screen
from demo.clip import load_truth, make_clip
from demo.match import Match
from local.progress import progress_bar, spinner
from local.stack import LocalStackError, local_stack
from local.triton import LocalTritonError
from local.validator import ChallengeFailed, Outcome, served_file
from touchline.answer_quality import measure
from touchline.render import RenderError, render_contact_sheet, render_video


def command(
    out: Annotated[Path, typer.Option(help="Folder for the clip, the answer, the pictures and the logs.")] = Path(
        "out"
    ),
) -> None:
    """Make a synthetic match, have it answered by Triton and the gateway, measure and draw the answer."""
    try:
        _demo(out)
    except KeyboardInterrupt:
        screen.print("stopped; everything that was started is ended")
        raise
    except (LocalStackError, LocalTritonError, ChallengeFailed, RenderError) as error:
        raise CommandError(f"the demo failed: {error}") from error


def _demo(out: Path) -> None:
    check_folder("--out", out)
    read_settings()  # the gateway that is started has them too: what is wrong in them is said before the match is made
    match = Match()
    with progress_bar(screen, "synthetic match") as advance:
        clip = make_clip(out / "clip", match, advance)
    with ExitStack() as stack:
        with spinner(screen, "starting Triton, gateway"):
            servers = stack.enter_context(local_stack(logs=out / "logs"))
        url = stack.enter_context(served_file(clip.video.resolve()))
        with inferred_frames_bar(screen, servers.gateway.metrics_url):
            outcome = servers.challenge(url)
    save(outcome, out / "response.json")
    with progress_bar(screen, "annotated video") as advance:
        render_video(clip.video, outcome.response, out / "annotated.mp4", advance)
    with spinner(screen, "contact sheet"):
        render_contact_sheet(clip.video, outcome.response, out / "contact_sheet.png")
    screen.print(stage_table(outcome))
    print_advice(screen, outcome)
    screen.print(_quality_table(outcome, clip.truth, match.width))
    for line in next_steps(out):
        screen.print(line, highlight=False, markup=False, soft_wrap=True)


def next_steps(out: Path) -> list[str]:
    """What somebody who saw it for the first time may do now."""
    touchline = ".venv/bin/touchline"
    return [
        f"pictures:       {out / 'contact_sheet.png'} and {out / 'annotated.mp4'}, of {out / 'response.json'}",
        f"your own video: {touchline} challenge match.mp4 && {touchline} render match.mp4 out/response.json",
        f"serve it:       {touchline} doctor says what this host still lacks for {touchline} serve",
    ]


def _quality_table(outcome: Outcome, truth: Path, width: int) -> Table:
    table = Table("against the truth", "", title="the answer's quality", title_justify="left")
    for name, value in measure(outcome.response, load_truth(truth), width).table():
        table.add_row(name, value)
    return table
