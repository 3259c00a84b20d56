"""Pictures in the order of time as a clip: looked at one by one, then followed as the frames of a video are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from gateway.errors import BadPicture
from gateway.pipeline import LOW_SCORE
from gateway.predictions import Picture, Predictions, Seen
from gateway.scene import Scene, scene_of
from gateway.settings import Settings
from gateway.tracking.keypoints import KeypointTracker
from gateway.tracking.tracker import Tracker
from gateway.video.shirts import MIN_SCORE
from touchline.actions import FRAMES_A_SECOND
from touchline.contract import PLAYER

DECODE_S: Final = 0.03
"""What a picture costs beside the models, about."""


async def scene_of_pictures(
    predictions: Predictions, pictures: Mapping[int, Picture], settings: Settings, budget_s: float
) -> Scene:
    """The scene of `pictures` by frame number, at 25 a second. As many are looked at as fit into `budget_s`.

    Raises a GatewayError that names the picture. However it ends, nothing of it is left.
    """
    await predictions.until_ready()
    frame_s = sum(predictions.engine.costs.values()) + DECODE_S
    numbers = evenly(sorted(pictures), max(1, int(budget_s / frame_s)))
    seen = await predictions.look([pictures[number] for number in numbers], min(LOW_SCORE, settings.confidence))
    return await asyncio.to_thread(followed, numbers, seen, max(pictures) + 1, settings)


def evenly(numbers: Sequence[int], most: int) -> list[int]:
    """At most `most` of `numbers`, first and last among them where two may be."""
    if len(numbers) <= most:
        return list(numbers)
    return [numbers[index] for index in np.linspace(0, len(numbers) - 1, most).round().astype(int).tolist()]


def followed(numbers: Sequence[int], seen: Sequence[Seen], frame_count: int, settings: Settings) -> Scene:
    """The scene of a clip of so many frames, of which the ones with these `numbers`, ascending, were seen.

    Raises BadPicture where their sizes differ.
    """
    size = seen[0].size
    for number, one in zip(numbers, seen, strict=True):
        if one.size != size:
            (width, height), (first_width, first_height) = one.size, size
            raise BadPicture(
                f"frame {number} is {width}x{height}, the first is {first_width}x{first_height}: a clip has one size"
            )
    stride = round(float(np.median(np.diff(numbers)))) if len(numbers) > 1 else 1
    tracker = Tracker(
        fps=FRAMES_A_SECOND,
        width=size[0],
        frame_stride=stride,
        track_buffer=settings.track_buffer_size,
        confidence=settings.confidence,
    )
    pitch = KeypointTracker()
    colours = {}
    for number, one in zip(numbers, seen, strict=True):
        found = one.detections
        tracker.update(number, found)
        pitch.add(number, one.keypoints)
        sure = (found.classes == PLAYER) & (found.scores >= MIN_SCORE)
        colours[number] = found.xyxy[sure], one.shirts[sure]
    keypoints = pitch.finish(size)
    return scene_of(tracker.finish(keypoints), keypoints, colours, frame_count)
