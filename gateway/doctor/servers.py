"""Checks of the servers beside the gateway: Triton, Redis, and whoever tells the time."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import Final

import tritonclient.grpc.aio as grpcclient
from tritonclient.utils import InferenceServerException

from gateway.doctor.finding import Finding, bad, good, warning
from gateway.errors import GatewayError, StartupError
from gateway.inference.slots import SlotPool
from gateway.inference.triton import ServedModels, Triton
from gateway.settings import Settings
from gateway.subnet.nonces import RedisNonces

TRITON_TIMEOUT_S: Final = 10.0
TIME_SERVER: Final = "time.cloudflare.com"
NTP_PORT: Final = 123
_NTP_EPOCH: Final = 2_208_988_800
"""Seconds from 1900, where NTP counts from, to 1970."""


async def triton(address: str, settings: Settings) -> list[Finding]:
    """One Triton: whether it answers, what it serves by which engine, how frames travel and how long one takes."""
    about = f"Triton {address}"
    start = "start it: docker compose up -d triton, or `touchline triton`"
    if (why := _not_connectable(address)) is not None:
        return [bad(about, why, start)]
    client = Triton(address, shared_memory=settings.triton_shared_memory, timeout_s=TRITON_TIMEOUT_S)
    try:
        models = await client.discover()
        served = ", ".join(f"{name} {version}" for name, version in models.versions.items())
        says = f"{served}, input {models.width}x{models.height}, batches to {models.max_batch}, "
        found = [good(about, says + await _engines(address, models))]
        if "img_size" in settings.model_fields_set and models.width != settings.img_size:
            found.append(warning(about, f"IMG_SIZE is {settings.img_size}", "the models decide: take it out"))
        if settings.batch_size > models.max_batch:
            found.append(
                warning(about, f"BATCH_SIZE is {settings.batch_size}", f"the models take {models.max_batch}: lower it")
            )
        return [*found, *await _tried(client, about, models, settings)]
    except GatewayError as error:
        says, _, remedy = str(error).rpartition("; ")
        if address.endswith((":8000", ":8002")):
            remedy = "gRPC is at 8001, 8000 is its HTTP and 8002 its metrics"
        return [bad(about, says or str(error), remedy if says else start)]
    finally:
        await client.close()


async def _tried(client: Triton, about: str, models: ServedModels, settings: Settings) -> list[Finding]:
    """A frame through every model, twice: the first wakes them up, the second is timed."""
    pool = SlotPool(slots=1, slot_shape=(1, models.height, models.width, 3))
    try:
        await client.attach(pool)
        slot = await pool.acquire()
        slot.frames[:] = 0
        for name in models.names:
            await client.infer(name, slot, 1)
        took: dict[str, float] = {}
        for name in models.names:
            began = time.perf_counter()
            await client.infer(name, slot, 1)
            took[name] = time.perf_counter() - began
        await client.detach()
    finally:
        pool.close()
    found = [good(about, "one frame in " + ", ".join(f"{1000 * s:.0f} ms ({name})" for name, s in took.items()))]
    if client.transport == "bytes" and settings.triton_shared_memory != "off":
        found.append(
            warning(
                about,
                "frames travel as bytes, it cannot open this host's shared memory",
                "on one host both want the same /dev/shm and user, and Triton --allow-client-shm=true",
            )
        )
    return found


async def redis(url: str) -> Finding:
    """Whether nonces can be kept where NONCE_REDIS_URL says."""
    if not url:
        return good("nonces", "kept in this process; several gateways of one hotkey need NONCE_REDIS_URL")
    try:
        nonces = RedisNonces(url, "doctor")
    except StartupError as error:
        says, _, remedy = str(error).partition("; ")
        return bad("Redis", says, remedy)
    try:
        await nonces.check()
    except GatewayError as error:
        says, _, remedy = str(error).rpartition("; ")
        return bad("Redis", says, f"{remedy} Every challenge would be refused")
    finally:
        await nonces.close()
    return good("Redis", f"{nonces.kept_in} takes nonces")


def clock_offset(server: str = TIME_SERVER, port: int = NTP_PORT, timeout_s: float = 2.0) -> float | None:
    """Seconds that this host's clock is behind a time server's (SNTP, RFC 4330); None where it does not answer."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(timeout_s)
            asking.connect((server, port))
            sent = time.time()
            asking.send(b"\x1b" + bytes(47))
            reply = asking.recv(512)
            received = time.time()
    except OSError:
        return None
    if len(reply) < 48 or reply[1] == 0:  # a stratum of 0 refuses
        return None
    arrived, left = (
        seconds - _NTP_EPOCH + fraction / 2**32
        for seconds, fraction in (struct.unpack("!II", reply[at : at + 8]) for at in (32, 40))
    )
    return float((arrived - sent) + (left - received)) / 2


async def _engines(address: str, models: ServedModels) -> str:
    """Which backends run the models."""
    try:
        async with (
            grpcclient.InferenceServerClient(address, channel_args=[("grpc.enable_http_proxy", 0)]) as client,
            asyncio.timeout(TRITON_TIMEOUT_S),
        ):
            configs = [(await client.get_model_config(name)).config for name in models.names]
    except (InferenceServerException, TimeoutError) as error:
        return f"engine unknown ({error})"
    return "by " + " and ".join(dict.fromkeys(config.backend or config.platform or "?" for config in configs))


def _not_connectable(address: str) -> str | None:
    """Why nobody listens there, in less time than gRPC takes to say so; None where somebody does."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return None if address.startswith(("unix:", "dns:", "ipv4:", "ipv6:")) else "is not host:port; gRPC is at 8001"
    if address.startswith(("unix:", "dns:", "ipv4:", "ipv6:")):
        return None
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
    except (OSError, OverflowError) as error:
        return f"nobody answers: {getattr(error, 'strerror', None) or error}"
    return None
