"""Scaling plane by plane gives the picture that FFmpeg gives in one step."""

from __future__ import annotations

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from gateway.video.scale import Scaler

SIZES = ((1024, 576), (641, 361), (1280, 720), (1919, 1079))


def picture(layout: str, colorspace: int, color_range: int) -> av.VideoFrame:
    """1280x720 of patches in random colours."""
    patches = np.random.default_rng(0).integers(0, 255, (9, 16, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(np.kron(patches, np.ones((80, 80, 1), np.uint8)), "rgb24")
    frame = frame.reformat(format=layout)
    frame.colorspace, frame.color_range = colorspace, color_range
    return frame


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("colorspace", "color_range"), [(1, 1), (2, 0), (2, 2), (5, 2)])
@pytest.mark.parametrize("layout", ["yuv420p", "yuvj420p", "yuv420p10le", "nv12", "yuv444p"])
def test_colours_and_places_are_those_of_one_step(
    layout: str, colorspace: int, color_range: int, size: tuple[int, int]
) -> None:
    frame = picture(layout, colorspace, color_range)
    direct = frame.reformat(*size, "rgb24", interpolation=Interpolation.BILINEAR).to_ndarray().astype(int)
    # A column of a larger picture, as where bars stand beside it.
    around = np.full((size[1], size[0] + 7, 3), 5, np.uint8)
    Scaler(*size).scale(frame, around[:, 3:-4])
    assert (around[:, :3] == 5).all()
    assert (around[:, -4:] == 5).all()
    apart = around[:, 3:-4].astype(int) - direct
    assert abs(apart.mean()) < 2
    assert np.abs(apart).mean() < 4
    bgr = np.empty((size[1], size[0], 3), np.uint8)
    Scaler(*size, bgr=True).scale(frame, bgr)
    assert np.abs(bgr[..., ::-1].astype(int) - around[:, 3:-4]).max() <= 1


def test_every_pixel_of_a_large_picture_counts() -> None:
    lines = np.zeros((900, 1600, 3), np.uint8)
    lines[:, ::5] = 250
    frame = av.VideoFrame.from_ndarray(lines, "rgb24").reformat(format="yuv420p")
    scaled = np.empty((180, 320, 3), np.uint8)
    Scaler(320, 180).scale(frame, scaled)
    assert np.ptp(scaled) < 8
    assert abs(scaled.mean() - 50) < 4


def test_a_picture_of_odd_size() -> None:
    frame = picture("rgb24", 2, 0).reformat(853, 479, "yuv420p")
    direct = frame.reformat(641, 361, "rgb24", interpolation=Interpolation.BILINEAR).to_ndarray().astype(int)
    scaled = np.empty((361, 641, 3), np.uint8)
    Scaler(641, 361).scale(frame, scaled)
    assert np.abs(scaled - direct).mean() < 2
