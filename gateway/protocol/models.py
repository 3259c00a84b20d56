"""The challenge and its answer, as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import BadChallenge, BadRequest
from gateway.pipeline import Answer

FRAMES_A_PIECE = 250
"""So many frames of the answer are in memory at once."""


class Challenge(BaseModel):
    """What a validator asks; unknown fields may appear."""

    model_config = ConfigDict(extra="ignore")

    challenge_id: int | Annotated[str, Field(min_length=1, max_length=256)]
    """Echoed as it came."""
    type: str = "gsr"
    video_url: str = Field(pattern=r"^https?://", max_length=4096)


def read_challenge(body: bytes) -> Challenge:
    """Raises BadRequest for what is no JSON, BadChallenge for JSON that is no challenge."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    try:
        return Challenge.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise BadChallenge(f"the challenge is not valid: {where}: {first['msg']}") from error


def response_json(challenge_id: int | str, answer: Answer, processing_s: float) -> Iterator[bytes]:
    """The subnet's answer, piece by piece: every frame under its number, source pixels with two decimals."""
    opening = orjson.dumps({"challenge_id": challenge_id, "processing_time": round(processing_s, 3), "frames": []})[:-2]
    for first in range(0, answer.frame_count, FRAMES_A_PIECE):
        yield opening + _frames_json(answer, first, min(answer.frame_count, first + FRAMES_A_PIECE))
        opening = b","
    yield b"]}"


def _frames_json(answer: Answer, first: int, stop: int) -> bytes:
    """The entries of the frames `first` to `stop` - 1, with commas between."""
    keypoints = np.round(answer.keypoints.at(np.arange(first, stop)), 2)
    rows = answer.tracks.rows(first, stop)
    boxes = np.round(rows.xyxy, 2).tolist()
    objects = [
        {"id": number, "bbox": box, "class_id": class_id}
        for number, box, class_id in zip(rows.ids.tolist(), boxes, rows.classes.tolist(), strict=True)
    ]
    starts = np.searchsorted(rows.frame_numbers, np.arange(first, stop + 1)).tolist()
    frames = [
        {"frame_number": first + index, "keypoints": points, "objects": objects[starts[index] : starts[index + 1]]}
        for index, points in enumerate(keypoints)
    ]
    return orjson.dumps(frames, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
