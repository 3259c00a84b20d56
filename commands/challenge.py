"""`touchline challenge`: one challenge to a running gateway, or to a stack started for it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from bittensor_wallet import Keypair
from rich.console import Console
from rich.table import Table

from commands.score import line
from commands.terminal import CommandError, check_file, read_settings, screen
from gateway.errors import StartupError
from gateway.settings import FASTEST_S, QUALITY_FLOOR
from gateway.subnet.hotkey import load_hotkey
from local.progress import progress_bar, spinner
from local.scraped import NotScraped, scraped
from local.stack import LocalStackError, local_stack, make_keys
from local.triton import LocalTritonError
from local.validator import ChallengeFailed, Outcome, send_challenge, video_url
from touchline.atomic_file import replacing
from touchline.render import RenderError
from touchline.score import SLOWEST_S
from touchline.score_video import SCORED_PICTURES, score_video
from touchline.stages import STAGES


class ChallengeCommandError(CommandError):
    """A CommandError of this command's."""


def run_challenge(
    console: Console,
    video: str,
    *,
    gateway_url: str | None,
    keys_directory: Path | None,
    hotkey_file: Path | None,
    miner_hotkey: str | None,
    out: Path,
) -> None:
    """Send `video` (a path or a URL), print the stage times and save the answer to `out`."""
    check_file("--out", out)
    if gateway_url is None:
        read_settings()  # the gateway that is started has them too
    elif not re.match(r"https?://[^\s/\[\]]+(:\d+)?|https?://\[[0-9a-fA-F:.]+\]", gateway_url):
        raise ChallengeCommandError(f"--gateway {gateway_url} is no URL; write http://HOST:7999")
    with ExitStack() as stack:
        try:
            url = stack.enter_context(video_url(video))
            if gateway_url is None:
                with spinner(console, "starting Triton, gateway"):
                    servers = stack.enter_context(local_stack())
                gateway_url, metrics_url, validator, miner = (
                    servers.gateway.url,
                    servers.gateway.metrics_url,
                    servers.keys.validator,
                    servers.keys.miner.ss58_address,
                )
            else:
                metrics_url = None
                validator, miner = _signer(keys_directory, hotkey_file, miner_hotkey)
            with inferred_frames_bar(console, metrics_url):
                outcome = send_challenge(gateway_url, validator, miner, url)
        except (ChallengeFailed, LocalStackError, LocalTritonError, StartupError) as error:
            raise ChallengeCommandError(str(error)) from error
    save(outcome, out)
    console.print(stage_table(outcome))
    print_advice(console, outcome)
    console.print(f"the answer is valid and saved to {out}")
    if Path(video).is_file():
        _print_score(console, Path(video), outcome, out)


def _print_score(console: Console, video: Path, outcome: Outcome, out: Path) -> None:
    """One line of what a validator's rules would give, from some of the pictures."""
    try:
        with spinner(console, "scoring"):
            score = score_video(
                video,
                outcome.response,
                pictures_looked_at=SCORED_PICTURES,
                seconds=outcome.elapsed_s,
                fastest_s=FASTEST_S,
            )
    except RenderError as error:
        console.print(f"no score: {error}", highlight=False)
        return
    console.print(line(score), highlight=False)
    console.print(f"where the points are lost: touchline score {video} {out}", highlight=False, soft_wrap=True)


def save(outcome: Outcome, out: Path) -> None:
    """Write the answer as it came."""
    with replacing(out) as path:
        path.write_bytes(outcome.body)


def stage_table(outcome: Outcome) -> Table:
    """Stage times and rates of an answered challenge."""
    stages = outcome.stage_seconds
    frames = len(outcome.response["frames"])
    table = Table("stage", "seconds", "", title=f"{frames} frames", title_justify="left")
    for stage, note in STAGES.items():
        if stage in stages:
            table.add_row(stage, f"{stages[stage]:.2f}", note)
    table.add_section()
    total = stages.get("total", outcome.elapsed_s)
    if "first_frame" in stages:
        table.add_row("first frame", f"{stages['first_frame']:.2f}", "first reply of Triton")
    table.add_row("gateway", f"{total:.2f}", "all stages, overlapped")
    table.add_row("validator", f"{outcome.elapsed_s:.2f}", "signed request to last byte")
    table.add_row("", f"{frames / outcome.elapsed_s:.0f}", "frames/s")
    notes = outcome.notes
    if {"inferred", "stride", "planned-stride"} <= notes.keys():
        table.add_section()
        table.add_row(
            "inferred", notes["inferred"], f"frames, every {notes['stride']}th; planned {notes['planned-stride']}"
        )
    return table


