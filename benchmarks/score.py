"""What costs points: clips answered from recorded model outputs and scored by a validator's public rules, line by line.

    python -m benchmarks.score [--seeds 7 1234] [--demo] [--video CLIP.mp4] [--pictures docs]

Every frame of each clip is inferred by the bundled models and looked at as a validator would, once (minutes), and kept
in --dumps; answering and scoring again then takes seconds. Beside what the gateway answers stands what others would
earn: all keypoints that it knows, and the exact ones in their place, which no better model could pass. --pictures
draws the frame that loses the most by each line. Beside it: of how many people the class is right, and the ball.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.common import decoder, demo_clip, report, served_size
from benchmarks.long_strides import CONFIDENCE, Seen, dumped
from benchmarks.score_pictures import OF_A_FRAME, Scored, Worst, contact_sheet, remember
from demo.clip import load_truth
from demo.match import Match
from demo.truth import Truth
from gateway.tracking.keypoints import Keypoints, KeypointTracker
from gateway.tracking.tracker import Tracker
from gateway.tracking.tracks import TrackRows
from gateway.video.painted import PaintedLines
from touchline.answer import FrameAnswer, parse_answer
from touchline.answer_quality import measure
from touchline.pitch_lines import Sight
from touchline.render import probe
from touchline.score import Score, score_answer
from touchline.score_video import sights_of

LOW: Final = 0.9
"""A frame whose line is below loses something by it."""
AS_ANSWERED: Final = "as answered"
BOXES: Final = ("class right", "ball found", "ball right")
"""What is said of people and the ball, which are the same however keypoints are answered."""

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A clip, what the models say of it and what a validator sees in it."""

    name: str
    video: Path
    seen: Seen
    sights: dict[int, Sight]
    truth: list[Truth] | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="synthetic matches")
    parser.add_argument("--frames", type=int, default=400, help="frames of those")
    parser.add_argument("--demo", action="store_true", help="the clip of `make demo`")
    parser.add_argument("--video", type=Path, action="append", default=[], help="footage without truth")
    parser.add_argument("--fps", type=float, default=25.0, help="of the footage")
    parser.add_argument("--dumps", type=Path, default=Path("out/long_strides"))
    parser.add_argument("--every", type=int, default=1, help="look at every n-th picture: quicker, lines less exact")
    parser.add_argument("--stride", type=int, default=2, help="FRAME_STRIDE")
    parser.add_argument("--pitch-stride", type=int, default=10, help="PITCH_STRIDE")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write score_costs.jpg there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    arguments = parser.parse_args()
    console = Console()
    costs = Table("clip", title="points of 100 lost (frames below 0.9)", title_justify="left")
    ways = Table("clip", "keypoints answered", "score", "on lines", "found", "false", "a frame", *BOXES)
    numbers: dict[str, Any] = {}
    worst: dict[str, Worst] = {}
    for clip in recorded(console, arguments):
        rows, points = answered(clip, arguments.stride, arguments.pitch_stride)
        for way, keypoints in ways_of(clip, points).items():
            score, said, quality = judged(clip, rows, keypoints)
            numbers[f"{clip.name}, {way}"] = figures(score) | quality
            lines = score.parts[1].share
            shares = [f"{100 * quality[name]:.1f}" if name in quality else "" for name in ("found", "false")]
            count = f"{(keypoints != 0).any(axis=2).sum(axis=1).mean():.1f}"
            boxes = [f"{100 * quality[name]:.1f}" if way == AS_ANSWERED and name in quality else "" for name in BOXES]
            ways.add_row(clip.name, way, f"{100 * score.keypoints:.1f}", f"{100 * lines:.1f}", *shares, count, *boxes)
            if way == AS_ANSWERED:
                add_costs(costs, clip.name, score)
                shown = clip.truth is not None
                remember(worst, Scored(clip.name, clip.video, clip.seen.size, said, clip.sights, score, shown))
    if arguments.pictures:
        contact_sheet(worst, arguments.pictures / "score_costs.jpg")
    console.print(costs)
    report(console, ways, ["found and false: shares in %, within 2 % of the picture's width."], numbers, arguments)


def recorded(console: Console, arguments: argparse.Namespace) -> list[Recorded]:
    """The clips that are asked for, made, inferred and looked at now where they are not there."""
    matches = {"demo": Match()} if arguments.demo else {}
    matches |= {f"seed {seed}": Match(seed=seed, frames=arguments.frames) for seed in arguments.seeds}
    made: list[tuple[str, Path, float, list[Truth] | None]] = []
    for name, match in matches.items():
        clip = demo_clip(
            console, match, Path("out/clip") if name == "demo" else arguments.dumps / name.replace(" ", "_")
        )
        made.append((name, clip.video, match.fps, load_truth(clip.truth)))
    made += [(video.stem, video, arguments.fps, None) for video in arguments.video]
    clips = []
    for name, video, fps, truth in made:
        file = arguments.dumps / f"{name.replace(' ', '_')}.npz"
        seen = dumped(video, file, fps)
        clips.append(
            Recorded(
                name,
                video,
                seen,
                looked_at(video, file.with_suffix(f".sights{arguments.every}.npz"), arguments.every),
                truth,
            )
        )
    return clips


