"""Several Tritons as one: which of them are ready, and each request to the one with the least to do."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from gateway.errors import GatewayError, InferenceFailed, InferenceUnavailable
from gateway.inference.slots import Slot
from gateway.inference.triton import Floats, Triton, going_on
from gateway.metrics import Metrics

REPEAT_S = 60.0
"""So often it is said in the log why a Triton takes no requests, as long as it does not."""
RETURN_CHECK_S = 0.2
"""So often the Tritons are asked whether one is back, while a request waits for that."""
LEFT_S = 5.0
"""So long the end waits for requests whose answers nobody wants any more."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Host:
    """One Triton, and what was asked of it."""

    triton: Triton
    why_not_ready: GatewayError | None
    """None while requests go there."""
    requests: dict[asyncio.Task[Floats], int] = field(default_factory=dict)
    """Frames of each request in flight, those included whose answer nobody wants any more."""
    unwanted: set[asyncio.Task[Floats]] = field(default_factory=set)
    """These."""
    complaint: tuple[str, float] = ("", 0.0)
    """What the log last said of why it takes no requests, and when, on time.monotonic's clock."""

    @property
    def address(self) -> str:
        return self.triton.address

    @property
    def ready(self) -> bool:
        return self.why_not_ready is None

    @property
    def frames_in_flight(self) -> int:
        return sum(self.requests.values())


