"""`touchline bench challenge`: where a challenge's time goes, and which strides and batch size suit a video."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

from commands.challenge import stage_table
from commands.terminal import CommandError, check_file, numbers, read_settings, screen
from local.progress import progress_bar, spinner
from local.stack import LocalGateway, LocalStackError, make_keys
from local.triton import DEFAULT_REPOSITORY, LocalTriton, LocalTritonError
from local.validator import ChallengeFailed, Outcome, send_challenge, video_url
from touchline.answer import parse_answer
from touchline.answer_quality import AnswerQuality, measure
from touchline.atomic_file import replacing
from touchline.score import final_score, speed_score
from touchline.video_read import UnreadableVideo, open_video, video_stream

_COMPUTE_AGAIN: Final = {"ANSWER_CACHE_S": "0"}
_NO_LIMITS: Final = {"CHALLENGE_BUDGET_S": "100000", "CHALLENGE_TIMEOUT_S": "3600"}
"""So that a stride stays what it is, however slow the machine."""


class BenchChallengeError(CommandError):
    """A CommandError of this command's."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of the sweep. Strides are in source frames."""

    repository: Path
    batch_size: int
    frame_stride: int
    pitch_stride: int

    def environment(self) -> dict[str, str]:
        """The gateway's settings."""
        return {
            "BATCH_SIZE": str(self.batch_size),
            "FRAME_STRIDE": str(self.frame_stride),
            "PITCH_STRIDE": str(self.pitch_stride),
            **_NO_LIMITS,
            **_COMPUTE_AGAIN,
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """What one setting gave."""

    setting: Setting
    elapsed_s: float
    """Median, signed request to last byte."""
    people: float
    """F1 of persons at IoU 0.5 against stride 1, 0 to 1."""
    keypoints: float
    """F1 of keypoints within 2 % of the width against stride 1, 0 to 1."""

    @property
    def accuracy(self) -> float:
        """Half boxes, half keypoints, as a validator weighs them; what stride 1 does not show counts for neither."""
        known = [value for value in (self.people, self.keypoints) if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True, slots=True)
class AnsweredFrame:
    """A frame of an answer in the role of the truth: see touchline.answer_quality.Truth."""

    frame_number: int
    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.intp]
    ids: npt.NDArray[np.intp]
    keypoints: npt.NDArray[np.float64]
    """float64 [32, 3]."""


