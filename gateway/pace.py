"""How many frames of a clip are inferred, so that its answer comes in time: arithmetic, no clock and no engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gateway.settings import CHALLENGE_TIMEOUT_S, FASTEST_S, QUALITY_FLOOR, Settings
from gateway.stride_quality import MEASURED_FPS, PEOPLE_FOUND
from touchline.score import SLOWEST_S, final_score, speed_without_end

MARGIN = 0.005
"""What is kept above QUALITY_FLOOR: clips differ, and a machine that slows down on the way makes the stride grow."""
LATEST_S = SLOWEST_S
"""Of CHALLENGE_BUDGET_S=auto: then nothing is left to earn with speed."""
PATIENCE = 0.8
"""Share of CHALLENGE_TIMEOUT_S that `auto` takes where no answer can be there by LATEST_S: then quality alone earns."""
TIE = 0.003
"""Of strides whose expected scores differ by less the one is taken whose answer is there first."""
RESERVE_S = 0.5
"""What is kept of the budget for the end: tracking, JSON."""
MAX_GAP_S = 2.0
LEAST_FRAMES = 20
"""However slow an engine is, inferred frames lie MAX_GAP_S apart, or so many are inferred of a longer clip."""
PITCH_GAP_S = 1.2
"""The pitch moves smoothly: up to here every second inferred frame tells as much of it, and of people, as every one.
On the clip of `make demo` at stride 10 and 15, people found are 96.4 and 94.4 % with every one, 96.7 and 94.0 % with
every second, keypoints 87.9 and 87.5 against 87.9 and 89.2 %; at stride 25 people fall from 76.9 to 68.8 %."""
USUAL_CLIP_S = 30.0
"""Of a clip that says nothing of its length."""
BATCH_SHARE = 0.02
"""Of the budget: a batch takes no longer, so that the rate is known early and the last batch is not what is late."""
KEEP_WITHIN = 0.15
"""A stride that is off by no more is left alone: an even one is worth more than an exact one."""
LAST = 5
"""Inferred frames, for which no stride changes any more unless the answer would be late."""
STEP = 0.25
"""Share of itself by which a stride changes at once."""
LEARNING_SHARE = 0.2
"""Of the budget: what was seen so long ago counts about a third. Other work comes in bursts, which are not the machine:
with a fifth of this two of eight answers beside two busy processes were given up as late, for nothing."""
SLOWNESS_RANGE = (0.1, 100.0)
AT_ONCE = 5.0
"""How many times slower an engine is believed to have become at once: one that is restarted is only away."""
GATEWAY_CPU_S = 0.004
"""A source frame of 1280x720 through decoding, scaling, tracking and JSON, before the first challenge has told."""


@dataclass(frozen=True, slots=True)
class ModelCosts:
    """Seconds a frame of each model when it runs alone, as the warm-up found; a ball model counts to the player's."""

    player_s: float
    pitch_s: float

    def of(self, frames: float, pitch_frames: float) -> float:
        """Seconds of engine for so many frames of each."""
        return frames * self.player_s + pitch_frames * self.pitch_s


@dataclass(slots=True)
class Experience:
    """What challenges have taught of this machine; all of them teach and use the same."""

    frame_s: float
    """The gateway's own work a source frame, spread over its cores."""
    slowness: float = 1.0
    """How many times as long as at warm-up the engine takes now."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What the settings ask for."""

    frame_stride: int
    """The least."""
    pitch_stride: int
    """The least."""
    budget_s: float
    by_score: bool
    """Maximise the expected score, with `budget_s` as the latest; else the least strides that end within it."""
    fastest_s: float = FASTEST_S
    """The answer of the fastest miner, against which a validator measures speed."""
    quality_floor: float = QUALITY_FLOOR
    """Share of the people that an answer shall find; given up only where the time does not allow it."""
    timeout_s: float = CHALLENGE_TIMEOUT_S
    """After so long a challenge is given up."""

    @classmethod
    def of(cls, settings: Settings) -> Aim:
        budget = settings.challenge_budget_s
        return cls(
            settings.frame_stride,
            settings.effective_pitch_stride,
            LATEST_S if budget == "auto" else budget,
            budget == "auto",
            settings.fastest_s,
            settings.quality_floor,
            settings.challenge_timeout_s,
        )


