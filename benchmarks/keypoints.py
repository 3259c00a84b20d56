"""What the filter along time does to the keypoints of a video: jitter and plausibility before and after."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as grpcclient
from rich.console import Console
from rich.table import Table

from benchmarks.common import report
from gateway.inference.outputs import Floats, keypoints_from_rows
from gateway.keypoints import keypoints_of_every_frame
from gateway.video.decode import Decoder
from gateway.video.download import GrowingFile
from touchline.answer_quality import plausibility
from touchline.contract import INPUT, KEYPOINTS, PITCH_MODEL
from touchline.local_triton import LocalTriton

STRIDES = (1, 2, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("--confidence", type=float, default=0.5, help="KEYPOINT_CONFIDENCE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    arguments = parser.parse_args()
    observed, size = every_frame(arguments.video, arguments.confidence)
    frames = len(observed)
    ways = {"as the model says": np.stack(observed).astype(np.float64)}
    for stride in STRIDES:
        numbers = sorted({*range(0, frames, stride), frames - 1})
        chosen = [observed[number] for number in numbers]
        ways[f"filtered, every {stride}"] = keypoints_of_every_frame(numbers, chosen, frames, size)
    table = Table("keypoints", "jitter px", "a frame", "inliers", "stability")
    figures = {}
    for name, points in ways.items():
        rows = [{"frame_number": n, "keypoints": frame.tolist(), "objects": []} for n, frame in enumerate(points)]
        plausible = plausibility({"frames": rows}, *size)
        jitter, seen = shaking(points), float((points != 0).any(axis=2).sum(axis=1).mean())
        table.add_row(
            name, f"{jitter:.2f}", f"{seen:.1f}", f"{plausible.inlier_ratio:.1%}", f"{plausible.keypoint_stability:.3f}"
        )
        figures[name] = {"jitter_px": jitter, "keypoints": seen, "inliers": plausible.inlier_ratio}
    report(Console(), table, ["Jitter: mean length of the second difference of a point's place."], figures, arguments)


def every_frame(video: Path, confidence: float) -> tuple[list[Floats], tuple[int, int]]:
    """The bundled pitch model's keypoints, float32 [32, 2] of each frame, and the video's width and height."""
    with LocalTriton(log=Path("out/logs/triton.log")) as triton, GrowingFile() as file:
        triton.wait_ready()
        client = grpcclient.InferenceServerClient(triton.grpc_url)
        height, width = client.get_model_metadata(PITCH_MODEL).inputs[0].shape[1:3]
        file.append(video.read_bytes())
        file.finish()
        points: list[Floats] = []
        with Decoder(
            file, size=(width, height), frame_stride=1, pitch_stride=1, max_frames=10**6, threads=2
        ) as decoder:
            info = decoder.open()
            slot, last = np.empty((8, height, width, 3), np.uint8), False
            while not last:
                filled = decoder.fill(slot)
                frames = slot[: len(filled.frame_numbers)]
                tensor = grpcclient.InferInput(INPUT, list(frames.shape), "UINT8")
                tensor.set_data_from_numpy(frames)
                rows = client.infer(PITCH_MODEL, [tensor]).as_numpy(KEYPOINTS)
                points += [keypoints_from_rows(each, info.letterbox, min_confidence=confidence) for each in rows]
                last = filled.last
    return points, info.letterbox.source_size


def shaking(points: npt.NDArray[np.float64]) -> float:
    """Mean length of the second difference over frames in a row, in px."""
    seen = (points != 0).any(axis=2)
    always = seen[2:] & seen[1:-1] & seen[:-2]
    return float(np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=2)[always].mean())


if __name__ == "__main__":
    main()
