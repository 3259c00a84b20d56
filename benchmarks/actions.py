"""What happens in a clip: answers of gateway/actions.py against synthetic matches, by the subnet's own score.

    python -m benchmarks.actions [--seeds 200 201 ...] [--stride 3] [--dumps DIR] [--json FILE]

The frames of each match are rendered at the models' input size, every --stride-th, and inferred once by the bundled
models (minutes a clip, kept in --dumps). No video codec lies between, and no real match with labels was at hand: how
much of this holds in a broadcast nobody has measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import tritonclient.grpc as grpcclient
from rich.console import Console

from benchmarks.common import served_size
from demo.match import Match
from gateway.inference.outputs import detections_from_rows
from gateway.inference.triton import CHANNEL
from gateway.video.shirts import Shirts
from local.triton import LocalTriton
from touchline.contract import DETECTIONS, INPUT, KEYPOINTS, PITCH_MODEL, PLAYER_MODEL, Letterbox

TEST_SEEDS = tuple(range(200, 210))
"""None of these was looked at while the rules were made; that was done on seeds 0 to 19 and 100 to 101."""
LOW_SCORE, BATCH = 0.1, 4


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(TEST_SEEDS))
    parser.add_argument("--stride", type=int, default=3)
    parser.add_argument("--dumps", type=Path, default=Path("out/actions"))
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


if __name__ == "__main__":
    main()
