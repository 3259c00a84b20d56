"""Builds the app: wiring and lifespan."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial

from fastapi import FastAPI

from gateway.afterwards import Afterwards
from gateway.challenges import Challenges
from gateway.console.overview import look
from gateway.console.server import open_console
from gateway.doctor.finding import Finding
from gateway.inference.engine import Engine
from gateway.metrics import Metrics, value_of
from gateway.pace import Aim
from gateway.pipeline import Pipeline
from gateway.protocol.http import add_error_answers
from gateway.protocol.soccer import soccer_router
from gateway.protocol.status import status_router
from gateway.settings import Settings
from gateway.subnet.hotkey import load_hotkey
from gateway.subnet.metagraph import REFRESH_INTERVAL_S, Metagraph
from gateway.subnet.nonces import MemoryNonces, RedisNonces
from gateway.video.addresses import video_client
from gateway.video.codec import choose_decoder
from touchline import __version__

_log = logging.getLogger(__name__)


def build_app(settings: Settings, findings: Sequence[Finding] = ()) -> FastAPI:
    """The gateway, with the console's port taken. Raises StartupError when a setting or a file is wrong.

    `findings` are the doctor's, which the console shows.
    """
    own_hotkey = load_hotkey(settings.hotkey_file).ss58_address
    for name, value in settings.cuda_environment.items():
        os.environ.setdefault(name, value)  # before CUDA is first asked for anything, which NVDEC does
    nvdec = choose_decoder(settings.video_decoder if settings.on_gpu else "cpu") == "nvdec"
    redis_url = settings.nonce_redis_url.get_secret_value()
    redis = RedisNonces(redis_url, own_hotkey) if redis_url else None
    nonces = redis or MemoryNonces()
    metrics = Metrics()
    metagraph = Metagraph(settings)
    _watch_registration(metrics, metagraph, own_hotkey)
    metrics.budget.set(Aim.of(settings).budget_s)
    metrics.gpus.set(settings.gpu_count)
    metrics.metagraph_interval.set(REFRESH_INTERVAL_S if settings.refresh_nodes else 0)
    metrics.nonces_ready.set_function(lambda: float(not nonces.why_not_ready))
    _warn_of_no_effect(settings)
    busy = partial(_is_busy, metrics)
    console = open_console(settings, busy)
    history = console.history if console else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with video_client(
            connect_s=settings.download_timeout_s,
            allow_private=settings.allow_private_video_hosts,
            proxy=settings.video_proxy.get_secret_value(),
        ) as client:
            slots = settings.concurrent_challenges * settings.slots_per_challenge
            engine = app.state.engine = Engine(settings, metrics, slots=slots)
            pipeline = Pipeline(
                settings,
                metrics,
                engine,
                client=client,
                nvdec=nvdec,
                keep_stills=console is not None,
                hold_videos=Afterwards.wanted(settings),
            )
            challenges = app.state.challenges = Challenges(settings, metrics, engine, pipeline)
            afterwards = Afterwards(settings, metrics, busy)
            app.include_router(
                soccer_router(
                    challenges, metagraph, nonces, metrics, own_hotkey, history=history, afterwards=afterwards
                )
            )
            app.include_router(status_router(engine, challenges, metagraph, nonces, metrics))
            background = [asyncio.create_task(engine.watch_forever())]
            if redis is not None:
                background.append(asyncio.create_task(redis.watch_forever()))
            if settings.refresh_nodes:
                background.append(asyncio.create_task(metagraph.refresh_forever()))
            _log.info(
                "Touchline %s, hotkey %s, %d nodes, device %s", __version__, own_hotkey, len(metagraph), settings.device
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
            try:
                async with console.serving(view) if console else nullcontext():
                    yield
            finally:
                for task in background:
                    task.cancel()
                for task in background:
                    with suppress(asyncio.CancelledError):
                        await task
                await challenges.close()
                await asyncio.to_thread(afterwards.close)
                await engine.close()
                pipeline.close()
                if redis is not None:
                    await redis.close()

    app = FastAPI(
        title="Touchline", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    add_error_answers(app, metrics, history)
    return app


def _is_busy(metrics: Metrics) -> bool:
    return value_of(metrics.in_progress) > 0


def _watch_registration(metrics: Metrics, metagraph: Metagraph, own_hotkey: str) -> None:
    """What the metagraph says of this miner, read when it is scraped."""
    metrics.metagraph_age.set_function(lambda: metagraph.age_s if metagraph.age_s is not None else float("inf"))
    metrics.registered.set_function(lambda: float(metagraph.find(own_hotkey) is not None))
    metrics.incentive.set_function(lambda: node.incentive if (node := metagraph.find(own_hotkey)) else 0.0)
    metrics.metagraph_nodes.set_function(lambda: float(len(metagraph)))


def _warn_of_no_effect(settings: Settings) -> None:
    """Settings that are taken from old .env files and do not do what they say."""
    if settings.enable_torch_compile:
        _log.warning("ENABLE_TORCH_COMPILE has no effect: the engines are compiled by `touchline export`")
    if settings.device == "mps":
        _log.warning("DEVICE=mps: neither Triton nor the video decoder knows Apple's GPU, so it means DEVICE=cpu")
