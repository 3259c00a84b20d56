"""The benchmark of what costs points, on a made clip whose model outputs are recorded already."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import score
from benchmarks.score_pictures import TILE_WIDTH
from tests.touchline.made_scene import HEIGHT, WIDTH, grass_video, truths

FRAMES = 12


def test_costs_and_pictures_of_recorded_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = grass_video(tmp_path / "match.mp4", FRAMES)
    made = truths(FRAMES)
    player = np.stack([np.column_stack([truth.boxes, np.full(len(truth.boxes), 0.9), truth.classes]) for truth in made])
    pitch = np.stack([truth.keypoints for truth in made])
    np.savez(
        tmp_path / "match.npz",
        player=player.astype(np.float32),
        pitch=pitch.astype(np.float32),
        letterbox=[WIDTH, HEIGHT, WIDTH, HEIGHT],
    )
    monkeypatch.setattr(
        "sys.argv",
        [
            *("benchmarks/score.py", "--video", str(video), "--dumps", str(tmp_path), "--every", "4"),
            *("--pictures", str(tmp_path / "pictures"), "--json", str(tmp_path / "numbers.json")),
        ],
    )
    score.main()
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    as_answered = numbers["match, as answered"]
    assert as_answered["lost"]["homography"] < 1
    assert as_answered["lost"]["on lines"] == pytest.approx(40, abs=5), "bare grass has no lines"
    assert as_answered["frames"]["on lines"] == 1, "of those that were looked at"
    sheet = cv2.imread(str(tmp_path / "pictures" / "score_costs.jpg"))
    assert sheet is not None and sheet.shape[1] == 2 * TILE_WIDTH, "a picture for each line that costs anything"