def print_advice(console: Console, outcome: Outcome) -> None:
    """Say so where too few frames were inferred for a good answer, or it came too late, and what would help."""
    expected = float(outcome.notes.get("expected-people", "1"))
    if expected < QUALITY_FLOOR:
        console.print(
            f"Too slow for a good answer here: from {outcome.notes['inferred']} inferred frames one finds about "
            f"{expected:.0%} of the people. What helps: nothing else on these cores, more of them or a GPU, models "
            "exported with a smaller --imgsz, more seconds in CHALLENGE_BUDGET_S.",
            style="yellow",
            highlight=False,
        )
    elif outcome.elapsed_s > SLOWEST_S:
        console.print(
            f"Too slow for the speed part of the score, nothing after {SLOWEST_S:g} s. What helps: nothing else on "
            "these cores, more of them or a GPU, models exported with a smaller --imgsz.",
            style="yellow",
            highlight=False,
        )


@contextmanager
def inferred_frames_bar(console: Console, metrics_url: str | None) -> Iterator[None]:
    """Show the frames that the gateway decodes, read from its metrics, while the block waits for the answer.

    Another's gateway does not show its metrics: then without the frames.
    """
    stop = threading.Event()
    base = _decoded_frames(metrics_url)

    def poll() -> None:
        with progress_bar(console, "challenge") as advance:
            while True:
                ended = stop.wait(0.2)
                now = _decoded_frames(metrics_url)
                if base is not None and now is not None:
                    advance(int(now - base), int(now - base) if ended else 0)
                if ended:
                    return

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _decoded_frames(metrics_url: str | None) -> float | None:
    if metrics_url is None:
        return None
    try:
        samples = scraped(metrics_url, "touchline_frames_total", timeout_s=2)
    except NotScraped:
        return None
    return next((sample.value for sample in samples if sample.labels.get("kind") == "decoded"), None)


def _signer(keys_directory: Path | None, hotkey_file: Path | None, miner_hotkey: str | None) -> tuple[Keypair, str]:
    if hotkey_file is not None and miner_hotkey is not None:
        try:
            Keypair(ss58_address=miner_hotkey)
        except ValueError as error:
            raise ChallengeCommandError(
                f"--miner-hotkey {miner_hotkey} is no ss58 address; `touchline doctor` on the miner prints it"
            ) from error
        return load_hotkey(hotkey_file, "name another with --hotkey-file"), miner_hotkey
    if keys_directory is not None:
        if not (keys_directory / "nodes.json").exists():
            raise ChallengeCommandError(f"{keys_directory} holds no keys; `touchline keys {keys_directory}` makes them")
        try:
            made = make_keys(keys_directory)
        except (OSError, ValueError, KeyError) as error:
            raise ChallengeCommandError(
                f"--keys {keys_directory} cannot be read ({error}); `touchline keys` makes others"
            ) from error
        return made.validator, made.miner.ss58_address
    raise ChallengeCommandError("with --gateway say who signs; give --keys, or --hotkey-file and --miner-hotkey")


def command(  # noqa: PLR0917
    video: Annotated[str, typer.Argument(help="A video file, or its http(s) URL.")],
    gateway: Annotated[
        str | None,
        typer.Option(help="URL of a running gateway. Default: start Triton and a gateway for this one challenge."),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Folder that `touchline keys` made: whose keys sign and are asked for.")
    ] = None,
    hotkey_file: Annotated[Path | None, typer.Option(help="The validator's hotkey file, instead of --keys.")] = None,
    miner_hotkey: Annotated[str | None, typer.Option(help="The miner's ss58 address, instead of --keys.")] = None,
    out: Annotated[Path, typer.Option(help="Where to save the answer.")] = Path("out/response.json"),
) -> None:
    """Be a validator: sign a challenge, send it, check the answer and save it."""
    run_challenge(
        screen,
        video,
        gateway_url=gateway,
        keys_directory=keys,
        hotkey_file=hotkey_file,
        miner_hotkey=miner_hotkey,
        out=out,
    )