def looked_at(video: Path, file: Path, every: int) -> dict[int, Sight]:
    """What a validator sees in every n-th frame, from `file` or looked at now."""
    if not file.is_file():
        sights = sights_of(probe(video), every=every)
        np.savez_compressed(
            file,
            numbers=list(sights),
            pitch=[sight.pitch for sight in sights.values()],
            counts=[len(sight.segments) for sight in sights.values()],
            segments=np.concatenate([sight.segments for sight in sights.values()]),
        )
    with np.load(file) as stored:
        each = np.split(stored["segments"], np.cumsum(stored["counts"])[:-1])
        return {
            number: Sight(segments, pitch)
            for number, segments, pitch in zip(stored["numbers"].tolist(), each, stored["pitch"].tolist(), strict=True)
        }


def answered(clip: Recorded, stride: int, pitch_stride: int) -> tuple[TrackRows, Keypoints]:
    """Boxes of all frames, and the keypoints, as the gateway answers them."""
    frames, (width, _) = len(clip.seen.detections), clip.seen.size
    tracker = Tracker(fps=clip.seen.fps, width=width, frame_stride=stride, track_buffer=30, confidence=CONFIDENCE)
    keypoints = KeypointTracker()
    for number in sorted({*range(0, frames, stride), frames - 1}):
        tracker.update(number, clip.seen.detections[number])
        if number % pitch_stride == 0 or number == frames - 1:
            keypoints.add(number, clip.seen.keypoints[number])
    points = keypoints.finish(clip.seen.size).looked_at(lines_of(clip, stride), clip.seen.fps)
    return tracker.finish(points).rows(0, frames), points


def lines_of(clip: Recorded, stride: int) -> dict[int, npt.NDArray[np.float32]]:
    """The painted lines that the gateway sees in its slots."""
    painted, size = PaintedLines(clip.seen.fps), served_size()
    slot, last = np.empty((8, *size, 3), np.uint8), False
    with decoder(clip.video, stride, size) as decoding:
        info = decoding.open()
        while not last:
            filled = decoding.fill(slot)
            painted.look(slot, filled.frame_numbers, painted.due(filled.frame_numbers), info.letterbox)
            last = filled.last
    return painted.seen


def ways_of(clip: Recorded, points: Keypoints) -> dict[str, Points]:
    """Keypoints float64 [frames, 32, 2] to answer, by name."""
    every = np.arange(len(clip.seen.detections))
    ways = {AS_ANSWERED: points.answered(every), "all that are seen": points.at(every)}
    if clip.truth is not None:
        exact = np.stack([truth.keypoints for truth in clip.truth]).astype(np.float64)
        visible = np.where(exact[..., 2:] > 0, exact[..., :2], 0.0)
        same = (ways[AS_ANSWERED] != 0).any(axis=2, keepdims=True) & (exact[..., 2:] > 0)
        ways |= {"exact, the same": np.where(same, visible, ways[AS_ANSWERED]), "exact, all in sight": visible}
    return ways


def judged(
    clip: Recorded, rows: TrackRows, keypoints: Points
) -> tuple[Score, dict[int, FrameAnswer], dict[str, float]]:
    """The score of an answer, its frames, and where there is truth what of it is found."""
    frames = [
        {"frame_number": number, "keypoints": points, "objects": []}
        for number, points in enumerate(np.round(keypoints, 2).tolist())
    ]
    columns = rows.frame_numbers, rows.ids, rows.classes, np.round(rows.xyxy, 2)
    for number, track, class_id, box in zip(*(column.tolist() for column in columns), strict=True):
        frames[number]["objects"].append({"id": track, "bbox": box, "class_id": class_id})
    said, quality = parse_answer({"frames": frames}), {}
    if clip.truth is not None:
        found = measure({"frames": frames}, clip.truth, clip.seen.size[0])
        quality = {
            "found": found.keypoints_found,
            "false": found.keypoints_false,
            "class right": found.class_accuracy,
            "ball found": found.balls_found,
            "ball right": found.ball_precision,
        }
    score = score_answer(said, clip.sights, clip.seen.size, len(frames), seconds=4.0, fastest_s=2.0)
    return score, said, quality


def figures(score: Score) -> dict[str, Any]:
    return {
        "keypoints": score.keypoints,
        "boxes at best": score.boxes_at_best,
        "pictures of a pitch": score.pitch_frames,
        "lost": {part.name: part.lost for part in score.parts},
        "frames": {line: below(score, line) for line in OF_A_FRAME},
        "far from lines": dict(score.keypoint_costs),
    }


def below(score: Score, line: str) -> float:
    """Share of the frames looked at that lose something by a line."""
    values = np.array([getattr(frame, OF_A_FRAME[line]) for frame in score.frames])
    return float((values < LOW).sum() / max(1, np.isfinite(values).sum()))


def add_costs(costs: Table, name: str, score: Score) -> None:
    if len(costs.columns) == 1:
        for part in score.parts:
            costs.add_column(part.name)
    shares = [f" ({100 * below(score, part.name):.0f} %)" if part.name in OF_A_FRAME else "" for part in score.parts]
    costs.add_row(name, *(f"{part.lost:.1f}{share}" for part, share in zip(score.parts, shares, strict=True)))


if __name__ == "__main__":
    main()
