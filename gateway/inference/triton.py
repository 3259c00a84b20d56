"""The Triton client: which models are served, and frames of a slot to output tensors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeVar

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio as grpcclient
from tritonclient.utils import InferenceServerException

from gateway.errors import InferenceFailed, InferenceUnavailable
from gateway.inference.slots import Slot, SlotPool, was_left
from touchline.contract import BALL_MODEL, DETECTIONS, INPUT, KEYPOINTS, PITCH_MODEL, PLAYER_MODEL

Transport = Literal["shared_memory", "bytes"]
Floats = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)
_OUTPUTS = {PLAYER_MODEL: DETECTIONS, PITCH_MODEL: KEYPOINTS, BALL_MODEL: DETECTIONS}
_REQUIRED = (PLAYER_MODEL, PITCH_MODEL)
_UNREGISTER_ATTEMPTS = 10
CHANNEL = [
    # A proxy of the environment is for the internet; Triton is our own.
    ("grpc.enable_http_proxy", 0),
    # As the client's own defaults: no limit.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC waits up to two minutes between attempts to connect, and so long a Triton that came back would not be used.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
"""Options of every gRPC channel to a Triton."""
_OTHER_PORTS = {"8000": "HTTP", "8002": "metrics"}
_REGION_GONE = "unable to find shared memory region"
_Result = TypeVar("_Result")
_under_way: set[asyncio.Task[Any]] = set()
"""Else nobody holds what goes on."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model of the contract that a Triton has ready; its input is uint8 [N, height, width, 3]."""

    name: str
    height: int
    width: int
    max_batch: int
    version: str


@dataclass(frozen=True, slots=True)
class ServedModels:
    """What Triton serves, as far as the contract leaves it open."""

    height: int
    width: int
    max_batch: int
    versions: dict[str, str]
    """Version served of each model, by name."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.versions)

    @property
    def has_ball_model(self) -> bool:
        return BALL_MODEL in self.versions

    def differences(self, wanted: ServedModels, batch: int) -> list[str]:
        """Why batches of `batch` frames made for `wanted` cannot be sent here; empty: they can."""
        said = [
            f"model {name} {self.versions.get(name, 'is missing')} instead of {wanted.versions.get(name, 'none')}"
            for name in sorted(self.versions.keys() | wanted.versions.keys())
            if self.versions.get(name) != wanted.versions.get(name)
        ]
        sizes = [f"{models.width}x{models.height}" for models in (self, wanted)]
        if sizes[0] != sizes[1]:
            said.append(f"frames of {sizes[0]} instead of {sizes[1]}")
        if max(self.max_batch, 1) < batch:
            said.append(f"batches of {self.max_batch} instead of {batch}, see BATCH_SIZE")
        return said


class Triton:
    """A connection to one Triton. Owns the registration of the slots' region there, not the region."""

    def __init__(self, address: str, *, shared_memory: Literal["auto", "system", "off"], timeout_s: float) -> None:
        self.address = address
        self._shared_memory = shared_memory
        self._timeout_s = timeout_s
        self._client = grpcclient.InferenceServerClient(address, channel_args=CHANNEL)
        self._registering = asyncio.Lock()
        self.pool: SlotPool | None = None
        """Whose slots can be sent there."""
        self.transport: Transport = "bytes"

    @property
    def attached(self) -> bool:
        """Slots can be sent there."""
        return self.pool is not None

    async def discover(self) -> ServedModels:
        """Ask what is served and check it against the contract.

        Raises InferenceUnavailable while Triton or a required model is not ready, InferenceFailed when a model
        does not keep the contract.
        """
        models = await self.models()
        missing = [name for name in _REQUIRED if name not in {model.name for model in models}]
        if missing:
            raise InferenceUnavailable(
                f"Triton at {self.address} does not serve {' and '.join(missing)}; export the models"
            )
        sizes = {model.name: (model.height, model.width) for model in models}
        if len(set(sizes.values())) != 1:
            raise InferenceFailed(f"the models want inputs of different sizes ({sizes}); export them with one --imgsz")
        height, width = sizes[PLAYER_MODEL]
        return ServedModels(
            height=height,
            width=width,
            max_batch=min(model.max_batch for model in models),
            versions={model.name: model.version for model in models},
        )

    async def models(self) -> list[ServedModel]:
        """The models of the contract that are ready, whichever these are.

        Raises InferenceUnavailable while Triton is not ready, InferenceFailed when an input is not the contract's.
        """
        try:
            if not await self._client.is_server_ready(client_timeout=self._timeout_s):
                raise InferenceUnavailable(f"Triton at {self.address} is not ready yet; try again soon")
            names = [
                name for name in _OUTPUTS if await self._client.is_model_ready(name, client_timeout=self._timeout_s)
            ]
            return [await self._model(name) for name in names]
        except InferenceServerException as error:
            raise self._translate(error) from error

    async def attach(self, pool: SlotPool) -> None:
        """Register the pool's region, or settle for bytes where Triton cannot reach it (another host)."""
        self.pool = pool
        if self._shared_memory == "off":
            self.transport = "bytes"
            return
        try:
            await self._register(pool)
            self.transport = "shared_memory"
        except InferenceServerException as error:
            if self._shared_memory == "system" or _is_connection_error(error):
                raise self._translate(error) from error
            _log.warning("Triton at %s cannot open the shared memory (%s): frames travel as bytes", self.address, error)
            self.transport = "bytes"

    async def detach(self) -> None:
        """Take the region back from Triton, if it is there to be told."""
        if self.pool is not None and self.transport == "shared_memory":
            await self._unregister(self.pool.region)
        self.pool = None

    async def infer(self, model: str, slot: Slot, count: int) -> Floats:
        """Run `model` on the first `count` frames of `slot`; float32 [count, ...] of the model's one output.

        No frames give an empty array without a word to Triton.

        Raises InferenceUnavailable when Triton cannot be reached, InferenceFailed when it answers with an error.
        """
        if count == 0:
            return np.empty((0,), np.float32)
        try:
            return await self._infer(model, slot, count)
        except InferenceServerException as error:
            if self.pool is None or _REGION_GONE not in str(error).lower():
                raise self._translate(error) from error
        # Triton was restarted since the region was registered.
        try:
            await self._register(self.pool)
            return await self._infer(model, slot, count)
        except InferenceServerException as error:
            raise self._translate(error) from error

    async def is_ready(self) -> bool:
        try:
            states = [await self._client.is_model_ready(name, client_timeout=2.0) for name in _REQUIRED]
        except InferenceServerException:
            return False
        return all(states)

    async def close(self) -> None:
        await self.detach()
        await self._client.close()

    async def __aenter__(self) -> Triton:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _model(self, name: str) -> ServedModel:
        config = (await self._client.get_model_config(name, client_timeout=self._timeout_s)).config
        if reason := queue_policy(config):
            _log.warning(
                "model %s at %s is served with %s: Triton leaves a request that comes while another is computed in its "
                "queue for up to 0.5 s. Delete that from its config.pbtxt, or export it again",
                *(name, self.address, reason),
            )
        metadata = await self._client.get_model_metadata(name, client_timeout=self._timeout_s)
        height, width = _input_size(name, config)
        return ServedModel(name, height, width, config.max_batch_size, max(metadata.versions, default="?"))

    async def _infer(self, model: str, slot: Slot, count: int) -> Floats:
        frames = slot.frames[:count]
        tensor = grpcclient.InferInput(INPUT, list(frames.shape), "UINT8")
        if self.transport == "shared_memory" and self.pool is not None:
            tensor.set_shared_memory(self.pool.region, frames.nbytes, slot.offset)
        else:
            tensor.set_data_from_numpy(frames)
        output = _OUTPUTS[model]
        result = await self._client.infer(
            model, [tensor], outputs=[grpcclient.InferRequestedOutput(output)], client_timeout=self._timeout_s
        )
        values = result.as_numpy(output)
        if values is None or len(values) != count:
            shape = None if values is None else values.shape
            raise InferenceFailed(f"model {model} answered {output} {shape} for {count} frames; export it again")
        return np.asarray(values, np.float32)

    async def _register(self, pool: SlotPool) -> None:
        async with self._registering:
            status = await self._client.get_system_shared_memory_status(client_timeout=self._timeout_s)
            if pool.region not in status.regions:
                await self._client.register_system_shared_memory(
                    pool.region, f"/{pool.region}", pool.byte_size, client_timeout=self._timeout_s
                )
            # It opened ours, so it sees the same names. What a killed gateway registered, it would hold for ever.
            for region in filter(was_left, status.regions):
                await self._unregister(region)

    async def _unregister(self, region: str) -> None:
        """Triton counts a region as in use for a moment after its reply, and refuses so long."""
        for attempt in range(1, _UNREGISTER_ATTEMPTS + 1):
            try:
                await self._client.unregister_system_shared_memory(region, client_timeout=2.0)
                return
            except InferenceServerException as error:
                if _is_connection_error(error) or attempt == _UNREGISTER_ATTEMPTS:
                    _log.debug("Triton at %s was not told that the region is gone: %s", self.address, error)
                    return
            await asyncio.sleep(0.1)

    def _translate(self, error: InferenceServerException) -> InferenceUnavailable | InferenceFailed:
        if _is_connection_error(error):
            other = _OTHER_PORTS.get(self.address.rpartition(":")[2])
            hint = f"{other} is what Triton has at this port, gRPC is at 8001" if other else "is it running?"
            return InferenceUnavailable(f"Triton at {self.address} cannot be reached ({error.message()}); {hint}")
        return InferenceFailed(f"Triton at {self.address} answered: {error.message()}")


