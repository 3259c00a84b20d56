"""Write pitch weights as the contract's ONNX file: `python -m training.export_pitch --weights PT --out ONNX`."""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx

from export.graph import to_onnx, with_preprocessing
from export.precision import half_stored
from touchline.contract import DEFAULT_SIZE, KEYPOINTS
from training.pitch_model import DecodedPitch, load


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="best.pt of training.train_pitch")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    to_onnx(with_preprocessing(DecodedPitch(load(options.weights))), options.out, DEFAULT_SIZE, KEYPOINTS)
    onnx.save(half_stored(onnx.load(options.out)), options.out)
    print(f"{options.out} {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
