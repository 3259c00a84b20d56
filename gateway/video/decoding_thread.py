"""A thread of its own for each decoder, which a challenge never waits for longer than it wants to.

Nothing can make FFmpeg return from a packet that keeps it busy, and Python cannot end a thread. So a challenge that
ends lets go of its thread: the decoder writes into no slot from then on (`Decoder.stop`), and the thread ends as soon
as FFmpeg comes back or asks for more of the file.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, TypeVar
from weakref import WeakSet

from gateway.errors import Stopping
from gateway.video.decode import Decoder

_PATIENCE_S: Final = 1.0
"""A thread that is still there so long after its challenge is worth a line in the log."""
_STALLED_S: Final = 0.6
"""A decoder that got no further for so long is not waited for when the gateway stops."""
_LOOK_EVERY_S: Final = 0.1
_NAME: Final = "decoding"

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)
_under_way: WeakSet[DecodingThread] = WeakSet()


class DecodingThread:
    """Runs the calls of one decoder, one after the other, and closes it at the end."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._calls = SimpleQueue[Callable[[], None] | None]()
        self._current: Future[Any] | None = None
        # A daemon, so that the process can end without it.
        self._thread = threading.Thread(target=self._work, name=_NAME, daemon=True)
        self._thread.start()
        _under_way.add(self)

    async def run(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        """What `work` returns or raises. When cancelled it is told to stop and not waited for.

        Raises Stopping when the gateway stops and the decoder has got stuck.
        """
        future = Future[_Result]()

        def call() -> None:
            if future.set_running_or_notify_cancel():
                with suppress(InvalidStateError):  # given up meanwhile
                    try:
                        future.set_result(work(*arguments))
                    except BaseException as error:  # whatever it is, the one who waits has to know
                        future.set_exception(error)

        self._current = future
        self._calls.put(call)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self.decoder.stop()
            raise
        finally:
            self._current = None

    def give_up(self, error: BaseException) -> None:
        """Let the call under way raise `error`, whether or not the decoder returns. For any thread."""
        self.decoder.stop()
        if (future := self._current) is not None:
            with suppress(InvalidStateError):
                future.set_exception(error)

    @property
    def progress(self) -> tuple[object, ...] | None:
        """Changes as long as the call under way gets on; None when there is none."""
        future = self._current
        return None if future is None else (id(future), *self.decoder.progress)

    def __enter__(self) -> DecodingThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.decoder.stop()
        self._calls.put(None)
        _under_way.discard(self)
        asyncio.get_running_loop().call_later(_PATIENCE_S, self._report)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
        self.decoder.close()

    def _report(self) -> None:
        if self._thread.is_alive():
            _log.warning(
                "a decoder is still busy %.0f s after its challenge ended; its thread is left alone, %d are by now",
                _PATIENCE_S,
                left_behind(),
            )


def left_behind() -> int:
    """How many decoding threads there are. When no challenge is under way: those that do not come back."""
    return sum(thread.name == _NAME for thread in threading.enumerate())


def end_what_stalls() -> threading.Event:
    """From now on end each challenge whose decoder gets no further, by a thread of its own: the gateway stops.

    Until what is returned is set.
    """
    enough = threading.Event()
    threading.Thread(target=_end_what_stalls, args=(enough,), name="ending", daemon=True).start()
    return enough


def _end_what_stalls(enough: threading.Event) -> None:
    seen: dict[int, tuple[tuple[object, ...] | None, float]] = {}
    while not enough.wait(_LOOK_EVERY_S):
        now = time.monotonic()
        for decoding in list(_under_way):
            progress, since = decoding.progress, now
            before = seen.get(id(decoding))
            if progress is not None and before is not None and before[0] == progress:
                since = before[1]
                if now - since > _STALLED_S:
                    decoding.give_up(Stopping("the gateway is stopping; send the challenge again"))
            seen[id(decoding)] = progress, since
