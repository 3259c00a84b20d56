"""Write pitch weights as the contract's ONNX file: `python -m training.export_pitch --weights PT --out ONNX`."""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx

from export.graph import to_onnx, with_preprocessing
from export.precision import half_stored
from export.rescale import Rescaled
from touchline.contract import DEFAULT_SIZE, KEYPOINTS
from training.pitch_model import DecodedPitch, load


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="best.pt of training.train_pitch")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, default=DEFAULT_SIZE, metavar=("H", "W"), help="served input")
    options = parser.parse_args(argv)
    core, size = DecodedPitch(load(options.weights)), tuple(options.size)
    module = core if size == DEFAULT_SIZE else Rescaled(core, size, DEFAULT_SIZE)
    to_onnx(with_preprocessing(module), options.out, size, KEYPOINTS)
    onnx.save(half_stored(onnx.load(options.out)), options.out)
    print(f"{options.out} {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
