"""What an answer loses between inferred frames: the answer of every stride from the same detections, inferred once.

    python -m benchmarks.long_strides [--seeds 7 1234] [--video CLIP.mp4] [--dumps DIR] [--strides 2 4 6 10 15 25]

Every frame of each clip is inferred once by the bundled models (minutes) and kept in --dumps; a replay then takes a
second a stride. The demo's clip and those of other --seeds are measured against their truth, a --video against its own
answer at stride 1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.common import demo_clip, every_frame, report
from demo.clip import load_truth
from demo.match import Match
from demo.truth import Truth
from gateway.detections import Detections
from gateway.inference.outputs import detections_from_rows, keypoints_from_rows
from gateway.tracking.keypoints import KeypointTracker
from gateway.tracking.tracker import Tracker
from gateway.tracking.tracks import TrackRows
from touchline.answer_quality import AnswerQuality, measure
from touchline.contract import DETECTIONS, KEYPOINTS, PITCH_MODEL, PLAYER_MODEL, Letterbox

STRIDES = (1, 2, 4, 6, 10, 15, 25)
CONFIDENCE, KEYPOINT_CONFIDENCE, LOW_SCORE = 0.35, 0.5, 0.1


@dataclass(frozen=True, slots=True)
class Seen:
    """What the models say of every frame of a clip."""

    detections: list[Detections]
    keypoints: npt.NDArray[np.float32]
    """float32 [frames, 32, 2] in source pixels, (0, 0) where not seen."""
    size: tuple[int, int]
    fps: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="other synthetic matches besides the demo's")
    parser.add_argument("--frames", type=int, default=400, help="frames of those")
    parser.add_argument("--video", type=Path, action="append", default=[], help="footage without truth")
    parser.add_argument("--fps", type=float, default=25.0, help="of the footage")
    parser.add_argument("--dumps", type=Path, default=Path("out/long_strides"))
    parser.add_argument("--strides", type=int, nargs="*", default=list(STRIDES))
    parser.add_argument("--pitch-factor", type=int, default=1, help="the pitch model sees every n-th inferred frame")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    arguments = parser.parse_args()
    console = Console()
    numbers: dict[str, dict[str, float]] = {}
    matches = {f"seed {seed}": Match(seed=seed, frames=arguments.frames) for seed in arguments.seeds}
    for name, match in {"demo": Match(), **matches}.items():
        folder = Path("out/clip") if name == "demo" else arguments.dumps / name.replace(" ", "_")
        clip = demo_clip(console, match, folder)
        seen = dumped(clip.video, arguments.dumps / f"{name.replace(' ', '_')}.npz", match.fps)
        against_truth(name, seen, load_truth(clip.truth), arguments, numbers)
    for video in arguments.video:
        seen = dumped(video, arguments.dumps / f"{video.stem}.npz", arguments.fps)
        against_itself(video.name, seen, arguments, numbers)
    columns = ("people found", "precision", "identity switches", "ball found", "finish ms")
    table = Table("clip", *columns)
    for name, row in numbers.items():
        table.add_row(name, *(f"{row[column]:.1f}" if column in row else "" for column in columns))
    report(
        console, table, ["Shares in %. IoU >= 0.5; footage: against its own answer at stride 1."], numbers, arguments
    )


def against_truth(
    name: str, seen: Seen, truth: list[Truth], arguments: argparse.Namespace, numbers: dict[str, dict[str, float]]
) -> None:
    for stride in arguments.strides:
        rows, finish_s = replay(seen, stride, arguments.pitch_factor)
        numbers[f"{name}, stride {stride}"] = figures(quality(rows, truth, seen.size[0]), finish_s)


def against_itself(name: str, seen: Seen, arguments: argparse.Namespace, numbers: dict[str, dict[str, float]]) -> None:
    """The answer at stride 1 is the truth."""
    rows, _ = replay(seen, 1, 1)
    none = np.zeros((32, 3), np.float32)
    truth = []
    for number in range(len(seen.detections)):
        own = rows.frame_numbers == number
        truth.append(
            Truth(number, rows.xyxy[own].astype(np.float32), rows.classes[own], rows.ids[own], none, np.eye(3))
        )
    against_truth(name, seen, truth, arguments, numbers)


def figures(found: AnswerQuality, finish_s: float) -> dict[str, float]:
    return {
        "people found": 100 * found.people_found,
        "precision": 100 * found.people_precision,
        "identity switches": found.identity_switches,
        "ball found": 100 * found.balls_found,
        "ball precision": 100 * found.ball_precision,
        "finish ms": 1000 * finish_s,
    }


def replay(seen: Seen, stride: int, pitch_factor: int = 1) -> tuple[TrackRows, float]:
    """The rows of all frames when each `stride`-th and the last are inferred; seconds from the last to the rows."""
    frames = len(seen.detections)
    samples = sorted({*range(0, frames, stride), frames - 1})
    tracker = Tracker(fps=seen.fps, width=seen.size[0], frame_stride=stride, track_buffer=30, confidence=CONFIDENCE)
    keypoints = KeypointTracker()
    for number in samples:
        tracker.update(number, seen.detections[number])
    for number in sorted({*samples[::pitch_factor], frames - 1}):
        keypoints.add(number, seen.keypoints[number])
    points = keypoints.finish(seen.size)
    begun = time.perf_counter()
    tracks = tracker.finish(points)
    finish_s = time.perf_counter() - begun
    return tracks.rows(0, frames), finish_s


def quality(rows: TrackRows, truth: Sequence[Truth], width: int) -> AnswerQuality:
    frames = [{"frame_number": number, "keypoints": [[0.0, 0.0]] * 32, "objects": []} for number in range(len(truth))]
    for number, track, class_id, box in zip(
        rows.frame_numbers.tolist(), rows.ids.tolist(), rows.classes.tolist(), rows.xyxy.tolist(), strict=True
    ):
        frames[number]["objects"].append({"id": track, "bbox": box, "class_id": class_id})
    return measure({"frames": frames}, list(truth), width)


def dumped(video: Path, file: Path, fps: float) -> Seen:
    """The models' answers to every frame, from `file` or inferred now."""
    if not file.is_file():
        player, letterbox = every_frame(video, PLAYER_MODEL, DETECTIONS)
        pitch, _ = every_frame(video, PITCH_MODEL, KEYPOINTS)
        most = int((player[..., 4] >= LOW_SCORE).sum(axis=1).max())
        box = np.array([letterbox.source_width, letterbox.source_height, letterbox.width, letterbox.height])
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, player=player[:, :most], pitch=pitch, letterbox=box)
    with np.load(file) as stored:
        letterbox = Letterbox(*stored["letterbox"].tolist())
        detections = detections_from_rows(stored["player"], letterbox, min_score=LOW_SCORE)
        keypoints = keypoints_from_rows(stored["pitch"], letterbox, min_confidence=KEYPOINT_CONFIDENCE)
    return Seen(detections, keypoints, letterbox.source_size, fps)


if __name__ == "__main__":
    main()