class Tritons:
    """Connections to the Tritons of TRITON_URLS. Who is ready is the engine's to say, who is lost also `infer`'s."""

    def __init__(
        self,
        addresses: Sequence[str],
        metrics: Metrics,
        *,
        shared_memory: Literal["auto", "system", "off"],
        timeout_s: float,
    ) -> None:
        self._retries = metrics.triton_retries
        self.hosts = [
            Host(
                Triton(address, shared_memory=shared_memory, timeout_s=timeout_s),
                InferenceUnavailable(f"Triton at {address} was not asked yet"),
            )
            for address in addresses
        ]
        for host in self.hosts:
            metrics.triton_ready.labels(host.address).set_function(partial(_one_when_ready, host))
            metrics.triton_frames.labels(host.address).set_function(partial(_frames_in_flight, host))
            metrics.triton_retries.labels(host.address)

    @property
    def ready_hosts(self) -> list[Host]:
        return [host for host in self.hosts if host.ready]

    @property
    def ready(self) -> bool:
        """At least one takes requests."""
        return any(host.ready for host in self.hosts)

    @property
    def why_not_ready(self) -> str:
        return "" if self.ready else "; ".join(str(host.why_not_ready) for host in self.hosts)

    @property
    def states(self) -> dict[str, str]:
        """By address: "ready", or why no request goes there."""
        return {host.address: "ready" if host.ready else str(host.why_not_ready) for host in self.hosts}

    async def infer(self, model: str, slot: Slot, count: int, *, until: float = 0.0) -> Floats:
        """Run `model` on the first `count` frames of `slot` where the fewest frames are in flight; see Triton.infer.

        What one Triton does not answer, another is asked. When none is left, the one that is back first, if that is
        before `until` on time.perf_counter's clock. Raises the first one's error in the end.
        """
        while True:
            try:
                return await self._infer(model, slot, count)
            except InferenceUnavailable:
                if not await self._one_returns(until):
                    raise
            except InferenceFailed:
                # What dies in the middle may answer anything with its last breath.
                if await self._any_answers() or not await self._one_returns(until):
                    raise

    async def _infer(self, model: str, slot: Slot, count: int) -> Floats:
        failed: dict[Host, GatewayError] = {}
        while (host := self._least_loaded(failed)) is not None:
            if failed:
                self._retries.labels(next(reversed(failed)).address).inc()
            try:
                values = await self._ask(host, model, slot, count)
            except GatewayError as error:
                failed[host] = error
            else:
                # Where another could, the fault was theirs, and they have to pass the warm-up again.
                for other, fault in failed.items():
                    if isinstance(fault, InferenceFailed):
                        self.lost(other, fault)
                return values
        if failed:
            raise next(iter(failed.values()))
        raise InferenceUnavailable(self.why_not_ready)

    async def wake(self, hosts: Sequence[Host], models: Sequence[str], slot: Slot, count: int) -> None:
        """Let each of `hosts` run all `models`. Raises the first error when none of them could."""
        results = await asyncio.gather(
            *(asyncio.gather(*(self._ask(host, model, slot, count) for model in models)) for host in hosts),
            return_exceptions=True,
        )
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors and len(errors) == len(hosts):
            raise errors[0]

    def lost(self, host: Host, error: GatewayError) -> None:
        """Send nothing more there, and take back what is in flight if another Triton can do it, or nobody wants it."""
        self.not_taken_in(host, error)
        for request in host.requests if self.ready else host.unwanted:
            request.cancel()

    def not_taken_in(self, host: Host, error: GatewayError, unforeseen: Exception | None = None) -> None:
        """Remember why no request goes there; the log says so at once, and again each minute that it lasts."""
        host.why_not_ready = error
        # What gRPC adds in brackets differs from one attempt to the next.
        what, (before, when), now = str(error).partition("(")[0], host.complaint, time.monotonic()
        if what != before or now - when >= REPEAT_S:
            host.complaint = what, now
            _log.error("%s", error, exc_info=unforeseen)

    def taken_in(self, host: Host) -> None:
        """Requests go there from now on."""
        host.why_not_ready, host.complaint = None, ("", 0.0)

    async def detach(self) -> None:
        await asyncio.gather(*(host.triton.detach() for host in self.hosts))

    async def close(self) -> None:
        if left := [request for host in self.hosts for request in host.requests]:
            await asyncio.wait(left, timeout=LEFT_S)
        await asyncio.gather(*(host.triton.close() for host in self.hosts))

    def _least_loaded(self, besides: dict[Host, GatewayError]) -> Host | None:
        """One that is not ready is better than none: it may be slow to say so."""
        hosts = [host for host in self.hosts if host.triton.attached and host not in besides]
        return min(hosts, key=lambda host: (not host.ready, host.frames_in_flight), default=None)

    async def _one_returns(self, until: float) -> bool:
        """Wait for a Triton that answers and knows the slots; False: there was none before `until`."""
        while time.perf_counter() + RETURN_CHECK_S < until:
            await asyncio.sleep(RETURN_CHECK_S)
            if await self._any_answers():
                return True
        return False

    async def _any_answers(self) -> bool:
        asked = [host.triton.is_ready() for host in self.hosts if host.triton.attached]
        return any(await asyncio.gather(*asked))

    async def _ask(self, host: Host, model: str, slot: Slot, count: int) -> Floats:
        """What `host` answers. When this is cancelled the request is left to its end (see `going_on`).

        So long `slot` is held: who hangs up again and again cannot pile work up.
        """
        request = going_on(host.triton.infer(model, slot, count))
        host.requests[request] = count
        if (pool := host.triton.pool) is not None:
            pool.hold(slot)
            request.add_done_callback(lambda _: pool.release(slot))
        request.add_done_callback(partial(_ended, host))
        try:
            return await asyncio.shield(request)
        except asyncio.CancelledError:
            if _is_cancelled() or not request.cancelled():
                if not request.done():
                    host.unwanted.add(request)
                raise
            # Taken back by `lost`.
            raise host.why_not_ready or InferenceUnavailable(f"Triton at {host.address} was lost") from None
        except InferenceUnavailable as error:
            self.lost(host, error)
            raise


def _ended(host: Host, request: asyncio.Task[Floats]) -> None:
    del host.requests[request]
    host.unwanted.discard(request)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _one_when_ready(host: Host) -> float:
    return float(host.ready)


def _frames_in_flight(host: Host) -> float:
    return float(host.frames_in_flight)
