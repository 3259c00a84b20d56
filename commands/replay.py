"""`touchline replay`: kept challenges answered again, under other settings, weights or this release."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
import typer
from dotenv import dotenv_values
from rich.table import Table
from typer.core import TyperCommand

from commands.terminal import CommandError, aside, check_file, check_folder, read_settings, screen
from gateway.settings import FASTEST_S, Settings
from local.progress import progress_bar
from local.stack import Keys, LocalGateway, LocalStackError, make_keys
from local.triton import DEFAULT_REPOSITORY, LocalTriton, LocalTritonError
from local.validator import CLIENT_TIMEOUT_S, ChallengeFailed, send_challenge, served_file
from touchline.answer_difference import Difference, difference, grass_of, mean_difference, verdict
from touchline.atomic_file import replacing
from touchline.kept import KeptChallenge, NotKept, kept_challenges
from touchline.pitch_lines import Sight
from touchline.render import Clip, RenderError, probe, read_response
from touchline.score import Score
from touchline.score_video import SCORED_PICTURES, score_response, sights_of

OF_THE_REPLAY: Final = {
    "KEEP_CHALLENGES": "0",
    "SCORE_CHALLENGES": "false",
    "CONSOLE_PORT": "0",
    "MIN_STAKE_THRESHOLD": "0",
    "NONCE_REDIS_URL": "",
    "VIDEO_PROXY": "",
}
"""Settings that are the same for all, so that a replay touches nothing of the miner's."""
UNHURRIED: Final = {"CHALLENGE_BUDGET_S": "100000", "CHALLENGE_TIMEOUT_S": f"{CLIENT_TIMEOUT_S:.0f}"}
KEPT: Final = "as kept"
_THAN: Final = {"worse": " than", "better": " than", "other": " than", "same": " as"}
_COLOURS: Final = {"worse": "red", "better": "green", "other": "yellow", "same": ""}


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to answer again."""

    name: str
    settings: Mapping[str, str]
    """By environment name, over what holds now."""
    repository: Path | None
    """Served by a local Triton; None: by the Triton that the settings name."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One challenge under one variant, or as it was kept."""

    seconds: float
    inferred: int | None
    score: Score | None
    """None where there was no answer."""
    difference: Difference | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Watched:
    """What is seen in a kept video."""

    clip: Clip
    sights: Mapping[int, Sight]
    grasses: Mapping[int, npt.NDArray[np.uint8]]


class SeveralValues(TyperCommand):
    """Options that take all the values up to the next option, as in --settings A.env B.env."""

    several = ("--settings", "--repository")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args, self.several))


COMMAND_CLASS: Final = SeveralValues


def spread(words: Sequence[str], several: Sequence[str]) -> list[str]:
    """["--settings", "A", "B"] to ["--settings", "A", "--settings", "B"]; the first word of all is no value."""
    spelled: list[str] = []
    option, fresh = "", False
    for word in words:
        if word.startswith("-"):
            option, fresh = (word if word in several else ""), True
        elif option:
            spelled += [] if fresh else [option]
            fresh = False
        spelled.append(word)
    return spelled


def variants(files: Sequence[Path], repositories: Sequence[Path], *, unhurried: bool) -> list[Variant]:
    """Each file of settings with each repository. Raises CommandError naming what is wrong in a file."""
    made = []
    all_files: list[Path | None] = [*files] or [None]
    all_repositories: list[Path | None] = [*repositories] or [None]
    for file, repository in product(all_files, all_repositories):
        values = {} if file is None else _settings_of(file)
        settings = _checked(values, file)
        names = [str(each) for each in (file, repository) if each is not None]
        hurry = UNHURRIED if unhurried else {}
        bundled = None if "triton_urls" in settings.model_fields_set else DEFAULT_REPOSITORY
        served_by = repository or bundled
        made.append(Variant(" + ".join(names) or "now", {**values, **hurry, **OF_THE_REPLAY}, served_by))
    return made


def _settings_of(file: Path) -> dict[str, str]:
    """The settings of a .env file by environment name; what is none is left out, and said."""
    try:
        values = {name.upper(): value or "" for name, value in dotenv_values(file, interpolate=False).items()}
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--settings {file} cannot be read ({error}); give lines NAME=VALUE in UTF-8") from error
    known = {name.upper() for name in Settings.model_fields} | {"TRITON_URL"}
    if unknown := sorted(values.keys() - known):
        aside.print(f"{file}: {', '.join(unknown)} are no settings of the gateway", style="yellow", highlight=False)
    chosen = {name: value for name, value in values.items() if name in known}
    if not chosen:
        raise CommandError(f"--settings {file} names no setting of the gateway; `touchline settings` lists them")
    return chosen


def _checked(values: Mapping[str, str], file: Path | None) -> Settings:
    try:
        return read_settings(**{name.lower(): value for name, value in values.items() if value})
    except CommandError as error:
        raise CommandError(f"--settings {file}: {error}" if file else str(error)) from error


