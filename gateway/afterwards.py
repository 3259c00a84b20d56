"""What is done with an answer when it has left: its challenge is kept on disk, and it is scored. Off the hot path."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.metrics import Metrics
from gateway.pipeline import Aftermath, Answer
from gateway.scorer import NotScored, Scorer
from gateway.settings import Settings
from gateway.video.growing_file import HeldFile
from touchline.kept import NotKept, keep
from touchline.score import KEYPOINTS_OF_QUALITY, final_score, speed_score

MOST_WAITING: Final = 4
MOST_WAITING_BYTES: Final = 256 * 2**20
"""Their videos lie in the temporary folder, which may be memory."""
PATIENCE_S: Final = 60.0
"""So long a gateway that is always at work is waited for."""
_LOOK_AGAIN_S: Final = 0.1
_LAST_WORK_S: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Marks:
    """What a validator's public rules give an answer that took so long, 0 to 1."""

    keypoints: float
    boxes_at_best: float
    speed: float
    total: float

    @classmethod
    def of(cls, aftermath: Aftermath | None, seconds: float, fastest_s: float) -> Marks | None:
        """None while it has not been scored."""
        if aftermath is None or aftermath.keypoints is None or aftermath.boxes_at_best is None:
            return None
        keypoints, boxes, speed = aftermath.keypoints, aftermath.boxes_at_best, speed_score(seconds, fastest_s)
        quality = KEYPOINTS_OF_QUALITY * keypoints + (1 - KEYPOINTS_OF_QUALITY) * boxes
        return cls(keypoints, boxes, speed, final_score(quality, speed))


@dataclass(frozen=True, slots=True)
class _Left:
    """An answer that has left."""

    challenge_id: str
    aftermath: Aftermath
    video: HeldFile
    response: Callable[[], Iterator[bytes]]
    seconds: float
    about: Mapping[str, Any]


class Afterwards:
    """One thread, at work when no challenge is in progress. Where it cannot keep up, the oldest is let go."""

    def __init__(self, settings: Settings, metrics: Metrics, busy: Callable[[], bool]) -> None:
        self._settings, self._metrics, self._busy = settings, metrics, busy
        self._scorer = Scorer()
        self._waiting = deque[_Left]()
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @staticmethod
    def wanted(settings: Settings) -> bool:
        """There is something to do at all."""
        return settings.score_challenges or settings.keep_challenges > 0

    def take(
        self,
        answer: Answer,
        response: Callable[[], Iterator[bytes]],
        *,
        challenge_id: int | str,
        seconds: float,
        about: Mapping[str, Any],
    ) -> None:
        """An answer that took the validator `seconds`, whose JSON is `response()`. Each is computed for one of them."""
        aftermath = answer.aftermath
        if aftermath is None or aftermath.video is None:
            return
        left = _Left(str(challenge_id), aftermath, aftermath.video, response, seconds, about)
        aftermath.video = None
        with self._changed:
            self._waiting.append(left)
            while len(self._waiting) > MOST_WAITING or self._bytes() > MOST_WAITING_BYTES:
                dropped = self._waiting.popleft()
                dropped.video.close()
                _log.warning("challenge %s is neither kept nor scored: there was no time", dropped.challenge_id)
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="afterwards", daemon=True)
            self._thread.start()

    async def __aenter__(self) -> Afterwards:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Give up what is under way and what waits."""
        self._ended.set()
        self._scorer.stop()
        with self._changed:
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_LAST_WORK_S)
        while self._waiting:
            self._waiting.popleft().video.close()

    def _bytes(self) -> int:
        return sum(left.video.size for left in self._waiting)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ended.is_set():
                    self._changed.wait()
                if self._ended.is_set():
                    return
            self._until_idle()
            with self._changed:
                if not self._waiting or self._ended.is_set():
                    continue
                left = self._waiting.popleft()
            try:
                self._keep(left)
                self._score(left)
            except Exception:
                _log.exception("challenge %s: what follows an answer failed", left.challenge_id)
            finally:
                left.video.close()
                del left

    def _until_idle(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while self._busy() and time.monotonic() < until and not self._ended.wait(_LOOK_AGAIN_S):
            pass

    def _keep(self, left: _Left) -> None:
        settings = self._settings
        if not settings.keep_challenges:
            return
        try:
            place = keep(
                settings.keep_folder,
                challenge_id=left.challenge_id,
                video=left.video.pieces(),
                size=left.video.size,
                answer=left.response(),
                about=left.about,
                most=settings.keep_challenges,
                most_mb=settings.keep_challenges_mb,
                go_on=lambda: not self._ended.is_set(),
            )
        except NotKept as error:
            _log.warning("challenge %s is not kept: %s; KEEP_CHALLENGES_MB allows more", left.challenge_id, error)
        except OSError as error:
            _log.warning(
                "challenge %s is not kept: %s: %s; KEEP_FOLDER names another folder",
                left.challenge_id, settings.keep_folder, error.strerror or error,
            )  # fmt: skip
        else:
            if place is not None:
                _log.info("challenge %s is kept in %s", left.challenge_id, place)

    def _score(self, left: _Left) -> None:
        if not self._settings.score_challenges or self._ended.is_set():
            return
        try:
            scored = self._scorer.score(left.video.fd, left.response())
        except (NotScored, OSError) as error:
            if not self._ended.is_set():
                _log.warning("challenge %s is not scored: %s", left.challenge_id, error)
            return
        left.aftermath.keypoints, left.aftermath.boxes_at_best = scored.keypoints, scored.boxes_at_best
        marks = Marks.of(left.aftermath, left.seconds, self._settings.fastest_s)
        assert marks is not None
        for part in ("keypoints", "boxes_at_best", "speed", "total"):
            self._metrics.score.labels(part).set(getattr(marks, part))
        _log.info(
            "challenge %s: a validator's public rules give keypoints %.0f, boxes at best %.0f, speed %.0f, in all at "
            "best %.0f of 100",
            left.challenge_id, 100 * marks.keypoints, 100 * marks.boxes_at_best, 100 * marks.speed, 100 * marks.total,
        )  # fmt: skip
