"""POST /challenge of the subnet's private track: a video in, what happened in it out."""

from __future__ import annotations

import asyncio
import html
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from gateway.challenges import Challenges
from gateway.errors import BadChallenge, ChallengeTimedOut, GatewayError, Unauthorized
from gateway.history import History
from gateway.inference.engine import Engine
from gateway.metrics import Metrics
from gateway.pace import Aim
from gateway.pipeline import Answer
from gateway.predictor import Predictor
from gateway.protocol.door import admitted
from gateway.protocol.http import (
    ClientGone,
    count_answered,
    count_client_gone,
    discard_body,
    read_body,
    read_challenge,
    remember,
    stages_of,
    until_disconnect,
)
from gateway.protocol.status import why_not_ready
from gateway.scene import scene_of
from gateway.settings import Settings
from gateway.subnet.metagraph import Metagraph
from gateway.subnet.nonces import NonceStore
from gateway.subnet.private_signing import check_private_nonce, read_private_credentials, signed_form
from gateway.subnet.signing import VALIDATOR_HOTKEY, Credentials
from touchline import __version__
from touchline.actions import Action

PATH: Final = "/challenge"
MAX_BODY_BYTES: Final = 1024 * 1024
LIMIT_S: Final = 29.0
"""A validator waits 30 s, and an answer that comes later is worth nothing."""
BUDGET_S: Final = 20.0
"""What frames are inferred within: speed earns nothing here, and tracking and network take their time, too."""

_log = logging.getLogger(__name__)


class PrivateChallenge(BaseModel):
    """What is asked; unknown fields may appear. Football is asked with a video, other elements with a picture."""

    model_config = ConfigDict(extra="ignore")

    challenge_id: int | Annotated[str, Field(min_length=1, max_length=256)]
    video_url: str | None = Field(None, max_length=16 * 1024, pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://")
    image_url: str | None = Field(None, max_length=16 * 1024)
    frames: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What was let in."""

    body: bytes
    form: str
    """How it is signed."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Who may ask, as VERIFY_ENABLED and BLACKLIST_ENABLED say."""

    settings: Settings
    metagraph: Metagraph
    nonces: NonceStore
    own_hotkey: str

    async def admit(self, request: Request) -> Asked:
        """Look for whom it is, when, who, with what stake, and only then at the body and its signature.

        Raises Unauthorized, Forbidden, BadRequest or NoncesUnavailable.
        """
        try:
            credentials, names = self._named(request)
        except GatewayError:
            await discard_body(request, MAX_BODY_BYTES)
            raise
        body = await read_body(request, MAX_BODY_BYTES)
        if credentials is None:
            return Asked(body, "not verified")
        form = signed_form(credentials, body, self.own_hotkey)
        await self.nonces.use(credentials.validator_hotkey, credentials.nonce)
        return Asked(body, f"signed as {form} in {names}")

    def _named(self, request: Request) -> tuple[Credentials | None, str]:
        """Who says to be asking, if that one may; needs no body and no cryptography. None: it may be anybody."""
        if not self.settings.verify_enabled:
            if self.settings.blacklist_enabled:
                self.metagraph.check_stake(_asker(request))
            return None, ""
        credentials, names = read_private_credentials(request.headers)
        if credentials.miner_hotkey not in ("", self.own_hotkey):
            raise Unauthorized(f"the request is for miner {credentials.miner_hotkey[:64]}, this is {self.own_hotkey}")
        check_private_nonce(credentials.nonce)
        if self.settings.blacklist_enabled:
            self.metagraph.check_stake(credentials.validator_hotkey)
        return credentials, names

    def stake_of(self, request: Request) -> float:
        """By which requests that wait for a place are ordered; 0 for who may be anybody."""
        node = self.metagraph.find(_asker(request)) if self.settings.verify_enabled else None
        return node.stake if node else 0.0


def private_router(
    gate: Gate,
    challenges: Challenges,
    engine: Engine,
    predictor: Predictor,
    *,
    metrics: Metrics,
    history: History | None = None,
) -> APIRouter:
    """The two routes, over what the lifespan built; Gate.admit guards the challenge."""
    router = APIRouter()
    aim = private_aim(gate.settings)
    if not gate.settings.verify_enabled:
        _log.warning("VERIFY_ENABLED=false: POST /challenge takes anybody's word for who asks")

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        """What a spot-check waits for: 200 as soon as a challenge would be answered."""
        reason = why_not_ready(engine, gate.nonces)
        said = f"not ready: {html.escape(reason)}" if reason else "ready: POST /challenge"
        return HTMLResponse(f"<title>Touchline {__version__}</title><p>{said}", status_code=503 if reason else 200)

    @router.post(PATH)
    async def challenge(request: Request) -> Response:
        asked: Asked = admitted(request)
        started = request.state.started
        wanted = read_challenge(asked.body, PrivateChallenge)
        request.state.challenge_id = wanted.challenge_id
        _log.info("challenge %s of %s, %s", wanted.challenge_id, _asker(request) or "nobody", asked.form)
        try:
            async with asyncio.timeout(LIMIT_S):
                answer, actions = await until_disconnect(request, _told(video_of(wanted), gate.stake_of(request)))
        except ClientGone:
            return count_client_gone(metrics, history, request, "before the answer was ready")
        except TimeoutError as error:
            raise ChallengeTimedOut(
                f"not answered within {LIMIT_S:g} s, and validators wait for 30; ask for fewer frames with FRAME_STRIDE"
            ) from error
        stages = stages_of(answer.times, 0.0)
        count_answered(metrics, wanted.challenge_id, answer, stages)
        remember(history, request, "answered", answer=answer, stages=stages)
        _log.info("challenge %s: %d actions", wanted.challenge_id, len(actions))
        content = actions_json(wanted.challenge_id, actions, time.perf_counter() - started)
        return Response(content, media_type="application/json")

    async def _told(video_url: str, stake: float) -> tuple[Answer, list[Action]]:
        answer = await challenges.answer(video_url, stake, aim)
        colours = answer.shirts.seen if answer.shirts is not None else {}
        scene = await asyncio.to_thread(scene_of, answer.tracks, answer.keypoints, colours, answer.frame_count)
        return answer, await predictor(scene)

    return router


def private_aim(settings: Settings) -> Aim:
    """As many frames as fit: speed earns nothing here. CHALLENGE_BUDGET_S counts where it is a shorter time."""
    budget = settings.challenge_budget_s
    seconds = BUDGET_S if budget == "auto" else min(BUDGET_S, budget)
    return Aim(settings.frame_stride, settings.effective_pitch_stride, seconds, by_score=False)


def video_of(wanted: PrivateChallenge) -> str:
    """Where the video is. Raises BadChallenge for a challenge of another element."""
    if wanted.video_url:
        return wanted.video_url
    asked = "image_url" if wanted.image_url else "frames" if wanted.frames else "nothing"
    raise BadChallenge(
        f"the challenge brings {asked} and no video_url: this miner answers football, the element that is registered "
        "with `touchline register --element` has to be that"
    )


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


def _asker(request: Request) -> str:
    return request.headers.get(VALIDATOR_HOTKEY) or request.headers.get(f"x-{VALIDATOR_HOTKEY}") or ""
