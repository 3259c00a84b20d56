"""POST /challenge of the subnet's private track: a video or pictures in, what happened in them out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.challenges import Challenges
from gateway.errors import BadChallenge, ChallengeTimedOut
from gateway.history import History
from gateway.pace import Aim
from gateway.picture_clip import scene_of_pictures
from gateway.pipeline import Answer
from gateway.predictions import Picture, Predictions
from gateway.predictor import Predictor
from gateway.protocol.door import Door, admitted
from gateway.protocol.frames import LONGEST_URL, Frame, pictures_of, read_form
from gateway.protocol.http import (
    ClientGone,
    count_answered,
    count_client_gone,
    count_reply,
    remember,
    stages_of,
    until_disconnect,
)
from gateway.protocol.private_admission import Asked, PrivateAdmission
from gateway.protocol.status import why_not_ready
from gateway.scene import scene_of
from gateway.settings import Settings
from touchline import __version__
from touchline.actions import Action

PATH: Final = "/challenge"
MOST_FRAMES: Final = 1000
"""A clip of the subnet has 750."""
LIMIT_S: Final = 29.0
"""A validator waits 30 s, and an answer that comes later is worth nothing."""
BUDGET_S: Final = 20.0
"""What frames are inferred within: speed earns nothing here, and tracking and network take their time, too."""
_HTTP: Final = r"^$|^[Hh][Tt][Tt][Pp][Ss]?://"

_log = logging.getLogger(__name__)


class PrivateChallenge(BaseModel):
    """What is asked; unknown fields may appear. Football is asked with a video, maybe with its frames as pictures."""

    model_config = ConfigDict(extra="ignore")

    challenge_id: int | Annotated[str, Field(min_length=1, max_length=256)]
    video_url: str | None = Field(None, max_length=LONGEST_URL, pattern=_HTTP)
    image_url: str | None = Field(None, max_length=LONGEST_URL, pattern=_HTTP)
    frames: list[Frame] | None = Field(None, max_length=MOST_FRAMES)

    @model_validator(mode="after")
    def _asks_something(self) -> PrivateChallenge:
        if not (self.video_url or self.frames or self.image_url):
            raise ValueError("brings neither video_url nor frames nor image_url; send one of them")
        return self


def private_router(
    gate: PrivateAdmission,
    door: Door,
    challenges: Challenges,
    predictions: Predictions,
    predictor: Predictor,
    *,
    history: History | None = None,
) -> APIRouter:
    """The two routes, over what the lifespan built; `gate` guards the second at `door`."""
    router = APIRouter()
    door.guard("POST", PATH, gate.body)
    settings, metrics, engine = gate.settings, predictions.metrics, predictions.engine
    aim = private_aim(settings)
    if not settings.verify_enabled:
        _log.warning("VERIFY_ENABLED=false: POST /challenge takes anybody's word for who asks")

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        """What a spot-check waits for: 200 as soon as a challenge would be answered. Why not is the operator's."""
        ready = not why_not_ready(engine, gate.nonces)
        said = "ready: POST /challenge" if ready else "not ready: the log says why"
        return HTMLResponse(f"<title>Touchline {__version__}</title><p>{said}", status_code=200 if ready else 503)

    @router.post(PATH)
    async def challenge(request: Request) -> Response:
        asked: Asked = admitted(request)
        started = request.state.started
        try:
            async with asyncio.timeout(LIMIT_S - (time.perf_counter() - started)), AsyncExitStack() as held:
                wanted = await _placed(request, asked, held)
                answer, actions = await until_disconnect(request, _told(wanted, asked.stake))
        except ClientGone:
            return count_client_gone(metrics, history, request, "before the answer was ready")
        except TimeoutError as error:
            raise ChallengeTimedOut(
                f"not answered within {LIMIT_S:g} s, and validators wait for 30; ask for fewer frames with FRAME_STRIDE"
            ) from error
        if answer is None:
            count_reply(metrics)
            remember(history, request, "answered")
        else:
            stages = stages_of(answer.times, 0.0)
            count_answered(metrics, wanted.challenge_id, answer, stages)
            remember(history, request, "answered", answer=answer, stages=stages)
        _log.info("challenge %s: %d actions", wanted.challenge_id, len(actions))
        content = actions_json(wanted.challenge_id, actions, time.perf_counter() - started)
        return Response(content, media_type="application/json")

    async def _placed(request: Request, asked: Asked, held: AsyncExitStack) -> PrivateChallenge:
        """What is asked. Pictures want a place, kept by `held`; until then no other large body is read."""
        wanted = read_form(asked.body, PrivateChallenge, "challenge")
        request.state.challenge_id = wanted.challenge_id
        _log.info("challenge %s of %s, %s", wanted.challenge_id, asked.validator or "nobody", asked.form)
        if wanted.video_url:
            wanted.frames = None  # which may be large
        else:
            await held.enter_async_context(predictions.place())
        await asked.room.aclose()
        return wanted

    async def _told(wanted: PrivateChallenge, stake: float) -> tuple[Answer | None, list[Action]]:
        if not wanted.video_url:
            pictures = pictures_by_number(wanted, settings.max_video_frames)
            return None, await predictor(await scene_of_pictures(predictions, pictures, settings, aim.budget_s))
        answer = await challenges.answer(wanted.video_url, stake, aim)
        colours = answer.shirts.seen if answer.shirts is not None else {}
        scene = await asyncio.to_thread(scene_of, answer.tracks, answer.keypoints, colours, answer.frame_count)
        return answer, await predictor(scene)

    return router


def private_aim(settings: Settings) -> Aim:
    """As many frames as fit: speed earns nothing here. CHALLENGE_BUDGET_S counts where it is a shorter time."""
    budget = settings.challenge_budget_s
    seconds = BUDGET_S if budget == "auto" else min(BUDGET_S, budget)
    return Aim(settings.frame_stride, settings.effective_pitch_stride, seconds, by_score=False)


def pictures_by_number(wanted: PrivateChallenge, most: int) -> dict[int, Picture]:
    """The pictures of a challenge without a video, by frame number: its frames, or image_url as frame 0.

    Raises BadChallenge for numbers that no clip of at most so many frames has.
    """
    if not wanted.frames:
        return {0: Picture("image_url", None, wanted.image_url)}
    pictures: dict[int, Picture] = {}
    for frame, picture in zip(wanted.frames, pictures_of(wanted.frames), strict=True):
        if not 0 <= frame.frame_id < most:
            raise BadChallenge(f"{picture.name}: a clip has the frames 0 to {most - 1}, see MAX_VIDEO_FRAMES")
        if frame.frame_id in pictures:
            raise BadChallenge(f"{picture.name} comes twice; number each picture as its place in the clip")
        pictures[frame.frame_id] = picture
    return pictures


def actions_json(challenge_id: int | str, actions: Sequence[Action], processing_s: float) -> bytes:
    """The answer as the private track reads it."""
    items = [
        {"frame": action.frame, "action": action.label, "confidence": round(action.confidence, 3)} for action in actions
    ]
    return orjson.dumps(
        {
            "challenge_id": str(challenge_id),
            "prediction": {"type": "soccer_action", "items": items},
            "processing_time": round(processing_s, 3),
        }
    )