@dataclass(frozen=True, slots=True)
class Left:
    """Where a challenge stands."""

    elapsed_s: float
    frames: int
    """Source frames that are not decoded yet."""
    pending_s: float = 0.0
    """Engine time at warm-up's costs of what was sent and is not answered."""
    under_way: int = 1
    """Challenges that share engine and cores."""
    last_byte_s: float = 0.0
    """When the download ended or is going to, as far as can be said: no stride makes the answer earlier."""


def pitch_stride(stride: int, aim: Aim, fps: float) -> int:
    """The pitch model sees frames that the player model sees: of a stride that has grown half, see PITCH_GAP_S."""
    half = stride > aim.frame_stride and 2 * stride <= PITCH_GAP_S * fps
    return max(1, -(-aim.pitch_stride // stride), 1 + half) * stride


def score(quality: float, seconds: float, fastest_s: float = FASTEST_S) -> float:
    """A validator's score of an answer: quality from 0 to 1, and seconds from request to answer.

    Later than SLOWEST_S it goes on falling, where a validator gives 0: of two late answers the earlier is better.
    """
    return final_score(quality, speed_without_end(seconds, fastest_s))


def expected_quality(stride: float, fps: float) -> float:
    """Share of the people that an answer finds with every `stride`-th frame inferred: the time between them counts."""
    strides, found = zip(*PEOPLE_FOUND, strict=True)
    return float(np.interp(stride * MEASURED_FPS / fps, strides, found))


def frames_expected(said: int, duration_s: float, fps: float, seen: int, by_size: float | None) -> int:
    """Frames of a clip, from what its header says (0: nothing) or else from its duration, size, or a usual clip.

    `by_size` is what its bytes and the frames so far let expect; a header that it contradicts is not believed.
    """
    expected = float(said or round(duration_s * fps))
    if by_size is not None and not 2 / 3 < expected / max(by_size, 1.0) < 1.5:
        expected = by_size
    # Whoever says nothing at all is taken for usual, and then for longer than what has come.
    return max(seen, round(expected or max(USUAL_CLIP_S * fps, 1.25 * seen)))


class Pace:
    """The strides of one challenge under way: planned before the first frame, and again before each slot is filled.

    Told what happened, it learns how slow the machine is; what it does not expect it spreads evenly over what is left.
    """

    def __init__(self, aim: Aim, costs: ModelCosts, experience: Experience, fps: float) -> None:
        self._aim = aim
        self._costs = costs
        self._experience = experience
        self._fps = fps
        self._frames_done = 0
        self._found_so_far = 0.0
        """Sum of the expected quality over the frames that were decoded."""
        self._seen = np.zeros(3)
        """Since the last lesson: busy seconds, source frames, engine seconds at warm-up's costs."""
        self._slots_seen = 0
        self.planned = self.stride = self.largest = 0

    def start(self, left: Left) -> None:
        """Plan the whole clip. What a header says is not yet a reason for a longer gap than usual."""
        usual = max(self._aim.frame_stride, round(MAX_GAP_S * self._fps))
        self.planned = self.stride = self.largest = min(usual, self._wanted(left))

    def again(self, left: Left) -> None:
        """Spread what is left, in small steps."""
        wanted, late = self._wanted(left), self.seconds(self.stride, left) > self._latest(left)
        if not late and (abs(wanted - self.stride) <= KEEP_WITHIN * self.stride or left.frames < LAST * self.stride):
            return
        step = max(1, round(STEP * self.stride))
        self.stride = min(max(wanted, self.stride - step), self.stride + step)
        self.largest = max(self.largest, self.stride)

    @property
    def pitch_stride(self) -> int:
        return pitch_stride(self.stride, self._aim, self._fps)

    def batch(self, largest: int, under_way: int = 1) -> int:
        """Frames of the next slot, at most `largest`."""
        frame_s = self._costs.of(1, self.stride / self.pitch_stride) * self._experience.slowness * under_way
        return max(1, min(largest, int(BATCH_SHARE * self._aim.budget_s / max(frame_s, 1e-9))))

    def work_s(self, frames: int, pitch_frames: int) -> float:
        """Engine time at warm-up's costs."""
        return self._costs.of(frames, pitch_frames)

    def decoded(self, frames: int) -> None:
        """So many more source frames, at the stride of now."""
        self._frames_done += frames
        self._found_so_far += frames * expected_quality(self.stride, self._fps)

    def replied(self, busy_s: float, source_frames: int, frames: int, pitch_frames: int, *, under_way: int = 1) -> None:
        """A slot came back, `busy_s` of engine after the one before: what was decoded for it, and what was inferred.

        The gateway works on the same cores as an engine beside it, so its share of the time is not the engine's; where
        it is not, the sum of both is right all the same near the stride that was seen.
        """
        self._seen += (busy_s / under_way, source_frames, self._costs.of(frames, pitch_frames))
        self._slots_seen += 1
        seconds, decoded, work = self._seen.tolist()
        # One slot says little: they come back in bursts.
        if self._slots_seen < 2 or seconds < BATCH_SHARE * self._aim.budget_s or work <= 0:
            return
        slowness = float(np.clip((seconds - decoded * self._experience.frame_s) / work, *SLOWNESS_RANGE))
        slowness = min(slowness, AT_ONCE * self._experience.slowness)
        gain = 1 - math.exp(-seconds / (LEARNING_SHARE * self._aim.budget_s))
        self._experience.slowness += gain * (slowness - self._experience.slowness)
        self._seen[:] = 0.0
        self._slots_seen = 0

    def seconds(self, stride: int, left: Left) -> float:
        """When the answer leaves, if `stride` is kept from now on."""
        inferred = self._costs.of(left.frames / stride, left.frames / pitch_stride(stride, self._aim, self._fps))
        engine_s = (inferred + left.pending_s) * self._experience.slowness
        # One frame more: an engine is in the middle of something whenever one looks.
        engine_s += self._costs.of(1, stride / pitch_stride(stride, self._aim, self._fps)) * self._experience.slowness
        work_s = left.under_way * (engine_s + left.frames * self._experience.frame_s)
        return max(left.elapsed_s + work_s, left.last_byte_s) + RESERVE_S

    def quality(self, stride: int, left: Left) -> float:
        """Of the whole answer, if `stride` is kept from now on."""
        found = self._found_so_far + left.frames * expected_quality(stride, self._fps)
        return found / max(1, self._frames_done + left.frames)

    def _latest(self, left: Left) -> float:
        """A download that is late is no reason to infer less; then there is time for what its last bytes bring."""
        return max(self._aim.budget_s, left.last_byte_s + RESERVE_S + 4 * BATCH_SHARE * self._aim.budget_s)

    def _late(self, strides: range, left: Left) -> int:
        """Of an answer that is late whatever is done: as late as the floor asks for, if a caller waits so long."""
        patience_s = PATIENCE * self._aim.timeout_s
        waited_for = [stride for stride in strides if self.seconds(stride, left) <= patience_s] or [strides[-1]]
        floor = self._aim.quality_floor + MARGIN
        good = [stride for stride in waited_for if expected_quality(stride, self._fps) >= floor]
        return max(good) if good else waited_for[0]

    def _wanted(self, left: Left) -> int:
        least = self._aim.frame_stride
        total = self._frames_done + left.frames
        most = max(least, round(MAX_GAP_S * self._fps), math.ceil(total / LEAST_FRAMES))
        strides = range(least, most + 1)
        in_time = [stride for stride in strides if self.seconds(stride, left) <= self._latest(left)]
        floor = self._aim.quality_floor
        if not in_time:
            return self._late(strides, left) if self._aim.by_score else most
        good = [stride for stride in in_time if expected_quality(stride, self._fps) >= floor + MARGIN] or [
            stride for stride in in_time if expected_quality(stride, self._fps) >= floor
        ]
        if not (self._aim.by_score and good):
            return in_time[0]
        worth = {
            stride: score(self.quality(stride, left), self.seconds(stride, left), self._aim.fastest_s)
            for stride in good
        }
        best = max(worth.values())
        return max(stride for stride in good if worth[stride] >= best - TIE)


def mean_stride(frames: int, inferred: int) -> float:
    """How far apart the inferred frames of an answer lie."""
    return max(0, frames - 1) / max(1, inferred - 1)
