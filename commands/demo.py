"""`make demo`: one synthetic match through the whole real chain, and the pictures of the answer."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from commands.challenge import inferred_frames_bar, save, stage_table
from demo.clip import load_truth, make_clip
from demo.match import Match
from local.progress import progress_bar, spinner
from local.stack import LocalStackError, local_stack
from local.triton import LocalTritonError
from local.validator import ChallengeFailed, Outcome, served_file
from touchline.answer_quality import measure
from touchline.render import render_contact_sheet, render_video

OUT = Path("out")


def main() -> None:
    """Make the clip, start the chain, send one challenge, measure the answer against the truth, draw it."""
    console = Console()
    match = Match()
    with progress_bar(console, "synthetic match") as advance:
        clip = make_clip(OUT / "clip", match, advance)
    with ExitStack() as stack:
        with spinner(console, "starting Triton, gateway"):
            chain = stack.enter_context(local_stack(logs=OUT / "logs"))
        url = stack.enter_context(served_file(clip.video.resolve()))
        with inferred_frames_bar(console, chain.gateway.url):
            outcome = chain.challenge(url)
    save(outcome, OUT / "response.json")
    with progress_bar(console, "annotated video") as advance:
        render_video(clip.video, outcome.response, OUT / "annotated.mp4", advance)
    render_contact_sheet(clip.video, outcome.response, OUT / "contact_sheet.png")
    console.print(stage_table(outcome))
    console.print(_quality_table(outcome, clip.truth, match.width))
    for name in ("response.json", "annotated.mp4", "contact_sheet.png"):
        console.print(f"  {OUT / name}")


def _quality_table(outcome: Outcome, truth: Path, width: int) -> Table:
    table = Table("against the truth", "", title="the answer's quality", title_justify="left")
    for name, value in measure(outcome.response, load_truth(truth), width).table():
        table.add_row(name, value)
    return table


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main()
    except KeyboardInterrupt:
        print("\nstopped; everything that was started is ended", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (LocalStackError, LocalTritonError, ChallengeFailed) as error:
        sys.exit(f"the demo failed: {error}")
