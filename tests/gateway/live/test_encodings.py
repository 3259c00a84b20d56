"""Pictures for viewers: what is on them, and that each is made once."""

from __future__ import annotations

import asyncio
import threading

import av
import numpy as np
import pytest

from gateway.live.encodings import Encodings, Look, blank, shared_width
from gateway.metrics import Metrics, value_of
from tests.gateway.live.made_views import HEIGHT, WIDTH, decoded, made_view

PLAIN = Look(WIDTH, 90, annotated=False)


@pytest.mark.parametrize(
    ("source", "largest", "wanted", "given"),
    [
        (1280, 640, None, 640),
        (1280, 640, 5000, 640),
        (1280, 640, 640, 640),
        (1280, 640, 321, 640),
        (1280, 640, 320, 320),
        (1280, 640, 161, 320),
        (1280, 640, 160, 160),
        (1280, 640, 1, 160),
        (320, 640, None, 320),
        (333, 640, None, 332),
        (40, 640, 1, 16),
    ],
)
def test_widths_are_few(source: int, largest: int, wanted: int | None, given: int) -> None:
    assert shared_width(source, largest, wanted) == given


async def test_one_encoding_however_many_look() -> None:
    metrics = Metrics()
    encodings = Encodings(metrics)
    view = made_view()
    pictures = await asyncio.gather(*(encodings.jpeg(view, PLAIN) for _ in range(50)))
    assert len(set(map(id, pictures))) == 1
    assert value_of(metrics.viewers.encodes) == 1
    await encodings.jpeg(view, Look(WIDTH // 2, 90, annotated=False))
    await encodings.jpeg(made_view(sequence=1), PLAIN)
    await encodings.jpeg(made_view(number=2), PLAIN)
    assert value_of(metrics.viewers.encodes) == 4
    assert sorted(number for number, _ in encodings._made) == [1, 1, 2], "old ones are kept"
    encodings.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("live-jpeg")]


async def test_who_leaves_takes_the_picture_from_nobody() -> None:
    encodings = Encodings(Metrics())
    view = made_view()
    leaving, staying = (asyncio.create_task(encodings.jpeg(view, PLAIN)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert decoded(await staying).shape == (HEIGHT, WIDTH, 3)
    encodings.close()


async def test_the_picture_is_the_frames() -> None:
    encodings = Encodings(Metrics())
    plain = decoded(await encodings.jpeg(made_view(level=150), PLAIN))
    assert np.abs(plain[40:, 40:].astype(int) - 150).max() <= 6
    coloured = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), (200, 60, 40), np.uint8), "rgb24")
    shown = decoded(await encodings.jpeg(made_view(sequence=1, picture=coloured.reformat(format="yuv420p")), PLAIN))
    assert np.abs(np.median(shown, axis=(0, 1)) - (40, 60, 200)).max() <= 8
    encodings.forget()
    half = decoded(await encodings.jpeg(made_view(level=150), Look(WIDTH // 2, 90, annotated=True)))
    assert half.shape == (HEIGHT // 2, WIDTH // 2, 3)
    # Sky blue for the player's box, and nothing where nothing was found.
    blue, _, red = half[25, 5].astype(int)
    assert blue - red > 80
    assert np.abs(half[60:, 30:90].astype(int) - 150).max() <= 20
    encodings.close()


async def test_an_old_picture_is_dark_and_says_so() -> None:
    encodings = Encodings(Metrics())
    old = decoded(await encodings.jpeg(made_view(level=150), Look(WIDTH, 90, annotated=False, no_signal="no signal")))
    assert np.median(old) < 60
    assert old.max() > 150, "nothing is written"
    never = decoded(blank("no signal: connecting", 75))
    assert np.median(never) == 0 and never.max() > 150
    encodings.close()
