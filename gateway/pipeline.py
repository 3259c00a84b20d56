"""The one place that joins the stages: decode(N+1) || infer(N) || track(N-1)."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import httpx

from gateway.detections import Detections, Floats
from gateway.errors import ChallengeTimedOut, GatewayError, InferenceUnavailable
from gateway.inference.engine import Engine, Share
from gateway.inference.outputs import Sight
from gateway.inference.slots import Slot
from gateway.metrics import Metrics
from gateway.pace import (
    GATEWAY_CPU_S,
    Aim,
    Experience,
    Left,
    ModelCosts,
    Pace,
    expected_quality,
    frames_expected,
    mean_stride,
)
from gateway.settings import Settings
from gateway.tracking.keypoints import Keypoints, KeypointTracker
from gateway.tracking.tracker import Tracker
from gateway.tracking.tracks import Tracks
from gateway.video.decode import Decoder, FilledSlot, VideoInfo
from gateway.video.decoding_thread import DecodingThread
from gateway.video.download import download
from gateway.video.growing_file import GrowingFile, HeldFile
from gateway.video.painted import PaintedLines
from gateway.video.shirts import Shirts
from gateway.video.stills import Stills
from touchline.contract import BALL_MODEL, PITCH_MODEL, PLAYER_MODEL

ENOUGH_FRAMES = 100
"""Source frames after which the gateway's own work a frame is believed."""
LOW_SCORE = 0.1
"""Boxes from here up to CONFIDENCE may continue a track but not start one (ByteTrack's second association)."""

FIRST_BATCH = 2
"""Frames in the first slot; every next one is twice as large, up to BATCH_SIZE."""

LOOKAHEAD_BYTES = 256 * 1024
"""What FFmpeg has read and not decoded yet, about."""
_Result = TypeVar("_Result")


@dataclass(slots=True)
class StageTimes:
    """Seconds. The stages overlap, so they add up to more than `total_s`."""

    download_s: float = 0.0
    decode_s: float = 0.0
    """Decoding and scaling, waits for the download included."""
    infer_s: float = 0.0
    """During which at least one batch was in Triton."""
    track_s: float = 0.0
    first_frame_s: float = 0.0
    """From the start of the challenge until the first reply of Triton."""
    total_s: float = 0.0


