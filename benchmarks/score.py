"""What costs points: clips answered from recorded model outputs and scored by a validator's public rules, line by line.

    python -m benchmarks.score [--seeds 7 1234] [--demo] [--video CLIP.mp4] [--pictures docs]

Every frame of each clip is inferred by the bundled models and looked at as a validator would, once (minutes), and kept
in --dumps; answering and scoring again then takes seconds. Beside what the gateway answers stands what others would
earn: all keypoints that it knows, and the exact ones in their place, which no better model could pass. --pictures
draws the frame that loses the most by each line.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.common import decoder, demo_clip, report, served_size
from benchmarks.long_strides import CONFIDENCE, Seen, dumped
from demo.clip import load_truth
from demo.match import Match
from demo.truth import Truth
from gateway.tracking.keypoints import Keypoints, KeypointTracker
from gateway.tracking.tracker import Tracker
from gateway.tracking.tracks import TrackRows
from gateway.video.painted import PaintedLines
from touchline.answer import FrameAnswer, parse_answer
from touchline.answer_quality import measure
from touchline.pitch import LENGTH_CM, WIDTH_CM
from touchline.pitch_lines import Sight
from touchline.render import pictures, probe
from touchline.score import Score, fit_pitch, line_distances, score_answer
from touchline.score_video import sights_of

LOW: Final = 0.9
"""A frame whose line is below loses something by it."""
LINES: Final = {"homography": "fit", "on lines": "on_lines", "inside": "inside", "scene stability": "steady"}
"""Lines that a frame has by itself, and what FrameScore calls them."""
FAR: Final = 0.01
"""Of a keypoint from a line, in shares of the picture: it costs."""
LEAST_LOST: Final = 0.1
"""Points of 100: a line that loses less has no picture."""
PICTURE_WIDTH: Final = 800
PICTURE_BYTES: Final = 60_000
RED, YELLOW, WHITE = (0, 0, 255), (0, 255, 255), (255, 255, 255)

Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A clip, what the models say of it and what a validator sees in it."""

    name: str
    video: Path
    seen: Seen
    sights: dict[int, Sight]
    truth: list[Truth] | None


@dataclass(frozen=True, slots=True)
class Worst:
    """The frame that loses the most by a line."""

    share: float
    clip: Recorded
    said: dict[int, FrameAnswer]
    number: int


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
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write score_LINE.jpg there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    arguments = parser.parse_args()
    console = Console()
    costs = Table("clip", title="points of 100 lost (frames below 0.9)", title_justify="left")
    ways = Table("clip", "keypoints answered", "score", "on lines", "found", "false", "a frame")
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
            ways.add_row(clip.name, way, f"{100 * score.keypoints:.1f}", f"{100 * lines:.1f}", *shares, count)
            if way == "as answered":
                add_costs(costs, clip.name, score)
                remember(worst, clip, said, score)
    if arguments.pictures:
        for line, frame in worst.items():
            draw(frame, line, arguments.pictures / f"score_{line.replace(' ', '_')}.jpg")
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
    ways = {"as answered": points.answered(every), "all that are seen": points.at(every)}
    if clip.truth is not None:
        exact = np.stack([truth.keypoints for truth in clip.truth]).astype(np.float64)
        visible = np.where(exact[..., 2:] > 0, exact[..., :2], 0.0)
        same = (ways["as answered"] != 0).any(axis=2, keepdims=True) & (exact[..., 2:] > 0)
        ways |= {"exact, the same": np.where(same, visible, ways["as answered"]), "exact, all in sight": visible}
    return ways


def judged(
    clip: Recorded, rows: TrackRows, keypoints: Points
) -> tuple[Score, dict[int, FrameAnswer], dict[str, float]]:
    """The score of an answer, its frames, and where there is truth how many keypoints are found and how many false."""
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
        quality = {"found": found.keypoints_found, "false": found.keypoints_false}
    score = score_answer(said, clip.sights, clip.seen.size, len(frames), seconds=4.0, fastest_s=2.0)
    return score, said, quality


