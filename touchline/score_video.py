"""A saved answer scored beside its video: the pictures are looked at as a validator would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from touchline.answer import processing_time
from touchline.pitch_lines import Picture, Sight, look
from touchline.render import Clip, RenderError, answers_about, pictures, probe
from touchline.score import Score, score_answer

SCORED_PICTURES: Final = 25
"""Of a video, evenly spread, where a second or two of looking is enough."""


def sights_of(
    clip: Clip,
    *,
    every: int = 1,
    pictures_looked_at: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    also: Callable[[int, Picture], object] = lambda number, picture: None,
) -> dict[int, Sight]:
    """What is seen in every n-th picture, or in about so many of them, by frame number; `also` is handed those too.

    Raises RenderError when none can be decoded.
    """
    if pictures_looked_at is not None:
        every = max(1, clip.frame_count // pictures_looked_at)
    sights = {}
    for number, picture in pictures(clip, clip.width, frozenset(range(0, clip.frame_count, every))):
        sights[number] = look(picture)
        also(number, picture)
        progress(number + 1, clip.frame_count)
    if not sights:
        raise RenderError(f"no frame of {clip.path} can be decoded. Check that it plays.")
    return sights


def score_response(
    clip: Clip,
    sights: Mapping[int, Sight],
    response: Mapping[str, Any],
    *,
    seconds: float | None = None,
    fastest_s: float,
) -> Score:
    """Score a response about a clip of which `sights` were seen.

    `seconds`: what the validator measured, else what the response says. Raises RenderError when the response is
    unusable or about another video.
    """
    answers = answers_about(clip, response)
    said = processing_time(response)
    took = seconds if seconds is not None else 0.0 if said is None else said
    size = clip.width, clip.height
    return score_answer(answers, sights, size, clip.frame_count, seconds=took, fastest_s=fastest_s)


def score_video(
    video: Path,
    response: Mapping[str, Any],
    *,
    every: int = 1,
    pictures_looked_at: int | None = None,
    seconds: float | None = None,
    fastest_s: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Score:
    """Both at once. Raises RenderError when video or response is unusable, or the two do not belong together."""
    clip = probe(video)
    answers_about(clip, response)  # before the pictures, which take their time
    sights = sights_of(clip, every=every, pictures_looked_at=pictures_looked_at, progress=progress)
    return score_response(clip, sights, response, seconds=seconds, fastest_s=fastest_s)