def bench_challenge(
    console: Console,
    video: str,
    *,
    sweep: bool = False,
    repositories: Sequence[Path] = (DEFAULT_REPOSITORY,),
    batch_sizes: Sequence[int] = (4, 8, 16),
    frame_strides: Sequence[int] = (1, 2, 3),
    pitch_strides: Sequence[int] = (0,),
    runs: int = 3,
    fastest_s: float | None = None,
    json_file: Path | None = None,
) -> list[Measured]:
    """Challenge a stack started for it with `video`, a path or a URL, and print the stage times.

    With `sweep`, do so for every combination of model repository, BATCH_SIZE, FRAME_STRIDE and PITCH_STRIDE (0: the
    default for the stride), and rank them by time and by agreement with the answer of stride 1 of the first repository.
    `fastest_s` is the time of the fastest miner, which the speed is scored against; default: that of the quickest row.
    Returns what was measured, best first; without `sweep` nothing. Raises BenchChallengeError.
    """
    check_file("--json", json_file)
    read_settings()  # the gateways that are started have them too
    try:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="touchline-")))
            url = stack.enter_context(video_url(video))
            if not sweep:
                outcomes = _alone(console, repositories[0], directory, url, runs)
                outcome = sorted(outcomes, key=lambda one: one.elapsed_s)[len(outcomes) // 2]
                console.print(stage_table(outcome))
                console.print(f"median of {len(outcomes)} challenges after one that warmed up", highlight=False)
                _save(json_file, {"video": video, "runs": [_stages(one) for one in outcomes]})
                return []
            settings = [
                Setting(repository, batch, stride, pitch)
                for repository, batch, stride, pitch in itertools.product(
                    repositories, batch_sizes, frame_strides, pitch_strides
                )
            ]
            width = _width(url)
            measured = _swept(console, settings, directory, (url, width), runs)
    except (ChallengeFailed, LocalStackError, LocalTritonError) as error:
        raise BenchChallengeError(str(error)) from error
    fastest = fastest_s or min(one.elapsed_s for one in measured)
    ranked = sorted(measured, key=lambda one: score(one, fastest), reverse=True)
    console.print(ranking(ranked, fastest, several_repositories=len(repositories) > 1))
    best = ranked[0]
    console.print(
        f"Recommended: BATCH_SIZE={best.setting.batch_size} FRAME_STRIDE={best.setting.frame_stride} "
        f"PITCH_STRIDE={best.setting.pitch_stride}"
        + (f" with {best.setting.repository}" if len(repositories) > 1 else "")
        + f": {best.elapsed_s:.2f} s, {best.accuracy:.1%} of what stride 1 answers.",
        highlight=False,
    )
    console.print(
        f"score: 0.65 accuracy + 0.35 speed, as a validator weighs them, if the fastest miner takes {fastest:.2f} s. "
        "Accuracy is agreement with this model's own stride 1, not with the truth.",
        highlight=False,
    )
    rows = [{**asdict(one), "accuracy": one.accuracy, "score": score(one, fastest)} for one in ranked]
    _save(json_file, {"video": video, "width": width, "runs": runs, "ranked": rows})
    return ranked


def score(measured: Measured, fastest_s: float) -> float:
    """The part of a validator's final score that depends on the setting, 0 to 1: see touchline.score."""
    accuracy = 0.0 if math.isnan(measured.accuracy) else measured.accuracy
    return final_score(accuracy, speed_score(measured.elapsed_s, fastest_s))


def ranking(ranked: Sequence[Measured], fastest_s: float, *, several_repositories: bool = False) -> Table:
    """A row for each setting, best score first, with its rank by time and by accuracy."""
    by_time = sorted(ranked, key=lambda one: one.elapsed_s)
    by_accuracy = sorted(ranked, key=lambda one: -math.inf if math.isnan(one.accuracy) else one.accuracy, reverse=True)
    table = Table(
        *(["models"] if several_repositories else []),
        *("BATCH_SIZE", "FRAME_STRIDE", "PITCH_STRIDE", "seconds", "by time"),
        *("people", "keypoints", "by accuracy", "score"),
    )
    for one in ranked:
        table.add_row(
            *([str(one.setting.repository)] if several_repositories else []),
            *(str(one.setting.batch_size), str(one.setting.frame_stride), str(one.setting.pitch_stride or "default")),
            *(f"{one.elapsed_s:.2f}", f"{by_time.index(one) + 1}."),
            *(_percent(one.people), _percent(one.keypoints), f"{by_accuracy.index(one) + 1}."),
            f"{score(one, fastest_s):.3f}",
        )
    return table


def as_truth(response: Mapping[str, Any]) -> list[AnsweredFrame]:
    """An answer in the role of the truth, for touchline.answer_quality.measure."""
    return [
        AnsweredFrame(
            frame.frame_number,
            frame.boxes,
            frame.classes,
            frame.ids,
            np.column_stack([frame.keypoints, frame.seen.astype(np.float64)]),
        )
        for frame in parse_answer(response).values()
    ]


def agreement(quality: AnswerQuality) -> tuple[float, float]:
    """F1 of persons and of keypoints, NaN where the truth has none."""
    return (
        _f1(quality.people_found, quality.people_precision),
        _f1(quality.keypoints_found, 1 - quality.keypoints_false),
    )


def _swept(
    console: Console, settings: Sequence[Setting], directory: Path, video: tuple[str, int], runs: int
) -> list[Measured]:
    """Measure all settings in turn, `runs` times. `video` is a URL and the width of its pictures in pixels."""
    url, width = video
    first = settings[0].repository
    elapsed: dict[Setting, list[float]] = {setting: [] for setting in settings}
    answers: dict[Setting, dict[str, Any]] = {}
    reference = Setting(first, settings[0].batch_size, 1, 1)
    total = 1 + len(settings) * runs
    done = 0
    with progress_bar(console, "sweep", "challenges") as advance:

        def report() -> None:
            nonlocal done
            done += 1
            advance(done, total)

        def measured_once(triton: LocalTriton, setting: Setting) -> Outcome:
            outcome = _challenge_once(triton, directory, setting.environment(), url)
            report()
            return outcome

        for repository in dict.fromkeys(setting.repository for setting in settings):
            with LocalTriton(repository, log=directory / "triton.log") as triton:
                triton.wait_ready()
                if repository == first:
                    truth = measured_once(triton, reference).response
                for _, setting in itertools.product(range(runs), settings):
                    if setting.repository == repository:
                        outcome = measured_once(triton, setting)
                        elapsed[setting].append(outcome.elapsed_s)
                        answers[setting] = outcome.response
    frames = as_truth(truth)
    return [
        Measured(
            setting,
            statistics.median(elapsed[setting]),
            *agreement(measure(answers[setting], frames, width)),
        )
        for setting in settings
    ]


def _challenge_once(triton: LocalTriton, directory: Path, environment: Mapping[str, str], url: str) -> Outcome:
    """One challenge to a gateway of its own, on a running Triton."""
    keys = make_keys(directory)
    gateway = LocalGateway(
        {**keys.environment(), "TRITON_URLS": triton.grpc_url, **environment}, log=directory / "gateway.log"
    )
    try:
        gateway.start()
        gateway.wait_ready()
        return send_challenge(gateway.url, keys.validator, keys.miner.ss58_address, url)
    finally:
        gateway.stop()


def _alone(console: Console, repository: Path, directory: Path, url: str, runs: int) -> list[Outcome]:
    """`runs` challenges to one stack with the settings of the environment, after one that warms it up."""
    keys = make_keys(directory)
    with LocalTriton(repository, log=directory / "triton.log") as triton:
        gateway = LocalGateway(
            {**keys.environment(), "TRITON_URLS": triton.grpc_url, **_COMPUTE_AGAIN}, log=directory / "gateway.log"
        )
        try:
            with spinner(console, "starting Triton, gateway"):
                gateway.start()
                triton.wait_ready()
                gateway.wait_ready()
            outcomes = []
            with progress_bar(console, "measuring", "challenges") as advance:
                for run in range(runs + 1):
                    outcomes.append(send_challenge(gateway.url, keys.validator, keys.miner.ss58_address, url))
                    advance(run + 1, runs + 1)
            return outcomes[1:]
        finally:
            gateway.stop()


def _width(url: str) -> int:
    """Width of the video's pictures."""
    try:
        answer = httpx.get(url, follow_redirects=True)
        with open_video(BytesIO(answer.raise_for_status().content)) as container:
            return int(video_stream(container).width)
    except (httpx.HTTPError, UnreadableVideo) as error:
        raise BenchChallengeError(f"{url} cannot be read as a video: {error}") from error


def _stages(outcome: Outcome) -> dict[str, Any]:
    return {
        "frames": len(outcome.response["frames"]),
        "elapsed_s": outcome.elapsed_s,
        "stage_seconds": outcome.stage_seconds,
    }


def _save(path: Path | None, numbers: Mapping[str, Any]) -> None:
    if path is not None:
        with replacing(path) as part:
            part.write_text(json.dumps(numbers, indent=1, default=str) + "\n")


def _f1(recall: float, precision: float) -> float:
    if math.isnan(recall):
        return math.nan
    if math.isnan(precision) or recall + precision == 0:
        return 0.0
    return 2 * recall * precision / (recall + precision)


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1%}"


