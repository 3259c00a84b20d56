"""Builds the app: wiring and lifespan."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from gateway.afterwards import Afterwards
from gateway.challenges import Challenges
from gateway.console.overview import Overview, look
from gateway.console.server import Console, open_console
from gateway.doctor.finding import Finding
from gateway.errors import GatewayError, StartupError, UnknownCamera
from gateway.history import History
from gateway.inference.engine import Engine
from gateway.live.cameras import Cameras, camera_cas, camera_places, cameras_of
from gateway.live.config import CameraConfig
from gateway.live.rounds import SLOTS as LIVE_SLOTS
from gateway.live.routes import cameras_router
from gateway.live.viewer_routes import viewer_router
from gateway.live.viewers import Viewers
from gateway.metrics import Metrics, value_of
from gateway.operators_port import build_operators_app, listen, serving
from gateway.pace import Aim
from gateway.pipeline import Pipeline
from gateway.predictions import SLOTS as PREDICT_SLOTS
from gateway.predictions import Predictions
from gateway.predictor import predictor_of
from gateway.protocol.admission import Admission
from gateway.protocol.door import Door
from gateway.protocol.edge import Edge
from gateway.protocol.http import add_error_answers
from gateway.protocol.key_exchange import EXCHANGE_PATH, key_exchange_router
from gateway.protocol.predict import check_startable, predict_router
from gateway.protocol.private import private_router
from gateway.protocol.private_admission import PrivateAdmission
from gateway.protocol.soccer import PATH as SOCCER_PATH
from gateway.protocol.soccer import soccer_router
from gateway.protocol.status import status_router
from gateway.settings import Settings
from gateway.subnet.encryption import SharedKeys
from gateway.subnet.hotkey import load_hotkey
from gateway.subnet.metagraph import REFRESH_INTERVAL_S, Metagraph
from gateway.subnet.nonces import NonceStore, nonces_of
from gateway.video.addresses import video_client
from gateway.video.codec import choose_decoder
from touchline import __version__

_log = logging.getLogger(__name__)


class BehindTheDoor(FastAPI):
    """A FastAPI that only those get into who are let in: what it does before any route costs as much as a refusal."""

    def __init__(self, door: Door, **options: Any) -> None:
        super().__init__(**options)
        self._entrance = Edge(door.before(super().__call__))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._entrance(scope, receive, send)


def build_app(settings: Settings, findings: Sequence[Finding] = ()) -> FastAPI:
    """The gateway, with the console's port taken. Raises StartupError when a setting or a file is wrong.

    `findings` are the doctor's, which the console shows.
    """
    check_startable(settings)
    own_hotkey = address_of(settings)
    nvdec = _uses_nvdec(settings)
    nonces = nonces_of(settings, own_hotkey)
    metrics = Metrics()
    metagraph = Metagraph(settings)
    _tell_settings(metrics, settings)
    _watch_registration(metrics, metagraph, nonces, own_hotkey)
    predictor = predictor_of(settings) if "private" in settings.protocol_names else None
    console = open_console(settings, partial(_is_busy, metrics))
    metrics_port = listen(settings)
    history = console.history if console else None
    door = Door(metrics, history)
    configs = _cameras_at_start(settings, has_console=console is not None)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        metrics.tasks.set_function(partial(_count_tasks, asyncio.get_running_loop()))
        async with (
            video_client(
                connect_s=settings.download_timeout_s,
                allow_private=settings.allow_private_video_hosts,
                proxy=settings.video_proxy.get_secret_value(),
            ) as client,
            Afterwards(settings, metrics, partial(_is_busy, metrics)) as afterwards,
        ):
            engine = app.state.engine = Engine(settings, metrics, slots=_slots(settings))
            pipeline = Pipeline(
                settings,
                metrics,
                engine,
                client=client,
                nvdec=nvdec,
                keep_stills=console is not None,
                keep_shirts=bool({"private", "predict"} & set(settings.protocol_names)),
                look_for_lines="soccer" in settings.protocol_names,
                hold_videos=Afterwards.wanted(settings),
            )
            challenges = app.state.challenges = Challenges(settings, metrics, engine, pipeline)
            predictions = Predictions(settings, metrics, engine, client)
            admission = Admission(own_hotkey, metagraph, nonces, keys := SharedKeys())
            if "soccer" in settings.protocol_names:
                door.guard("POST", EXCHANGE_PATH, admission.exchange)
                door.guard("POST", SOCCER_PATH, admission.body)
                app.include_router(key_exchange_router(keys))
                app.include_router(soccer_router(challenges, metrics, afterwards, history=history))
            if "predict" in settings.protocol_names:
                app.include_router(predict_router(settings, predictions, challenges, door, history=history))
            if predictor is not None:
                gate = PrivateAdmission(settings, metagraph, nonces, own_hotkey)
                app.include_router(private_router(gate, door, challenges, predictions, predictor, history=history))
            cameras = app.state.cameras = _watch(settings, metrics, engine, challenges, configs)
            as_contract = "predict" in settings.protocol_names
            app.include_router(status_router(engine, challenges, nonces, as_contract=as_contract))
            operators = app.state.operators = build_operators_app(
                app, engine, metagraph, nonces, metrics, host=settings.metrics_host, cameras=cameras
            )
            lasting = [engine.watch_forever(), nonces.watch_forever(), *(one.run() for one in cameras)]
            judged = "private" in settings.protocol_names and settings.blacklist_enabled
            asks_chain = settings.refresh_nodes and (own_hotkey or judged)
            lasting += [metagraph.refresh_forever()] if asks_chain else []
            _log.info(
                "Touchline %s, hotkey %s, %d nodes, device %s",
                __version__,
                own_hotkey or "none",
                len(metagraph),
                settings.device,
            )
            view = partial(
                look,
                settings=settings,
                engine=engine,
                metagraph=metagraph,
                nonces=nonces,
                metrics=metrics,
                hotkey=own_hotkey,
                findings=findings,
            )
            ends = (challenges.close, engine.close, pipeline.close, predictions.close, nonces.close)
            async with (
                _background(lasting, ends),
                _shown(console, view, cameras, settings, metrics),
                serving(operators, metrics_port),
            ):
                yield

    app = BehindTheDoor(
        door, title="Touchline", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    add_error_answers(app, metrics, history)
    return app


def address_of(settings: Settings) -> str:
    """This miner's own; empty where no wallet is here and nothing that is asked has to be signed for it.

    Raises StartupError.
    """
    signed = {"soccer", "private"} if settings.verify_enabled else {"soccer"}
    if settings.hotkey_file.exists() or signed & set(settings.protocol_names):
        return load_hotkey(settings.hotkey_file).ss58_address
    _log.warning(
        "hotkey file %s is not there, and nothing here is signed for it: going on without", settings.hotkey_file
    )
    return ""


def _uses_nvdec(settings: Settings) -> bool:
    for name, value in settings.cuda_environment.items():
        os.environ.setdefault(name, value)  # before CUDA is first asked for anything, which NVDEC does
    return choose_decoder(settings.video_decoder if settings.on_gpu else "cpu") == "nvdec"


def _is_busy(metrics: Metrics) -> bool:
    return value_of(metrics.in_progress) > 0


def _count_tasks(loop: asyncio.AbstractEventLoop) -> float:
    return float(len(asyncio.all_tasks(loop)))


def _cameras_at_start(settings: Settings, *, has_console: bool) -> Sequence[CameraConfig]:
    """The cameras of CAMERAS_FILE. Raises StartupError."""
    if not settings.live:
        return []
    if not has_console:
        raise StartupError("LIVE=true wants the console's port, where cameras are seen: set CONSOLE_PORT")
    camera_places(settings)
    camera_cas(settings)
    configs = cameras_of(settings.cameras_file)
    most = settings.live_max_cameras
    if len(configs) > most:
        raise StartupError(f"CAMERAS_FILE has {len(configs)} cameras, LIVE_MAX_CAMERAS allows {most}")
    return configs


def _watch(
    settings: Settings, metrics: Metrics, engine: Engine, challenges: Challenges, configs: Sequence[CameraConfig]
) -> list[Cameras]:
    """The cameras with the first ones added; none with LIVE=false. Raises StartupError."""
    if not settings.live:
        return []
    cameras = Cameras(settings, metrics, engine, busy=lambda: challenges.in_progress > 0)
    try:
        for config in configs:
            cameras.add(config)
    except GatewayError as error:
        raise StartupError(f"CAMERAS_FILE: {error}") from error
    return [cameras]


def _slots(settings: Settings) -> int:
    """The sum of all shares that are ever held at once."""
    slots = settings.concurrent_challenges * settings.slots_per_challenge
    return slots + settings.concurrent_predictions * PREDICT_SLOTS + (LIVE_SLOTS if settings.live else 0)


@asynccontextmanager
async def _background(
    lasting: Sequence[Coroutine[None, None, None]], ends: Sequence[Callable[[], Awaitable[None] | None]]
) -> AsyncIterator[None]:
    """Run what lasts during the block; after it, end it, and then all that was opened, in this order."""
    tasks = [asyncio.create_task(one) for one in lasting]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        for end in ends:
            ending = end()
            if ending is not None:
                await ending


def _tell_settings(metrics: Metrics, settings: Settings) -> None:
    """What the settings say that alerts compare with."""
    _warn_of_no_effect(settings)
    metrics.budget.set(Aim.of(settings).budget_s)
    metrics.gpus.set(settings.gpu_count)
    metrics.metagraph_interval.set(REFRESH_INTERVAL_S if settings.refresh_nodes else 0)


@asynccontextmanager
async def _shown(
    console: Console | None,
    view: Callable[[History], Overview],
    cameras: Sequence[Cameras],
    settings: Settings,
    metrics: Metrics,
) -> AsyncIterator[None]:
    """During the block the operator sees the console, and the cameras in it."""
    if console is None:
        yield
        return
    viewers = [
        Viewers(settings, metrics, one.views, one.describe, on_shown=partial(_count_shown, one)) for one in cameras
    ]
    async with console.serving(view, [*map(cameras_router, cameras), *map(viewer_router, viewers)]):
        try:
            yield
        finally:
            for one in viewers:
                await one.close()


def _count_shown(cameras: Cameras, name: str) -> None:
    with suppress(UnknownCamera):
        cameras.get(name).shown += 1


def _watch_registration(metrics: Metrics, metagraph: Metagraph, nonces: NonceStore, own_hotkey: str) -> None:
    """What the metagraph says of this miner, and whether nonces can be judged, read when it is scraped."""
    metrics.nonces_ready.set_function(lambda: float(not nonces.why_not_ready))
    metrics.metagraph_age.set_function(lambda: metagraph.age_s if metagraph.age_s is not None else float("inf"))
    # Not a number where nobody is to be registered: alerts compare it with 0.
    metrics.registered.set_function(lambda: float(metagraph.find(own_hotkey) is not None) if own_hotkey else math.nan)
    metrics.incentive.set_function(lambda: node.incentive if (node := metagraph.find(own_hotkey)) else 0.0)
    metrics.metagraph_nodes.set_function(lambda: float(len(metagraph)))


def _warn_of_no_effect(settings: Settings) -> None:
    """Settings that are taken from old .env files and do not do what they say."""
    if settings.enable_torch_compile:
        _log.warning("ENABLE_TORCH_COMPILE has no effect: the engines are compiled by `touchline export`")
    if settings.device == "mps":
        _log.warning("DEVICE=mps: neither Triton nor the video decoder knows Apple's GPU, so it means DEVICE=cpu")
