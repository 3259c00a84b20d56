"""Single pictures into the model input: colours, places, and headers that are judged before anything is decoded."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from gateway.errors import BadPicture
from gateway.video.pictures import decoded, from_base64, header_size, place
from touchline.contract import LETTERBOX_GREY

RED = (250, 10, 20)


def red(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), RED, np.uint8)


def stored(rgb: np.ndarray, kind: str) -> bytes:
    return cv2.imencode(kind, rgb[..., ::-1])[1].tobytes()


@pytest.mark.parametrize("kind", [".png", ".jpg"])
@pytest.mark.parametrize("size", [(320, 180), (160, 96), (33, 200), (1000, 10)])
def test_a_picture_lies_in_the_input_in_its_colours_with_grey_around_it(kind: str, size: tuple[int, int]) -> None:
    data = stored(red(*size), kind)
    assert header_size(data) == size
    target = np.zeros((96, 160, 3), np.uint8)
    letterbox = place(decoded(data), target)
    assert letterbox.source_size == size
    (left, top), (width, height) = letterbox.offset, letterbox.content_size
    content = target[top : top + height, left : left + width]
    assert np.abs(content.astype(int) - RED).max() <= 3
    assert (target == LETTERBOX_GREY).all(axis=2).sum() == 160 * 96 - width * height


def test_grey_and_transparent_pictures_have_three_channels() -> None:
    for pixels in (
        np.full((20, 30), 99, np.uint8),
        np.full((20, 30, 4), 99, np.uint8),
        np.full((20, 30), 99 * 257, np.uint16),
    ):
        picture = decoded(cv2.imencode(".png", pixels)[1].tobytes())
        assert picture.shape == (20, 30, 3) and (picture == 99).all()


def test_base64_may_have_line_breaks_and_a_prefix() -> None:
    data = stored(red(30, 20), ".png")
    for text in (base64.b64encode(data), base64.encodebytes(data), b"data:image/png;base64," + base64.b64encode(data)):
        assert from_base64(text.decode()) == data


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_what_is_cut_off_or_damaged_is_refused(kind: str) -> None:
    rng = np.random.default_rng(0)
    data = stored(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), kind)
    for cut in (4, 12, 30):
        with pytest.raises(BadPicture):
            decoded(data[:cut])
    if kind == ".png":
        with pytest.raises(BadPicture, match="damaged or cut off"):
            decoded(data[: len(data) // 2])
    with pytest.raises(BadPicture, match="neither PNG nor JPEG"):
        decoded(data[1:])


def test_the_first_frame_header_of_a_jpeg_counts_as_its_decoder_counts() -> None:
    """A second, smaller frame header must not hide a first one that is too large."""
    small = stored(red(16, 16), ".jpg")
    place_of_header = small.index(b"\xff\xc0")
    header = small[place_of_header : place_of_header + 19]
    huge = header[:5] + (60_000).to_bytes(2, "big") * 2 + header[9:]
    with pytest.raises(BadPicture):
        decoded(small[:place_of_header] + huge + small[place_of_header:])
