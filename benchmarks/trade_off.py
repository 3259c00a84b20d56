"""What an answer is worth against how long it takes: fixed strides, budgets in seconds, and `auto`, on one clip.

Whole challenges through the local servers. The clip of `make demo` is measured against its truth; other footage
(--video) against the servers' own answer at stride 1. --rows takes up what earlier runs measured, so that a table made
in pieces is drawn as one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import EVERY_FRAME, NO_LIMITS, demo_clip, fresh, median, parser, report, spread, take_cores
from demo.clip import load_truth
from demo.truth import Truth
from gateway.pace import Aim, pitch_stride, score
from gateway.settings import FASTEST_S, Settings
from gateway.stride_quality import MEASURED_FPS
from local.stack import local_stack
from local.triton import DEFAULT_REPOSITORY
from local.validator import Outcome, served_file
from touchline.answer import parse_answer
from touchline.answer_quality import AnswerQuality, measure
from touchline.contract import KEYPOINT_COUNT


def main() -> None:
    arguments_of = parser(__doc__, runs=1)
    arguments_of.add_argument("--video", type=Path, help="instead of the demo clip: measured against its own stride 1")
    arguments_of.add_argument(
        "--strides", type=int, nargs="*", default=[1, 2, 4, 6, 8, 10, 12, 13, 14, 15, 18, 20, 25, 50]
    )
    arguments_of.add_argument("--budgets", nargs="*", default=["4", "6", "8", "12", "auto"])
    arguments_of.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY, help="models that Triton serves")
    arguments_of.add_argument("--plot", type=Path, metavar="PNG", help="draw it there")
    arguments_of.add_argument(
        "--rows", type=Path, nargs="*", default=[], metavar="JSON", help="what earlier runs wrote"
    )
    arguments = arguments_of.parse_args()
    console = Console()
    if arguments.video:
        video, truth = arguments.video.resolve(), None
    else:
        clip = demo_clip(console)
        video, truth = clip.video.resolve(), load_truth(clip.truth)
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        width = stream.width
    take_cores(arguments.cores)

    def challenged(settings: Mapping[str, str]) -> list[Outcome]:
        with local_stack(repository=arguments.repository, settings=settings) as servers, served_file(video) as url:
            servers.challenge(fresh(url))
            return [servers.challenge(fresh(url)) for _ in range(arguments.runs)]

    if truth is None and (arguments.strides or arguments.budgets):
        truth = as_truth(challenged(EVERY_FRAME)[0].response)
    ways = {f"stride {stride}": at_stride(stride) for stride in arguments.strides}
    ways |= {
        f"{budget} s" if budget != "auto" else budget: {"CHALLENGE_BUDGET_S": budget} for budget in arguments.budgets
    }
    columns = ("seconds", "inferred", "stride", "people found", "precision", "identity switches", "balls", "keypoints")
    table = Table("", *columns, "score")
    numbers: dict[str, dict[str, Any]] = {}
    for earlier in arguments.rows:
        numbers |= json.loads(earlier.read_text())["rows"]
    for way, settings in ways.items():
        outcomes = challenged(settings)
        middle = sorted(outcomes, key=lambda one: one.elapsed_s)[len(outcomes) // 2]
        found = measure(middle.response, truth or [], width)
        numbers[way] = row = figures(found, [one.elapsed_s for one in outcomes], middle.notes)
        console.print(f"{way}: {row['people_found']:.1%} in {row['seconds']:.1f} s", highlight=False)
    for way, row in numbers.items():
        table.add_row(
            way, spread(row["all_seconds"]), str(row["inferred"]), f"{row['stride']} ({row['planned_stride']} planned)",
            *(f"{row[name]:.1%}" for name in ("people_found", "precision")), str(row["identity_switches"]),
            *(f"{row[name]:.1%}" for name in ("balls_found", "keypoints_found")), f"{row['score']:.3f}",
        )  # fmt: skip
    if arguments.plot:
        plot(numbers, arguments.plot, video.name)
    notes = [
        f"Medians of {arguments.runs} challenges after one that warms up; people: IoU 0.5, "
        f"against {'the answer at stride 1' if arguments.video else 'the truth'}.",
        f"score: 0.65 people found + 0.35 exp(-5 (t - {FASTEST_S:g}) / (15 - {FASTEST_S:g})).",
    ]
    report(console, table, notes, {"rows": numbers}, arguments)


def at_stride(stride: int) -> dict[str, str]:
    """Settings under which just every `stride`-th frame is inferred, and by the pitch model as many as a plan takes."""
    pitch = pitch_stride(stride, Aim.of(Settings(_env_file=None, device="cpu")), MEASURED_FPS)
    return {**NO_LIMITS, "FRAME_STRIDE": str(stride), "PITCH_STRIDE": str(pitch)}


def figures(found: AnswerQuality, all_seconds: list[float], notes: Mapping[str, str]) -> dict[str, Any]:
    seconds = median(all_seconds)
    return {
        "seconds": seconds,
        "all_seconds": all_seconds,
        "inferred": int(notes["inferred"]),
        "stride": notes["stride"],
        "planned_stride": notes["planned-stride"],
        "people_found": found.people_found,
        "precision": found.people_precision,
        "identity_switches": found.identity_switches,
        "balls_found": found.balls_found,
        "keypoints_found": found.keypoints_found,
        "score": score(found.people_found, seconds),
    }


def as_truth(response: Mapping[str, Any]) -> list[Truth]:
    """An answer in the role of the truth, for footage that has none."""
    none = np.zeros((KEYPOINT_COUNT, 1), np.float32)
    return [
        Truth(
            answer.frame_number,
            answer.boxes.astype(np.float32),
            answer.classes,
            answer.ids,
            np.hstack([answer.keypoints, none + answer.seen[:, None]]).astype(np.float32),
            np.eye(3),
        )
        for answer in parse_answer(response).values()
    ]


def plot(numbers: Mapping[str, Mapping[str, Any]], path: Path, title: str) -> None:
    """People found against seconds: a line of strides, and a dot for each budget."""
    from matplotlib import figure  # noqa: PLC0415  slow to import, and most runs draw nothing

    picture = figure.Figure(figsize=(7, 4), layout="constrained")
    axes = picture.add_subplot(xlabel="seconds", ylabel="people found, %", title=title)

    def points(chosen: Sequence[str]) -> tuple[list[float], list[float]]:
        return [numbers[way]["seconds"] for way in chosen], [100 * numbers[way]["people_found"] for way in chosen]

    fixed = [way for way in numbers if way.startswith("stride")]
    budgets = [way for way in numbers if way not in fixed]
    axes.plot(*points(fixed), "o-", color="tab:gray", label="every n-th frame")
    axes.plot(*points(budgets), "s", color="tab:green", label="CHALLENGE_BUDGET_S")
    for way in numbers:
        at = (numbers[way]["seconds"], 100 * numbers[way]["people_found"])
        offset = (3, -11) if way in fixed else (-2, 7)
        axes.annotate(way.removeprefix("stride "), at, textcoords="offset points", xytext=offset, fontsize=8)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