def command(  # noqa: PLR0917
    video: Annotated[str, typer.Argument(help="A video file, or its http(s) URL.")],
    sweep: Annotated[bool, typer.Option("--sweep", help="Rank batch sizes and strides.")] = False,
    repository: Annotated[
        list[Path] | None, typer.Option(help="Model repository; repeat it to compare input sizes.")
    ] = None,
    batch: Annotated[str, typer.Option(help="BATCH_SIZE to try.")] = "4,8,16",
    stride: Annotated[str, typer.Option(help="FRAME_STRIDE to try.")] = "1,2,3",
    pitch_stride: Annotated[str, typer.Option(help="PITCH_STRIDE to try; 0: the default.")] = "0",
    runs: Annotated[int, typer.Option(min=1, help="Challenges a point.")] = 3,
    fastest: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds of the fastest miner. Default: the quickest row.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON to write.")] = None,
) -> None:
    """Stage times of a challenge; with --sweep, which settings suit the video."""
    bench_challenge(
        screen,
        video,
        sweep=sweep,
        repositories=repository or [DEFAULT_REPOSITORY],
        batch_sizes=numbers("--batch", batch),
        frame_strides=numbers("--stride", stride, most=50),
        pitch_strides=numbers("--pitch-stride", pitch_stride, least=0),
        runs=runs,
        fastest_s=fastest,
        json_file=json_file,
    )
