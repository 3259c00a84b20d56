"""Touchline against a stand-in for the reference miner, on the same clip, weights and cores: frames/s end to end.

The reference loop (OpenCV, Ultralytics on PyTorch, frame by frame, player model at 1280 px, ByteTrack) runs in the
export environment over a part of the clip; each of its frames costs the same, so its time for the clip is extrapolated.
No budget, so that strides stay what they are, and beside each rate stands what the answer is worth: people found and
precision against the demo clip's truth, of both sides on the frames that the reference loop ran over.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    EVERY_FRAME,
    NO_LIMITS,
    alternate,
    demo_clip,
    fresh,
    median,
    parser,
    report,
    served_size,
    spread,
    take_cores,
)
from demo.clip import load_truth
from demo.match import Match
from demo.truth import Truth
from local.stack import LocalStack, local_stack
from local.triton import DEFAULT_REPOSITORY, PROJECT
from local.validator import served_file
from touchline.answer_quality import measure

FIRST_FRAME = 2
"""Of the reference loop, after those it warms up with."""
LARGE = 1280
"""Width of the player model's input in the reference miner."""


def main() -> None:
    arguments_of = parser(__doc__, runs=3)
    arguments_of.add_argument("--player", type=Path, required=True, help="weights (.pt) that the served player has")
    arguments_of.add_argument("--pitch", type=Path, required=True, help="weights (.pt) that the served pitch has")
    arguments_of.add_argument("--video", type=Path, help="instead of the demo clip")
    arguments_of.add_argument("--frames", type=int, default=40, help="frames the reference loop runs over, each run")
    arguments_of.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY, help="models that Triton serves")
    arguments_of.add_argument(
        "--large-repository", type=Path, help="the same weights exported at 736x1280: a row of its own"
    )
    arguments_of.add_argument(
        "--python", type=Path, default=PROJECT / ".venv-export/bin/python", help="one with torch and ultralytics"
    )
    arguments = arguments_of.parse_args()
    console = Console()
    truth: list[Truth] | None = None
    if arguments.video:
        video = arguments.video.resolve()
    else:
        clip = demo_clip(console, Match())
        video, truth = clip.video.resolve(), load_truth(clip.truth)
    take_cores(arguments.cores)

    same = served_size(arguments.repository)[1]  # at which both sides see the same pixels

    def reference(size: int) -> dict[str, float]:
        weights = (arguments.player, arguments.pitch)
        measured = run_reference(arguments.python, video, weights, size, arguments.frames)
        return {**measured, **worth(measured.pop("answer", []), truth)}

    def touchline(stack: LocalStack) -> dict[str, float]:
        outcome = stack.challenge(fresh(url))
        frames = len(outcome.response["frames"])
        boxes = sum(len(frame["objects"]) for frame in outcome.response["frames"])
        return {
            "frames": frames,
            "elapsed_s": outcome.elapsed_s,
            "frames_per_s": frames / outcome.elapsed_s,
            "boxes_a_frame": boxes / frames,
            **worth(outcome.response["frames"][FIRST_FRAME : FIRST_FRAME + arguments.frames], truth),
        }

    def in_stack(repository: Path, settings: dict[str, str]) -> dict[str, float]:
        """Both sides load and warm their models outside of the clock, and neither runs beside the other."""
        with local_stack(repository=repository, settings=settings) as stack:
            touchline(stack)
            return touchline(stack)

    with ExitStack() as stack:
        url = stack.enter_context(served_file(video))
        variants = {
            f"reference, player {LARGE} px": lambda: reference(LARGE),
            f"reference, player {same} px": lambda: reference(same),
            "Touchline, defaults": lambda: in_stack(arguments.repository, NO_LIMITS),
            "Touchline, stride 1": lambda: in_stack(arguments.repository, EVERY_FRAME),
        }
        if arguments.large_repository:
            variants[f"Touchline, stride 1, {LARGE} px"] = lambda: in_stack(arguments.large_repository, EVERY_FRAME)
        results = alternate(arguments.runs, variants, console)
    rates = {name: median([one["frames_per_s"] for one in runs]) for name, runs in results.items()}
    frames = int(results["Touchline, defaults"][0]["frames"])
    against = {
        "Touchline, defaults": f"reference, player {LARGE} px",
        "Touchline, stride 1": f"reference, player {same} px",
        f"Touchline, stride 1, {LARGE} px": f"reference, player {LARGE} px",
    }
    ratios = {name: rates[name] / rates[against[name]] for name in results if name in against}
    table = Table(
        "",
        "frames/s",
        f"seconds for {frames} frames",
        "boxes a frame",
        "people found",
        "precision",
        "times",
        "the frames/s of",
    )
    for name, runs in results.items():
        extrapolated = "~" if name not in against else ""
        table.add_row(
            name,
            spread([one["frames_per_s"] for one in runs], 1),
            f"{extrapolated}{frames / rates[name]:.1f}",
            f"{median([one['boxes_a_frame'] for one in runs]):.1f}",
            *("" if math.isnan(one := runs[0][name_of]) else f"{one:.1%}" for name_of in ("people_found", "precision")),
            f"{ratios[name]:.1f}x" if name in ratios else "",
            against.get(name, ""),
        )
    stages = {
        name: {stage: median([one[f"{stage}_ms"] for one in runs]) for stage in ("decode", "player", "pitch", "track")}
        for name, runs in results.items()
        if name not in against
    }
    notes = [
        f"Medians of {arguments.runs} runs in turn. The reference loop was measured over {arguments.frames} frames, "
        f"models loaded and warm; its time for {frames} frames (~) is extrapolated. Touchline: signed request to last "
        "byte, download, decoding, tracking and JSON included.",
        *(
            f"{name}, ms a frame: " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in parts.items())
            for name, parts in stages.items()
        ),
    ]
    report(
        console,
        table,
        notes,
        {"ratios": ratios, "frames_per_s": rates, "stages_ms": stages, "runs": results},
        arguments,
    )


def worth(answer: Sequence[dict[str, Any]], truth: Sequence[Truth] | None) -> dict[str, float]:
    """People found and precision of an answer's frames; NaN where nothing is known to be true."""
    numbers = {frame["frame_number"] for frame in answer}
    known = [one for one in truth or () if one.frame_number in numbers]
    if not known:
        return {"people_found": math.nan, "precision": math.nan}
    found = measure({"frames": list(answer)}, known, Match().width)
    return {"people_found": found.people_found, "precision": found.people_precision}


def run_reference(python: Path, video: Path, weights: tuple[Path, Path], size: int, frames: int) -> dict[str, Any]:
    """The reference loop in its own environment. Raises RuntimeError with the end of what it said."""
    environment = {**os.environ, "YOLO_VERBOSE": "false", "YOLO_AUTOINSTALL": "false"}
    if subprocess.run([python, "-c", "import torchvision"], capture_output=True, check=False).returncode:  # noqa: S603
        # No build of torchvision beside this torch: Ultralytics asks for its metadata and, without CUDA, little else.
        environment["PYTHONPATH"] = str(PROJECT / "tests" / "standins")
    player, pitch = (path.resolve() for path in weights)
    command: list[str | Path] = [
        *(python, "-m", "benchmarks.reference_miner", video, "--player", player, "--pitch", pitch),
        *("--player-size", str(size), "--frames", str(frames)),
    ]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"the reference loop failed: {done.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return dict(answer["sizes"][str(size)])


if __name__ == "__main__":
    main()
