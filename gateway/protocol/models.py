"""The challenge and its answer, as JSON."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import BadChallenge, BadRequest
from gateway.pipeline import Answer


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


def response_json(challenge_id: int | str, answer: Answer, processing_s: float) -> bytes:
    """The subnet's answer: every frame under its number, pixels of the source video with two decimals."""
    keypoints = np.ascontiguousarray(np.round(answer.keypoints, 2))
    tracks = answer.tracks
    boxes = np.round(tracks.xyxy, 2).tolist()
    ids = tracks.ids.tolist()
    classes = tracks.classes.tolist()
    starts = np.searchsorted(tracks.frame_numbers, np.arange(answer.frame_count + 1)).tolist()
    frames = [
        {
            "frame_number": number,
            "keypoints": keypoints[number],
            "objects": [
                {"id": ids[row], "bbox": boxes[row], "class_id": classes[row]}
                for row in range(starts[number], starts[number + 1])
            ],
        }
        for number in range(answer.frame_count)
    ]
    response = {"challenge_id": challenge_id, "processing_time": round(processing_s, 3), "frames": frames}
    return orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY)