def going_on(request: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
    """`request` under way, to be awaited shielded: who is cancelled meanwhile leaves it to its end.

    Triton may crash when a request is cancelled as it is answered (seen with 2.51, once in a few thousand).
    """
    task = asyncio.create_task(request)
    _under_way.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # whether or not anybody waits for it still


def _input_size(model: str, config: object) -> tuple[int, int]:
    for tensor in config.input:  # type: ignore[attr-defined]
        if tensor.name == INPUT and len(tensor.dims) == 3 and tensor.dims[2] == 3 and min(tensor.dims) > 0:
            return int(tensor.dims[0]), int(tensor.dims[1])
    raise InferenceFailed(f"model {model} has no input {INPUT!r} of [H, W, 3]; export it with `touchline export`")


def queue_policy(config: object) -> str:
    """What of a model's dynamic batching keeps Triton from taking requests in while it computes; empty: nothing.

    With any of it Triton prefetches nothing, and what comes while no instance is free wakes its batcher up no more
    (seen with Triton 2.51: half of such requests waited until its next look after 0.5 s).
    """
    batching = config.dynamic_batching  # type: ignore[attr-defined]
    names = ("priority_levels", "default_queue_policy", "priority_queue_policy")
    found = {field.name for field, _ in batching.ListFields()}
    return " and ".join(name for name in names if name in found)


def _is_connection_error(error: InferenceServerException) -> bool:
    status = str(error.status() or "")
    return status in {
        str(grpc.StatusCode.UNAVAILABLE),
        str(grpc.StatusCode.CANCELLED),
        str(grpc.StatusCode.DEADLINE_EXCEEDED),
    }