def figures(score: Score) -> dict[str, Any]:
    return {
        "keypoints": score.keypoints,
        "boxes at best": score.boxes_at_best,
        "pictures of a pitch": score.pitch_frames,
        "lost": {part.name: part.lost for part in score.parts},
        "frames": {line: below(score, line) for line in LINES},
        "far from lines": dict(score.keypoint_costs),
    }


def below(score: Score, line: str) -> float:
    """Share of the frames looked at that lose something by a line."""
    values = np.array([getattr(frame, LINES[line]) for frame in score.frames])
    return float((values < LOW).sum() / max(1, np.isfinite(values).sum()))


def add_costs(costs: Table, name: str, score: Score) -> None:
    if len(costs.columns) == 1:
        for part in score.parts:
            costs.add_column(part.name)
    shares = [f" ({100 * below(score, part.name):.0f} %)" if part.name in LINES else "" for part in score.parts]
    costs.add_row(name, *(f"{part.lost:.1f}{share}" for part, share in zip(score.parts, shares, strict=True)))


def remember(worst: dict[str, Worst], clip: Recorded, said: dict[int, FrameAnswer], score: Score) -> None:
    """Keep the frame that loses the most by each line that costs anything."""
    lost = {part.name: part.lost for part in score.parts}
    for line, name in LINES.items():
        seen = [frame for frame in score.frames if frame.number in clip.sights]
        frame = min(seen, key=lambda one: np.nan_to_num(getattr(one, name), nan=1.0))
        if lost[line] >= LEAST_LOST and (line not in worst or getattr(frame, name) < worst[line].share):
            worst[line] = Worst(getattr(frame, name), clip, said, frame.number)


def draw(worst: Worst, line: str, file: Path) -> None:
    """A frame with the lines that are seen in red, keypoints in white and yellow, boxes off the pitch in yellow."""
    number, clip, answer = worst.number, worst.clip, worst.said[worst.number]
    ((_, picture),) = pictures(probe(clip.video), PICTURE_WIDTH, frozenset({number}))
    zoom = PICTURE_WIDTH / clip.seen.size[0]
    for x1, y1, x2, y2 in np.round(clip.sights[number].segments * zoom).astype(int).tolist():
        cv2.line(picture, (x1, y1), (x2, y2), RED, 1, cv2.LINE_AA)
    off = line_distances(answer.keypoints, clip.sights[number].segments, clip.seen.size) > FAR
    before = worst.said[max(0, number - 1)].keypoints
    for index in np.flatnonzero(answer.seen).tolist():
        here = tuple(np.round(answer.keypoints[index] * zoom).astype(int).tolist())
        colour = YELLOW if off[index] else WHITE
        cv2.circle(picture, here, 4, colour, 1, cv2.LINE_AA)
        cv2.putText(picture, str(index + 1), (here[0] + 5, here[1] - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1)
        if line == "scene stability" and before[index].any():
            cv2.line(picture, here, tuple(np.round(before[index] * zoom).astype(int).tolist()), YELLOW, 2, cv2.LINE_AA)
    fit = fit_pitch(answer.keypoints, clip.seen.size)
    if line == "inside" and fit is not None:
        middles = (answer.boxes[:, :2] + answer.boxes[:, 2:]).astype(np.float64) / 2
        ground = cv2.perspectiveTransform(middles[None], fit.homography)[0]
        for box in answer.boxes[((ground < 0) | (ground > (LENGTH_CM, WIDTH_CM))).any(axis=1)]:
            x1, y1, x2, y2 = np.round(box * zoom).astype(int).tolist()
            cv2.rectangle(picture, (x1, y1), (x2, y2), YELLOW, 2)
    for quality in range(85, 20, -5):
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) < PICTURE_BYTES:
            break
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


if __name__ == "__main__":
    main()
