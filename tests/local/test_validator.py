"""What a validator would not accept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local.validator import ChallengeFailed, check_response


def answer(**changes: Any) -> dict[str, Any]:
    frames = [
        {
            "frame_number": number,
            "keypoints": [[0.0, 0.0]] * 32,
            "objects": [{"id": 1, "bbox": [1.0, 2.0, 3.0, 4.0], "class_id": 2}],
        }
        for number in range(3)
    ]
    return {"challenge_id": "c", "processing_time": 1.5, "frames": frames, **changes}


def test_a_good_answer() -> None:
    assert check_response(json.dumps(answer()).encode(), "c") == answer()


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (answer(challenge_id="d"), "for challenge d"),
        (answer(processing_time=None), "processing_time"),
        (answer(frames=[]), "empty"),
        (answer(frames=answer()["frames"][1:]), "lacks frame 0"),
        (answer(frames=[{**answer()["frames"][0], "keypoints": []}]), "keypoints"),
        (
            answer(frames=[{**answer()["frames"][0], "objects": [{"id": 1, "bbox": [3, 2, 1, 4], "class_id": 2}]}]),
            "box",
        ),
        (
            answer(frames=[{**answer()["frames"][0], "objects": [{"id": 1, "bbox": [1, 2, 3, 4], "class_id": 9}]}]),
            "class",
        ),
    ],
)
def test_what_is_wrong_is_named(response: dict[str, Any], said: str) -> None:
    with pytest.raises(ChallengeFailed, match=said):
        check_response(json.dumps(response).encode(), "c")


def test_no_json() -> None:
    with pytest.raises(ChallengeFailed, match="form"):
        check_response(b"{", "c")
