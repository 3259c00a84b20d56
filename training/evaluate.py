"""Tables of both models: `python -m training.evaluate --pitch FILE --pitch-data DIR --player FILE --player-data DIR`.

Works on exported ONNX files, through ONNX Runtime on the CPU. A server's answers can be scored with the same numbers:
`pitch_table` and `player_table` take any function from frames uint8 [1, H, W, 3] to the contract's output.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from demo.clip import load_truth
from touchline.contract import CLASS_NAMES, PITCH_MODEL, PLAYER_MODEL, Letterbox
from training.data import VISIBLE, Image, PitchSample, letterbox, load_pitch, load_views
from training.geometry import Points
from training.metrics import PitchScore, score_boxes, score_pitch
from training.player_data import PlayerSample, load_player_views, load_players

Model = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def onnx_model(path: Path, threads: int) -> tuple[Model, tuple[int, int]]:
    """A function over an exported file, and the (height, width) it takes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    height, width = session.get_inputs()[0].shape[1:3]

    def run(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.asarray(session.run(None, {session.get_inputs()[0].name: frames})[0], np.float32)

    return run, (height, width)


def served_model(url: str, name: str) -> tuple[Model, tuple[int, int]]:
    """A model that a Triton at `url` (host:port of gRPC) serves, and its input's height and width."""
    import tritonclient.grpc as grpcclient  # noqa: PLC0415  only with --triton

    client = grpcclient.InferenceServerClient(url)
    metadata = client.get_model_metadata(name)
    height, width = (int(side) for side in metadata.inputs[0].shape[1:3])

    def run(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        tensor = grpcclient.InferInput(metadata.inputs[0].name, list(frames.shape), "UINT8")
        tensor.set_data_from_numpy(frames)
        return np.asarray(client.infer(name, [tensor]).as_numpy(metadata.outputs[0].name), np.float32)

    return run, (height, width)


def keypoints_in(model: Model, image: Image, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Keypoints float32 [32, 3] in the picture's own pixels."""
    found = model(letterbox(image, size)[None])[0]
    box = Letterbox(image.shape[1], image.shape[0], size[1], size[0])
    return np.column_stack([box.to_source(found[:, :2]), found[:, 2]]).astype(np.float32)


def boxes_in(model: Model, image: Image, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Detections float32 [n, 6] in the picture's own pixels, the empty rows taken out."""
    found = model(letterbox(image, size)[None])[0]
    found = found[found[:, 4] > 0]
    box = Letterbox(image.shape[1], image.shape[0], size[1], size[0])
    corners = box.to_source(found[:, :4].reshape(-1, 2)).reshape(-1, 4)
    return np.column_stack([corners, found[:, 4:]]).astype(np.float32)


def pitch_table(
    model: Model, size: tuple[int, int], samples: Sequence[PitchSample], thresholds: Sequence[float] = (0.3, 0.5, 0.7)
) -> dict[float, PitchScore]:
    """Scores at several confidence thresholds."""
    pictures: list[tuple[Points, npt.NDArray[np.bool_], npt.NDArray[np.float32], tuple[int, int]]] = []
    for sample in samples:
        image = sample.image()
        predicted = keypoints_in(model, image, size)
        pictures.append((sample.points.astype(np.float64), sample.state == VISIBLE, predicted, image.shape[1::-1]))
    return {threshold: score_pitch(pictures, threshold) for threshold in thresholds}


def player_table(model: Model, size: tuple[int, int], samples: Sequence[PlayerSample]) -> dict[str, float]:
    """AP50 of each class. A file with a high confidence floor inside scores lower than its weights would."""
    return score_boxes([(sample.boxes, boxes_in(model, sample.image(), size)) for sample in samples])


def load_clip(folder: Path, step: int) -> tuple[list[PitchSample], list[PlayerSample]]:
    """Every `step`-th frame of a clip of demo.clip with its truth, as samples of both kinds."""
    capture = cv2.VideoCapture(str(folder / "match.mp4"))
    pitch, players = [], []
    for index, truth in enumerate(load_truth(folder / "truth.npz")):
        good, frame = capture.read()
        if not good:
            break
        if index % step:
            continue
        picture = bytes(cv2.imencode(".png", frame, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])
        state = (truth.keypoints[:, 2] > 0).astype(np.int8)
        pitch.append(PitchSample(f"frame {index}", picture, truth.keypoints[:, :2], state))
        boxes = np.column_stack([truth.classes, truth.boxes]).astype(np.float32)
        players.append(PlayerSample(f"frame {index}", picture, boxes))
    return pitch, players


def milliseconds(model: Model, size: tuple[int, int], runs: int = 50) -> tuple[float, float]:
    """Median and 95th percentile of one frame, in ms."""
    frame = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    model(frame)
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        model(frame)
        times.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(times)), float(np.percentile(times, 95))


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pitch", type=Path, help="pitch.onnx")
    parser.add_argument("--pitch-data", type=Path, help="the pitch set; its val split is scored")
    parser.add_argument("--player", type=Path, help="player.onnx")
    parser.add_argument("--player-data", type=Path, help="the player set; its val split is scored")
    parser.add_argument("--synthetic", type=Path, help="views of training.make_views with a seed not trained on")
    parser.add_argument("--clip", type=Path, help="match.mp4 and truth.npz of the demo; every 15th frame is scored")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--triton", metavar="HOST:PORT", help="score the models that a Triton serves, instead of files")
    options = parser.parse_args(argv)
    clip = load_clip(options.clip, 15) if options.clip else None
    if options.pitch or options.triton:
        model, size = (
            served_model(options.triton, PITCH_MODEL) if options.triton else onnx_model(options.pitch, options.threads)
        )
        sets = [("val", load_pitch(options.pitch_data, "val"))] if options.pitch_data else []
        sets += [("synthetic", load_views(options.synthetic))] if options.synthetic else []
        sets += [("clip", clip[0])] if clip else []
        for name, pitch_samples in sets:
            for threshold, score in pitch_table(model, size, pitch_samples).items():
                print(f"pitch  {name:9} n={len(pitch_samples)}  threshold {threshold}  {score.row()}")
        print("pitch  one frame: median {:.1f} ms, p95 {:.1f} ms".format(*milliseconds(model, size)))
    if options.player or options.triton:
        model, size = (
            served_model(options.triton, PLAYER_MODEL)
            if options.triton
            else onnx_model(options.player, options.threads)
        )
        boxes = [("val", load_players(options.player_data, "val"))] if options.player_data else []
        boxes += [("synthetic", load_player_views(options.synthetic))] if options.synthetic else []
        boxes += [("clip", clip[1])] if clip else []
        for name, player_samples in boxes:
            table = player_table(model, size, player_samples)
            row = "  ".join(f"{label} {table[label]:.3f}" for label in CLASS_NAMES)
            print(f"player {name:9} n={len(player_samples)}  AP50  {row}")
        print("player one frame: median {:.1f} ms, p95 {:.1f} ms".format(*milliseconds(model, size)))


if __name__ == "__main__":
    main()
