"""What happens in a clip: answers of gateway/actions.py against synthetic matches, by the subnet's own score.

    python -m benchmarks.actions [--seeds 200 201 ...] [--stride 3] [--dumps DIR] [--json FILE]

The frames of each match are rendered at the models' input size, every --stride-th, and inferred once by the bundled
models (minutes a clip, kept in --dumps). No video codec lies between, and no real match with labels was at hand: how
much of this holds in a broadcast nobody has measured.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import tritonclient.grpc as grpcclient
from rich.console import Console
from rich.table import Table

from benchmarks.common import report, served_size
from demo.match import Match
from gateway.actions import ANSWERED, everything, spotted
from gateway.inference.outputs import detections_from_rows, keypoints_from_rows
from gateway.inference.triton import CHANNEL
from gateway.scene import Scene, scene_of
from gateway.tracking.keypoints import KeypointTracker
from gateway.tracking.tracker import Tracker
from gateway.video.shirts import Shirts
from local.triton import LocalTriton
from touchline.actions import LabelCount, score_actions
from touchline.contract import DETECTIONS, INPUT, KEYPOINTS, PITCH_MODEL, PLAYER_MODEL, Letterbox

TEST_SEEDS = tuple(range(200, 210))
"""The rules were made on seeds 0 to 19, seen with noise, and on recordings of 100 and 101; which labels are answered
was decided on these."""
CONFIDENCE, KEYPOINT_CONFIDENCE, LOW_SCORE, BATCH = 0.35, 0.5, 0.1, 4


def record(match: Match, stride: int, client: grpcclient.InferenceServerClient, file: Path) -> None:
    """The models' answers to every `stride`-th frame and the last, and the colours of the shirts, into `file`."""
    numbers = sorted({*range(0, match.frames, stride), match.frames - 1})
    rows: dict[str, list[np.ndarray]] = {PLAYER_MODEL: [], PITCH_MODEL: []}
    shirts, letterbox = Shirts(), Letterbox(match.width, match.height, match.width, match.height)
    for first in range(0, len(numbers), BATCH):
        chosen = numbers[first : first + BATCH]
        frames = np.stack([match.frame(number)[0] for number in chosen])
        tensor = grpcclient.InferInput(INPUT, list(frames.shape), "UINT8")
        tensor.set_data_from_numpy(frames)
        for model, output in ((PLAYER_MODEL, DETECTIONS), (PITCH_MODEL, KEYPOINTS)):
            rows[model].append(client.infer(model, [tensor]).as_numpy(output))
        found = detections_from_rows(rows[PLAYER_MODEL][-1], letterbox, min_score=LOW_SCORE)
        shirts.look(frames, chosen, found, letterbox)
    file.parent.mkdir(parents=True, exist_ok=True)
    player = np.concatenate(rows[PLAYER_MODEL])
    most = int((player[..., 4] >= LOW_SCORE).sum(axis=1).max())
    counts = [len(shirts.seen[number][0]) if number in shirts.seen else 0 for number in numbers]
    boxes, colours = (np.concatenate([pair[which] for pair in shirts.seen.values()]) for which in (0, 1))
    np.savez_compressed(
        file, numbers=numbers, player=player[:, :most], pitch=np.concatenate(rows[PITCH_MODEL]), counts=counts,
        boxes=boxes, colours=colours,
    )  # fmt: skip


def recorded(file: Path, match: Match) -> Scene:
    """The scene that the gateway would see, of a file of `record`'s."""
    letterbox = Letterbox(match.width, match.height, match.width, match.height)
    with np.load(file) as stored:
        numbers = stored["numbers"].tolist()
        detections = detections_from_rows(stored["player"], letterbox, min_score=LOW_SCORE)
        keypoints = keypoints_from_rows(stored["pitch"], letterbox, min_confidence=KEYPOINT_CONFIDENCE)
        ends = np.cumsum(stored["counts"])[:-1]
        boxes, colours = (np.split(stored[name], ends) for name in ("boxes", "colours"))
    stride = numbers[1] - numbers[0]
    tracker = Tracker(fps=match.fps, width=match.width, frame_stride=stride, track_buffer=30, confidence=CONFIDENCE)
    pitch = KeypointTracker()
    for number, found, points in zip(numbers, detections, keypoints, strict=True):
        tracker.update(number, found)
        pitch.add(number, points)
    finished = pitch.finish((match.width, match.height))
    shirts = dict(zip(numbers, zip(boxes, colours, strict=True), strict=True))
    return scene_of(tracker.finish(finished), finished, shirts, match.frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(TEST_SEEDS))
    parser.add_argument("--stride", type=int, default=3)
    parser.add_argument("--dumps", type=Path, default=Path("out/actions"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    arguments = parser.parse_args()
    console = Console()
    height, width = served_size()
    matches = {seed: Match(seed=seed, width=width, height=height, lively=True) for seed in arguments.seeds}
    files = {seed: arguments.dumps / f"seed_{seed}_stride_{arguments.stride}.npz" for seed in matches}
    missing = [seed for seed in matches if not files[seed].is_file()]
    if missing:
        cv2.setNumThreads(1)
        with LocalTriton(log=Path("out/logs/triton.log")) as triton:
            triton.wait_ready()
            client = grpcclient.InferenceServerClient(triton.grpc_url, channel_args=CHANNEL)
            for seed in missing:
                record(matches[seed], arguments.stride, client, files[seed])
                console.print(f"seed {seed} is recorded")
    scores: dict[int, float] = {}
    counts: dict[str, LabelCount] = defaultdict(LabelCount)
    begun = time.perf_counter()
    for seed, match in matches.items():
        scene = recorded(files[seed], match)
        scored = score_actions(everything(scene), match.play.actions)
        scores[seed] = score_actions(spotted(scene), match.play.actions).score
        for label, count in scored.labels.items():
            counts[label] += count
    replay_s = (time.perf_counter() - begun) / len(matches)
    table = Table("label", "true", "answered", "precision", "recall", "pays from", "is answered")
    for label, count in counts.items():
        if count.right + count.wrong + count.missed:
            shares = ("" if share is None else f"{share:.2f}" for share in (count.precision, count.recall))
            row = str(count.right + count.missed), str(count.right + count.wrong), *shares
            table.add_row(label, *row, f"{count.least_precision:.2f}", "yes" if label in ANSWERED else "no")
    mean = float(np.mean(list(scores.values())))
    said = ", ".join(f"{seed}: {score:.2f}" for seed, score in scores.items())
    report(
        console,
        table,
        [f"Score {mean:.2f} in the mean; by seed {said}.", f"Tracking and rules: {replay_s:.2f} s a clip."],
        {"score": mean, "scores": scores, "labels": {label: asdict(count) for label, count in counts.items()}},
        arguments,
    )


if __name__ == "__main__":
    main()
