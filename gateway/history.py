"""The last challenges, as much of each as the console shows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.pipeline import Aftermath, Answer
from gateway.video.stills import Stills
from touchline.answer import FrameAnswer

_LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Scene:
    """What was answered about a kept frame and the second before it, which its trails on the map come from."""

    number: int
    first: int
    keypoints: npt.NDArray[np.float32]
    """float32 [number - first + 1, 32, 2], source pixels."""
    frame_numbers: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int8]
    boxes: npt.NDArray[np.float32]
    """float32 [n, 4], source pixels."""

    @classmethod
    def of(cls, answer: Answer, number: int, fps: float) -> Scene:
        """A copy, so that the rest of the answer can go."""
        first = max(0, number - round(fps))
        rows = answer.tracks.rows(first, number + 1)
        return cls(
            number,
            first,
            answer.keypoints.answered(np.arange(first, number + 1)).astype(np.float32),
            rows.frame_numbers.astype(np.int32),
            rows.ids.astype(np.int32),
            rows.classes.astype(np.int8),
            rows.xyxy.astype(np.float32),
        )

    def answer(self, number: int) -> FrameAnswer:
        """One frame from `first` to `number`."""
        rows = self.frame_numbers == number
        return FrameAnswer(
            number,
            self.keypoints[number - self.first].astype(np.float64),
            self.boxes[rows],
            self.classes[rows].astype(np.intp),
            self.ids[rows].astype(np.intp),
        )


@dataclass(frozen=True, slots=True)
class Work:
    """What an answer says of itself, and its pictures."""

    frames: int
    inferred: int
    planned_stride: int
    stride: float
    """What came of the plan."""
    computed_s: float
    stages: Mapping[str, float]
    """Seconds by stage; they overlap."""
    stills: Stills
    scenes: Mapping[int, Scene]
    """By the numbers of the stills."""
    aftermath: Aftermath | None
    """The answer's own, which learns later what it is worth."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One challenge, answered or refused."""

    key: int
    """Milliseconds since 1970, one more where two ended in the same: unique also across restarts."""
    challenge_id: str
    """Empty when the request was refused before it was read."""
    validator: str
    """The hotkey the request names; proven only where the challenge was answered."""
    outcome: str
    """answered, or why not, as touchline_challenges_total counts it."""
    detail: str
    seconds: float
    """From the request to its answer."""
    work: Work | None

    @property
    def ended(self) -> float:
        """Seconds since 1970."""
        return self.key / 1000

    @property
    def reused(self) -> bool:
        """The video was being answered already, or had just been."""
        return self.work is not None and self.seconds < self.work.computed_s


class History:
    """The last `size` answered and the last `size` refused challenges; neither can push the other out."""

    def __init__(self, size: int, on_answered: Callable[[Stills], None] = lambda _: None) -> None:
        """`on_answered` is handed the pictures of each answer that has some."""
        self._on_answered = on_answered
        self._answered = deque[Entry](maxlen=size)
        self._refused = deque[Entry](maxlen=size)
        self._last_key = 0

    def add(
        self,
        *,
        challenge_id: int | str,
        validator: str,
        outcome: str,
        detail: str,
        seconds: float,
        answer: Answer | None,
        stages: Mapping[str, float],
    ) -> Entry:
        """Keep one more; texts of strangers are cut to 500 characters."""
        self._last_key = max(int(time.time() * 1000), self._last_key + 1)
        entry = Entry(
            self._last_key,
            str(challenge_id)[:_LONGEST_TEXT],
            validator[:_LONGEST_TEXT],
            outcome,
            detail[:_LONGEST_TEXT],
            seconds,
            _work(answer, stages) if answer is not None else None,
        )
        (self._refused if answer is None else self._answered).append(entry)
        if entry.work is not None:
            self._on_answered(entry.work.stills)
        return entry

    def __iter__(self) -> Iterator[Entry]:
        """All, the latest first."""
        return iter(sorted((*self._answered, *self._refused), key=lambda entry: -entry.key))

    def find(self, key: int) -> Entry | None:
        return next((entry for entry in self if entry.key == key), None)


def _work(answer: Answer, stages: Mapping[str, float]) -> Work | None:
    stills = answer.stills
    if stills is None:
        return None
    return Work(
        answer.frame_count,
        answer.inferred_count,
        answer.planned_stride,
        answer.stride,
        answer.times.total_s,
        stages,
        stills,
        {number: Scene.of(answer, number, stills.fps) for number in stills.numbers},
        answer.aftermath,
    )