@dataclass(slots=True)
class Aftermath:
    """What becomes of an answer when it has left: see gateway/afterwards.py."""

    video: HeldFile | None
    """None when somebody has taken it."""
    keypoints: float | None = None
    """What a validator's public rules give, 0 to 1; None while it is not known."""
    boxes_at_best: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a video: what was inferred; the boxes and keypoints of any frame are computed from it."""

    frame_count: int
    inferred_count: int
    planned_stride: int
    """What was planned before the first frame."""
    largest_stride: int
    """What the stride grew to where the plan would not have come in time."""
    expected_quality: float
    """Share of the people that answers with so many inferred frames find."""
    tracks: Tracks
    keypoints: Keypoints
    times: StageTimes
    stills: Stills | None
    """A few frames for the console; None when it is off."""
    shirts: Shirts | None = None
    """What tells the teams apart; None where nobody asks for it."""
    aftermath: Aftermath | None = None
    """None where nothing is done with an answer that has left."""

    @property
    def stride(self) -> float:
        """How far apart the inferred frames lie in the end, on average."""
        return mean_stride(self.frame_count, self.inferred_count)


@dataclass(frozen=True, slots=True)
class _InferredSlot:
    frame_numbers: tuple[int, ...]
    detections: list[Detections]
    keypoints: Floats
    """float32 [P, 32, 2]: of the first P frames."""


class _BusyClock:
    """Time during which at least one of several overlapping pieces of work was under way."""

    def __init__(self) -> None:
        self.busy_s = 0.0
        self._running = 0
        self._since = 0.0

    def __enter__(self) -> None:
        if self._running == 0:
            self._since = time.perf_counter()
        self._running += 1

    def __exit__(self, *_: object) -> None:
        self._running -= 1
        if self._running == 0:
            self.busy_s += time.perf_counter() - self._since

    @property
    def so_far_s(self) -> float:
        """With what is under way."""
        return self.busy_s + (time.perf_counter() - self._since if self._running else 0.0)


class Pipeline:
    """Answers videos. Holds what all challenges share: the HTTP client, the engine and the threads."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        engine: Engine,
        *,
        client: httpx.AsyncClient,
        nvdec: bool,
        keep_stills: bool,
        keep_shirts: bool = False,
        look_for_lines: bool = False,
        hold_videos: bool = False,
    ) -> None:
        """`keep_stills`: somebody will look at a few frames of each answer; `keep_shirts`: will ask for the teams;
        `look_for_lines`: will answer the keypoints that lie on lines; `hold_videos`: will look at the video.
        """
        self.settings = settings
        self.metrics = metrics
        self.engine = engine
        self.client = client
        self.keep_stills = keep_stills
        self.keep_shirts = keep_shirts
        self.look_for_lines = look_for_lines
        self.hold_videos = hold_videos
        self.aim = Aim.of(settings)
        self.under_way = 0
        """Challenges."""
        self.decoded = 0
        """Source frames of all challenges since none was under way."""
        self._cores = len(os.sched_getaffinity(0))
        self._cpu_s = 0.0
        self._experience = Experience(GATEWAY_CPU_S / self._cores)
        self._costs: ModelCosts | None = None
        self._nvdec = nvdec
        self._gpus = itertools.cycle(range(max(1, settings.gpu_count)))
        # They track; each decoder has a thread of its own.
        self._threads = ThreadPoolExecutor(settings.concurrent_challenges, thread_name_prefix="stage")

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def answer(self, video_url: str, waited_s: float = 0.0, aim: Aim | None = None) -> Answer:
        """Download, decode, infer and track `video_url`, which has waited for so long already: it is of its time.

        `aim` instead of what the settings ask for.

        Raises a GatewayError that says what went wrong. However it ends, also by cancellation, no file, slot, task or
        busy thread is left.
        """
        limit_s = self.settings.challenge_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                with (
                    self.engine.share(self.settings.slots_per_challenge) as share,
                    GrowingFile() as file,
                    DecodingThread(self._decoder(file, share.input_size)) as decoding,
                    self._learning(),
                ):
                    run = _Run(self, video_url, file, decoding, share, waited_s=waited_s, aim=aim or self.aim)
                    return await run.answer()
        except TimeoutError as error:
            raise ChallengeTimedOut(f"the challenge took longer than CHALLENGE_TIMEOUT_S ({limit_s:g} s)") from error
        except BaseExceptionGroup as group:
            raise _first_cause(group) from group

    def pace(self, fps: float, aim: Aim) -> Pace:
        """Of a new challenge. What was learned of engines that are measured anew, or are others now, is forgotten."""
        costs = self.engine.costs
        player_s = costs.get(PLAYER_MODEL, 0.0) + costs.get(BALL_MODEL, 0.0)
        now = ModelCosts(player_s, costs.get(PITCH_MODEL, 0.0))
        if now != self._costs:
            self._costs, self._experience.slowness = now, 1.0
        return Pace(aim, now, self._experience, fps)

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """One more challenge under way. When none is left, what the gateway itself computed tells its work a frame."""
        if self.under_way == 0:
            self.decoded, self._cpu_s = 0, time.process_time()
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
            if self.under_way == 0 and self.decoded >= ENOUGH_FRAMES:
                frame_s = (time.process_time() - self._cpu_s) / self.decoded / self._cores
                self._experience.frame_s = (self._experience.frame_s + frame_s) / 2
            for model, cost_s in self.engine.costs.items():
                self.metrics.model_seconds.labels(model).set(cost_s * self._experience.slowness)

    async def in_thread(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        """Run `work` in a thread. When cancelled, wait until it has ended."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()
            raise

    def _decoder(self, file: GrowingFile, size: tuple[int, int]) -> Decoder:
        return Decoder(
            file,
            size=size,
            frame_stride=self.settings.frame_stride,
            pitch_stride=self.settings.effective_pitch_stride,
            max_frames=self.settings.max_video_frames,
            nvdec=self._nvdec,
            gpu=next(self._gpus),
        )


class _Run:
    """One challenge under way: four stages, joined by the slots and one queue."""

    def __init__(
        self,
        pipeline: Pipeline,
        video_url: str,
        file: GrowingFile,
        decoding: DecodingThread,
        share: Share,
        *,
        waited_s: float,
        aim: Aim,
    ) -> None:
        self._pipeline = pipeline
        self._aim = aim
        self._share = share
        self._settings = pipeline.settings
        self._video_url = video_url
        self._file = file
        self._decoding = decoding
        self._decoder = decoding.decoder
        self._started = time.perf_counter()
        self._waited_s = waited_s
        self._times = StageTimes()
        self._inferring = _BusyClock()
        self._inferred_count = 0
        self._pending_s = self._busy_s = 0.0
        """Engine time at warm-up's costs of the slots in Triton, and how long Triton was busy at the last reply."""
        self._stills: Stills | None = None
        self._shirts = Shirts() if pipeline.keep_shirts else None
        self._painted: PaintedLines | None = None
        # In frame order, whatever the order of the replies. Bounded by the share of slots.
        self._inferences = asyncio.Queue[asyncio.Task[_InferredSlot] | None]()

    async def answer(self) -> Answer:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fetch())
            tasks.create_task(self._wake())  # while the first bytes travel
            begun = time.perf_counter()
            info = await self._decoding.run(self._decoder.open)
            self._times.decode_s = time.perf_counter() - begun
            self._stills = Stills(info) if self._pipeline.keep_stills else None
            self._painted = PaintedLines(info.fps) if self._pipeline.look_for_lines else None
            pace = self._pipeline.pace(info.fps, self._aim)
            pace.start(self._left(info))
            tracking = tasks.create_task(self._track(info, pace.planned))
            await self._decode(info, pace, tasks)
        tracks, keypoints = tracking.result()
        self._times.infer_s = self._inferring.busy_s
        self._times.total_s = self._elapsed() + self._waited_s
        return Answer(
            self._decoder.frame_count,
            self._inferred_count,
            pace.planned,
            pace.largest,
            expected_quality(mean_stride(self._decoder.frame_count, self._inferred_count), info.fps),
            tracks,
            keypoints,
            self._times,
            self._stills,
            self._shirts,
            Aftermath(self._file.hold()) if self._pipeline.hold_videos else None,
        )

    async def _wake(self) -> None:
        with suppress(InferenceUnavailable):  # one that is gone may be back when the first frames are there
            await self._pipeline.engine.wake()

    async def _fetch(self) -> None:
        limit = self._settings.max_video_mb * 2**20
        silence_s = self._settings.download_timeout_s
        await download(self._pipeline.client, self._video_url, self._file, max_bytes=limit, silence_s=silence_s)
        self._times.download_s = self._elapsed()

    async def _decode(self, info: VideoInfo, pace: Pace, tasks: asyncio.TaskGroup) -> None:
        """Fill slot after slot and send each on its way; the first ones are small, for an early start."""
        batch, last = FIRST_BATCH, False
        while not last:
            waiting_since = time.perf_counter()
            slot = await self._share.acquire()
            self._pipeline.metrics.slot_wait_seconds.observe(time.perf_counter() - waiting_since)
            pace.again(self._left(info))
            self._decoder.frame_stride, self._decoder.pitch_stride = pace.stride, pace.pitch_stride
            batch = min(batch, pace.batch(self._share.slot_frames, self._pipeline.under_way))
            try:
                begun = time.perf_counter()
                filled = await self._decoding.run(self._decoder.fill, slot.frames[:batch])
                self._times.decode_s += time.perf_counter() - begun
            except BaseException:
                self._share.release(slot)
                raise
            if self._stills is not None:
                self._stills.look(slot.frames, filled.frame_numbers)
            pace.decoded(filled.decoded)
            self._pending_s += pace.work_s(len(filled.frame_numbers), filled.pitch_count)
            inference = tasks.create_task(self._infer(slot, filled, info, pace))
            # Not in a finally inside the task: one that is cancelled before its first step never gets there.
            inference.add_done_callback(partial(_give_back, self._share, slot))
            self._inferences.put_nowait(inference)
            self._pipeline.metrics.frames.labels("decoded").inc(filled.decoded)
            self._pipeline.decoded += filled.decoded
            batch, last = 2 * batch, filled.last
        self._inferences.put_nowait(None)
        self._pipeline.metrics.nvdec_failures.inc(self._decoder.nvdec_failed)

    async def _infer(self, slot: Slot, filled: FilledSlot, info: VideoInfo, pace: Pace) -> _InferredSlot:
        count = len(filled.frame_numbers)
        async with asyncio.TaskGroup() as meanwhile:
            # In a group: the slot is not given back while anybody reads it.
            meanwhile.create_task(self._look_for_lines(slot, filled, info))
            seen = meanwhile.create_task(self._see(slot, count, filled.pitch_count))
        sight, busy_s = seen.result()
        self._pending_s -= pace.work_s(count, filled.pitch_count)
        if self._times.first_frame_s:  # the first one may have woken the engine up
            pace.replied(
                busy_s - self._busy_s, filled.decoded, count, filled.pitch_count, under_way=self._pipeline.under_way
            )
        self._busy_s = busy_s
        self._times.first_frame_s = self._times.first_frame_s or self._elapsed()
        self._pipeline.metrics.frames.labels("inferred").inc(count)
        self._inferred_count += count
        detections = sight.detections(info.letterbox, min_score=min(LOW_SCORE, self._settings.confidence))
        if self._shirts is not None:  # while the frames are still in the slot
            self._shirts.look(slot.frames, filled.frame_numbers, detections, info.letterbox)
        return _InferredSlot(
            filled.frame_numbers,
            detections,
            sight.keypoints(info.letterbox, min_confidence=self._settings.keypoint_confidence),
        )

    async def _see(self, slot: Slot, count: int, pitch_count: int) -> tuple[Sight, float]:
        """What the models say of a slot, and how long Triton has been busy then."""
        # So long a Triton that was lost may take to come back.
        until = self._started + self._aim.budget_s
        with self._inferring:
            sight = await self._pipeline.engine.look(slot, count, pitch_count, until=until)
            return sight, self._inferring.so_far_s

    async def _look_for_lines(self, slot: Slot, filled: FilledSlot, info: VideoInfo) -> None:
        if self._painted is not None and (due := self._painted.due(filled.frame_numbers)):
            await self._pipeline.in_thread(self._painted.look, slot.frames, filled.frame_numbers, due, info.letterbox)

    async def _track(self, info: VideoInfo, stride: int) -> tuple[Tracks, Keypoints]:
        """Take the inferred slots in order."""
        tracker = Tracker(
            fps=info.fps,
            width=info.letterbox.source_width,
            frame_stride=stride,
            track_buffer=self._settings.track_buffer_size,
            confidence=self._settings.confidence,
        )
        keypoints = KeypointTracker()
        while (inference := await self._inferences.get()) is not None:
            self._times.track_s += await self._pipeline.in_thread(_update, tracker, keypoints, await inference)
        begun = time.perf_counter()
        points = await self._pipeline.in_thread(keypoints.finish, info.letterbox.source_size)
        if self._painted is not None:
            points = points.looked_at(self._painted.seen, info.fps)
        tracks = await self._pipeline.in_thread(tracker.finish, points)
        self._times.track_s += time.perf_counter() - begun
        return tracks, points

    def _left(self, info: VideoInfo) -> Left:
        """Where the challenge stands, as far as header, size and bytes so far tell."""
        seen, elapsed_s = self._decoder.frame_count, self._elapsed()
        size, read = self._file.size, self._file.tell() - LOOKAHEAD_BYTES
        by_size = seen * size / read if size and read > 4 * LOOKAHEAD_BYTES else None
        written = self._file.written
        return Left(
            elapsed_s + self._waited_s,
            frames_expected(info.frames, info.duration_s, info.fps, seen, by_size) - seen,
            self._pending_s,
            self._pipeline.under_way,
            self._waited_s + (self._times.download_s or (elapsed_s * size / written if size and written else 0.0)),
        )

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started


def _give_back(share: Share, slot: Slot, _: asyncio.Task[_InferredSlot]) -> None:
    share.release(slot)


def _update(tracker: Tracker, keypoints: KeypointTracker, inferred: _InferredSlot) -> float:
    """Hand the frames of a slot to the trackers in frame order; the seconds it took."""
    begun = time.perf_counter()
    for number, detections in sorted(
        zip(inferred.frame_numbers, inferred.detections, strict=True), key=lambda pair: pair[0]
    ):
        tracker.update(number, detections)
    for number, points in zip(inferred.frame_numbers, inferred.keypoints, strict=False):
        keypoints.add(number, points)
    return time.perf_counter() - begun


def _first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that made the others stop: one that a caller can be told, if there is one."""
    told, _ = group.split(GatewayError)
    error: BaseException = told or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
