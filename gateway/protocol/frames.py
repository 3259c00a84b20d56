"""Pictures in the body of a request, as the subnet's newer contracts send them: read with bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import numpy as np
import orjson
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.errors import BadRequest, RequestTimedOut
from gateway.predictions import Picture
from gateway.protocol.http import BODY_TIMEOUT_S, discard_body, validated

MOST_VALUES: Final = 100_000
"""Of a body: each costs many times its bytes in memory, and pictures are few."""
LONGEST_URL: Final = 16 * 1024
DISCARDED_BYTES: Final = 64 * 1024
"""Of a body that is refused: who sends more sees the connection end."""
_AT_ONCE: Final = 1024 * 1024

_Form = TypeVar("_Form", bound=BaseModel)


class Frame(BaseModel):
    """One picture: base64, where it lies, or both."""

    model_config = ConfigDict(extra="ignore")

    frame_id: int = Field(ge=-(2**63), lt=2**63)
    url: str | None = Field(None, max_length=LONGEST_URL)
    data: str | None = None

    @model_validator(mode="after")
    def _is_somewhere(self) -> Frame:
        if not (self.data or self.url):
            raise ValueError("has neither data nor url")
        return self


def pictures_of(frames: Sequence[Frame]) -> list[Picture]:
    return [Picture(f"frame {frame.frame_id}", frame.data or None, frame.url) for frame in frames]


async def read_pictures(request: Request, limit: int) -> bytearray:
    """The body. Raises BadRequest as soon as there is more than `limit`, or where more is announced.

    Raises RequestTimedOut when nothing comes for BODY_TIMEOUT_S.
    """
    too_large = BadRequest(f"the body is larger than MAX_PREDICT_MB allows ({limit // 2**20} MiB); send fewer frames")
    if announced_bytes(request) > limit:
        await discard_body(request, limit)
        raise too_large
    body, now = bytearray(), asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S) as silence:
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    body.clear()
                    with suppress(RuntimeError):  # that was all of it
                        await discard_body(request, limit)
                    raise too_large
                silence.reschedule(now() + BODY_TIMEOUT_S)
    except TimeoutError as error:
        raise RequestTimedOut(f"nothing more of the body came for {BODY_TIMEOUT_S:g} s; send URLs") from error
    return body


def announced_bytes(request: Request) -> int:
    """What the request says of the length of its body; 0 where it says nothing."""
    said = request.headers.get("content-length", "")
    return int(said) if said.isdecimal() else 0


def commas(body: bytearray) -> int:
    """As bytearray.count, in a fifth of the time: of a large body that is worth it."""
    codes = np.frombuffer(body, np.uint8)
    return sum(int(np.count_nonzero(codes[at : at + _AT_ONCE] == ord(","))) for at in range(0, len(codes), _AT_ONCE))


def read_form(body: bytearray, form: type[_Form], what: str) -> _Form:
    """A request of this `form`, called `what` in messages. Empties `body`.

    Raises BadRequest for what is no JSON, BadChallenge for JSON that is none of this form.
    """
    if commas(body) > MOST_VALUES:  # which base64 does not have; how deep values lie in each other is bounded too
        raise BadRequest(f"the body has more than {MOST_VALUES} values; send frames and a small meta")
    try:
        payload: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error.msg}; send one object") from error
    body.clear()
    return validated(payload, form, what)
