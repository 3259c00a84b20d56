"""`touchline score`: what a validator's public rules would give an answer, and which frames cost the most."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from commands.terminal import CommandError, aside, check_file, check_folder, screen
from gateway.settings import FASTEST_S
from local.progress import progress_bar, spinner
from touchline.answer import processing_time
from touchline.atomic_file import replacing
from touchline.render import RenderError, read_response, render_contact_sheet
from touchline.score import ENOUGH_FITTED, MIN_FRAMES, QUALITY_WEIGHT, SPEED_WEIGHT, FrameScore, Score
from touchline.score_video import score_video

_APART: Final = 12
_TILES: Final = 6
_MEANING: Final = {
    "homography": "keypoints that agree with one view of the pitch, and how closely all of them do",
    "on lines": "keypoints close to a straight line that is seen in the picture",
    "inside": "objects that the homography puts on the pitch",
    "stability": "distances between keypoints that stay the same",
    "motion": "players who keep their id and move at most 30 px a frame",
    "scene stability": "factor: keypoints that stay where they were in the frame before",
    "scale": "half of a factor: keypoints as far apart as objects",
    "frames with homography": f"the other half: {ENOUGH_FITTED:.0%} of the frames are enough",
}


NO_TIME: Final = "the answer has no processing_time, so it counts as if it took none: give --seconds"


def table(score: Score) -> Table:
    """The score line by line, of 100, with what each line loses of its sum."""
    shown = Table("", "of 100", "weight", "lost", "", title="a validator's public rules", title_justify="left")
    for part in score.parts:
        weight = f"{part.weight:.2f}" if part.weight else "x"
        shown.add_row(part.name, f"{100 * part.share:.1f}", weight, f"{part.lost:.1f}", _MEANING[part.name])
    shown.add_section()
    keypoints, boxes = 100 * score.keypoints, 100 * score.boxes_at_best
    shown.add_row("keypoints", f"{keypoints:.1f}", "0.50", f"{(100 - keypoints) / 2:.1f}", "the lines above")
    shown.add_row(
        *("boxes at best", f"{boxes:.0f}", "0.50", f"{(100 - boxes) / 2:.1f}"),
        "if every box is judged as it was answered; the judge is a model, CLIP",
    )
    shown.add_section()
    quality, speed = 100 * score.quality, 100 * score.speed
    shown.add_row("quality", f"{quality:.1f}", f"{QUALITY_WEIGHT}", f"{QUALITY_WEIGHT * (100 - quality):.1f}", "")
    shown.add_row(
        *("speed", f"{speed:.1f}", f"{SPEED_WEIGHT}", f"{SPEED_WEIGHT * (100 - speed):.1f}"),
        f"{score.seconds:.2f} s, if the fastest miner takes {score.fastest_s:.2f} s",
    )
    shown.add_row("total at best", f"{100 * score.total:.1f}", "", f"{100 * (1 - score.total):.1f}", "")
    return shown


def line(score: Score) -> str:
    """The score in one line."""
    return (
        f"a validator's public rules: keypoints {100 * score.keypoints:.0f}, boxes at best "
        f"{100 * score.boxes_at_best:.0f}, speed {100 * score.speed:.0f} if the fastest miner takes "
        f"{score.fastest_s:g} s, in all at best {100 * score.total:.0f} of 100"
    )


def notes(score: Score) -> list[str]:
    """What the table does not say: which frames were scored, and which keypoints lie far from every line."""
    said = [f"{score.pitch_frames} of {score.video_frames} pictures pass for a pitch"]
    if score.pitch_frames < MIN_FRAMES:
        said[0] += (
            f": with fewer than {MIN_FRAMES} a validator does not score the challenge; scored here are all frames"
        )
    if score.keypoint_costs:
        worst = ", ".join(f"{keypoint} ({points:.1f})" for keypoint, points in score.keypoint_costs[:5])
        said.append(f"keypoints that are far from every line, and the points that `on lines` loses by each: {worst}")
    return said


def costliest(score: Score, count: int = _TILES) -> list[FrameScore]:
    """The frames whose keypoints lose the most points, most first, none within half a second of another."""
    chosen: list[FrameScore] = []
    for frame in sorted(score.frames, key=lambda one: -one.cost):
        if len(chosen) < count and all(abs(frame.number - other.number) >= _APART for other in chosen):
            chosen.append(frame)
    return chosen


def _note(frame: FrameScore) -> str:
    values = {"homography": frame.fit, "lines": frame.on_lines, "inside": frame.inside, "steady": frame.steady}
    return ", ".join(f"{name} {100 * value:.0f}" for name, value in values.items() if not math.isnan(value))


def print_score(console: Console, score: Score) -> None:
    """Print all of it."""
    console.print(table(score))
    for note in notes(score):
        console.print(note, highlight=False)


def command(  # noqa: PLR0917
    video: Annotated[Path, typer.Argument(help="The video that was answered.", exists=True, dir_okay=False)],
    answer: Annotated[Path, typer.Argument(help="The saved answer.", exists=True, dir_okay=False)],
    seconds: Annotated[
        float | None, typer.Option(min=0, help="What the validator waited. Default: what the answer says it took.")
    ] = None,
    fastest: Annotated[float, typer.Option(min=0, help="Seconds of the fastest miner.")] = FASTEST_S,
    every: Annotated[int, typer.Option(min=1, help="Look at every n-th picture: quicker, lines less exact.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for costliest.png, the frames that cost the most.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON to write, every frame in it.")] = None,
) -> None:
    """What a validator's public rules would give a saved answer, line by line."""
    if out is not None:
        check_folder("--out", out)
    if json_file is not None:
        check_file("--json", json_file)
    try:
        response = read_response(answer)
        with progress_bar(aside, "looking") as advance:
            score = score_video(video, response, every=every, seconds=seconds, fastest_s=fastest, progress=advance)
        print_score(screen, score)
        if seconds is None and processing_time(response) is None:
            screen.print(NO_TIME, highlight=False)
        if json_file is not None:
            numbers = {**asdict(score), "quality": score.quality, "total": score.total}
            with replacing(json_file) as part:
                part.write_text(json.dumps(numbers, indent=1) + "\n")
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            with spinner(aside, "contact sheet"):
                shown = {frame.number: _note(frame) for frame in costliest(score)}
                render_contact_sheet(video, response, out / "costliest.png", notes=shown)
            screen.print(f"{out / 'costliest.png'}", soft_wrap=True)
    except RenderError as error:
        raise CommandError(str(error)) from error