@contextmanager
def served(variant: Variant, logs: Path) -> Iterator[tuple[str, Keys]]:
    """A gateway as this variant wants it: its URL and whose keys it knows. Raises LocalTritonError, LocalStackError."""
    with ExitStack() as stack:
        keys = make_keys(logs / "keys")
        settings = {**variant.settings, **keys.environment()}
        if variant.repository is not None:
            triton = stack.enter_context(LocalTriton(variant.repository, log=logs / "triton.log"))
            settings["TRITON_URLS"] = triton.grpc_url
            triton.wait_ready()
        gateway = LocalGateway(settings, log=logs / "gateway.log")
        stack.callback(gateway.stop)
        gateway.start()
        gateway.wait_ready()
        yield gateway.url, keys


def replay(
    variant: Variant,
    challenges: Sequence[KeptChallenge],
    watched: Mapping[str, Watched],
    out: Path | None,
    progress: Callable[[int, int], None],
) -> dict[str, Replayed]:
    """Answer all challenges again, and write the answers into `out`; what came of it by name.

    Raises CommandError where there is nobody to answer.
    """
    results = {}
    with tempfile.TemporaryDirectory(prefix="touchline-replay-") as logs:
        try:
            with served(variant, Path(logs)) as (url, keys):
                for done, challenge in enumerate(challenges, start=1):
                    place = out / f"{challenge.name}.json" if out else None
                    results[challenge.name] = _answered_again(challenge, watched[challenge.name], url, keys, place)
                    progress(done, len(challenges))
        except (LocalTritonError, LocalStackError) as error:
            raise CommandError(f"{variant.name}: {error}") from error
    return results


def _answered_again(challenge: KeptChallenge, seen: Watched, url: str, keys: Keys, out: Path | None) -> Replayed:
    try:
        with served_file(challenge.video) as video:
            outcome = send_challenge(url, keys.validator, keys.miner.ss58_address, video)
    except ChallengeFailed as error:
        return Replayed(math.nan, None, None, failure=str(error))
    if out is not None:
        with replacing(out) as part:
            part.write_bytes(outcome.body)
    inferred = outcome.notes.get("inferred", "")
    try:
        score = _score(seen, outcome.response, outcome.elapsed_s)
        found = difference(read_response(challenge.answer), outcome.response, seen.clip.width, seen.grasses)
    except (RenderError, ValueError) as error:
        return Replayed(outcome.elapsed_s, None, None, failure=str(error))
    return Replayed(outcome.elapsed_s, int(inferred) if inferred else None, score, found)


def _score(seen: Watched, response: Mapping[str, Any], seconds: float | None) -> Score:
    return score_response(seen.clip, seen.sights, response, seconds=seconds, fastest_s=FASTEST_S)


def as_kept(
    challenge: KeptChallenge, every: int | None, progress: Callable[[int, int], None]
) -> tuple[Watched, Replayed]:
    """Look at a kept video, and score the answer that was given. Raises RenderError naming what is wrong with them."""
    clip = probe(challenge.video)
    grasses: dict[int, npt.NDArray[np.uint8]] = {}
    sights = sights_of(
        clip,
        every=every or 1,
        pictures_looked_at=None if every else SCORED_PICTURES,
        progress=progress,
        also=lambda number, picture: grasses.update({number: grass_of(picture)}),
    )
    seen = Watched(clip, sights, grasses)
    seconds, inferred = challenge.about.get("seconds"), challenge.about.get("inferred")
    score = _score(seen, read_response(challenge.answer), seconds if isinstance(seconds, int | float) else None)
    return seen, Replayed(score.seconds, inferred if isinstance(inferred, int) else None, score)


def table(kept: Mapping[str, Replayed], results: Mapping[str, Mapping[str, Replayed]]) -> Table:
    """Each challenge as it was kept and under each variant."""
    shown = Table(
        *("", "seconds", "inferred", "score", "quality", "keypoints", "boxes at best"),
        *("people -/+", "balls -/+", "keypoints -/+"),
        title="scores of 100 by a validator's public rules; -/+: what was lost and what is new, % of the kept answer's",
        title_justify="left",
    )
    for name, before in kept.items():
        shown.add_row(f"[bold]{name}[/]")
        for variant, row in {KEPT: before, **{variant: result[name] for variant, result in results.items()}}.items():
            shown.add_row(variant, *_cells(row))
        shown.add_section()
    return shown


def _cells(row: Replayed) -> list[str]:
    if row.score is None:
        return ["" if math.isnan(row.seconds) else f"{row.seconds:.2f}", "", "[red]failed[/]"]
    score = row.score
    cells = [
        f"{row.seconds:.2f}",
        "" if row.inferred is None else str(row.inferred),
        *(f"{100 * value:.1f}" for value in (score.total, score.quality, score.keypoints, score.boxes_at_best)),
    ]
    if (found := row.difference) is None:
        return cells
    pairs = (
        (found.people_lost, found.people_new),
        (found.balls_lost, found.balls_new),
        (found.keypoints_lost, found.keypoints_new),
    )
    shares = [["-" if math.isnan(value) else f"{100 * value:.1f}" for value in pair] for pair in pairs]
    return [*cells, *(" / ".join(pair) for pair in shares)]


def judged(kept: Mapping[str, Replayed], results: Mapping[str, Replayed]) -> tuple[str, str]:
    """One word for a variant over all challenges, and why."""
    failed = [name for name, result in results.items() if result.score is None]
    if failed:
        return "worse", f"{len(failed)} of {len(results)} challenges failed: {results[failed[0]].failure}"
    pairs = [(kept[name].score, result.score) for name, result in results.items()]
    change = float(np.mean([100 * (new.quality - old.quality) for old, new in pairs if old and new]))
    found = mean_difference([result.difference for result in results.values() if result.difference])
    return verdict(change, found)


def print_verdicts(kept: Mapping[str, Replayed], results: Mapping[str, Mapping[str, Replayed]]) -> dict[str, str]:
    """Say of each variant what it is worth against the kept answers; the words by variant."""
    words = {}
    before_s = np.mean([row.seconds for row in kept.values()])
    for variant, each in results.items():
        word, why = judged(kept, each)
        words[variant] = word
        seconds = [row.seconds for row in each.values() if not math.isnan(row.seconds)]
        took = f" Seconds on this machine: {np.mean(seconds):.2f}, kept {before_s:.2f}." if seconds else ""
        colour = _COLOURS[word]
        shout = f"[{colour}]{word.upper()}[/]" if colour else word
        screen.print(f"{variant}: {shout}{_THAN[word]} the kept answers: {why}.{took}", highlight=False, soft_wrap=True)
    if len(kept) < 3:
        screen.print(f"Of {len(kept)} video(s) only: a gain on so few may be luck.", highlight=False)
    return words


def command(  # noqa: PLR0917
    folder: Annotated[
        Path, typer.Argument(help="KEEP_FOLDER of a gateway, or a folder of folders with video.mp4 and answer.json.")
    ],
    settings: Annotated[
        list[Path] | None,
        typer.Option(
            help=".env files to compare, over what holds now. Default: what holds now.", exists=True, dir_okay=False
        ),
    ] = None,
    repository: Annotated[
        list[Path] | None,
        typer.Option(
            help="Model repositories to compare, served by the local Triton. Default: TRITON_URLS where it is set, "
            "else the bundled one.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="Only the last so many challenges.")] = 1000,
    every: Annotated[
        int | None, typer.Option(min=1, help="Look at every n-th picture. Default: at 25 of each video.")
    ] = None,
    unhurried: Annotated[
        bool, typer.Option("--unhurried", help="No budget: the strides as they are set, however slow this machine is.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the new answers.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON to write, with all numbers.")] = None,
) -> None:
    """Answer kept challenges again under other settings, weights or this release, and say what is worse."""
    if json_file is not None:
        check_file("--json", json_file)
    if out is not None:
        check_folder("--out", out)
    for option, given in (("--settings", settings), ("--repository", repository)):
        if twice := [str(path) for path in given or [] if (given or []).count(path) > 1]:
            raise CommandError(f"{option} names {twice[0]} twice; name each once")
    for folder_of_models in repository or []:
        if not any(folder_of_models.glob("*/config.pbtxt")):
            raise CommandError(f"--repository {folder_of_models} holds no model; name what `touchline export` wrote to")
    chosen = variants(settings or [], repository or [], unhurried=unhurried)
    try:
        challenges = kept_challenges(folder)[-last:]
    except NotKept as error:
        raise CommandError(str(error)) from error
    kept: dict[str, Replayed] = {}
    watched: dict[str, Watched] = {}
    for challenge in challenges:
        with progress_bar(aside, f"looking at {challenge.name[:40]}") as advance:
            try:
                watched[challenge.name], kept[challenge.name] = as_kept(challenge, every, advance)
            except RenderError as error:
                raise CommandError(f"{challenge.video.parent}: {error} Or remove that folder.") from error
    results = {}
    for number, variant in enumerate(chosen, start=1):
        place = out / f"{number}-{re.sub(r'[^A-Za-z0-9.]+', '-', variant.name)}" if out else None
        with progress_bar(aside, variant.name, "challenges") as advance:
            results[variant.name] = replay(variant, challenges, watched, place, advance)
    screen.print(table(kept, results))
    words = print_verdicts(kept, results)
    if json_file is not None:
        replayed = [
            {"variant": name, "verdict": words[name], "challenges": _numbers(each)} for name, each in results.items()
        ]
        with replacing(json_file) as part:
            part.write_text(json.dumps({"kept": _numbers(kept), "replayed": replayed}, indent=1) + "\n")


def _numbers(rows: Mapping[str, Replayed]) -> dict[str, Any]:
    """What the table says, by challenge, for a program to read; shares 0 to 1."""
    numbers: dict[str, Any] = {}
    for name, row in rows.items():
        said = {"seconds": row.seconds, "inferred": row.inferred, "failure": row.failure}
        if row.score is not None:
            said |= {part: getattr(row.score, part) for part in ("total", "quality", "keypoints", "boxes_at_best")}
        if row.difference is not None:
            said |= asdict(row.difference)
        numbers[name] = {
            key: None if isinstance(value, float) and math.isnan(value) else value for key, value in said.items()
        }
    return numbers
