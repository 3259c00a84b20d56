"""Single pictures into the model input: colours, places, and headers that are judged before anything is decoded."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from gateway.errors import BadPicture
from gateway.video import png
from gateway.video.pictures import decoded, from_base64, header_size, into_slot, place, reduction
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


def lively(width: int = 121, height: int = 90) -> np.ndarray:
    """Something with edges, smooth parts and noise, so that an encoder uses all of PNG's filters."""
    rng = np.random.default_rng(1)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 3)
    picture[: height // 3] = RED
    picture[-height // 3 :, : width // 2] = rng.integers(0, 256, (height // 3, width // 2, 3), dtype=np.uint8)
    return np.asarray(picture, np.uint8)


def by_pillow(pixels: np.ndarray, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, **{"format": "png", **options})
    return file.getvalue()


def with_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    checked = kind + content
    chunk = struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))
    return data[:33] + chunk + data[33:]


def by_opencv(data: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    return np.asarray(picture, np.uint8)


USUAL = {
    "OpenCV's": stored(lively(), ".png"),
    "not compressed": cv2.imencode(".png", lively(), [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes(),
    "Pillow's": by_pillow(lively()),
    "of one pixel": by_pillow(lively()[:1, :1]),
    "with a gamma": with_chunk(stored(lively(), ".png"), b"gAMA", struct.pack(">I", 45455)),
    "with colours": with_chunk(stored(lively(), ".png"), b"cHRM", struct.pack(">8I", *range(30000, 38000, 1000))),
    "with a size": by_pillow(lively(), dpi=(72, 72)),
}


@pytest.mark.parametrize("kind", USUAL)
def test_the_usual_png_is_read_as_opencv_reads_it(kind: str) -> None:
    usual = png.rgb(USUAL[kind])
    assert usual is not None and np.array_equal(usual, by_opencv(USUAL[kind]))


def test_any_other_png_and_any_fault_is_left_to_opencv() -> None:
    usual = stored(lively(), ".png")
    other = {
        "a palette": by_pillow(lively(), "P"),
        "transparent": by_pillow(lively(), "RGBA"),
        "grey": by_pillow(lively(), "L"),
        "16 bits": cv2.imencode(".png", lively().astype(np.uint16))[1].tobytes(),
        "transparent red": with_chunk(usual, b"tRNS", bytes([0, 250, 0, 10, 0, 20])),
        "turned": with_chunk(usual, b"eXIf", b"MM\0*\0\0\0\x08\0\0"),
        "cut off": usual[: len(usual) // 2],
        "another height": usual[:20] + struct.pack(">I", 91) + usual[24:],
        "less pixels than the header says": usual[:20] + struct.pack(">I", 91) + usual[24:29]
        + struct.pack(">I", zlib.crc32(usual[12:20] + struct.pack(">I", 91) + usual[24:29])) + usual[33:],
        "more of them": usual[:20] + struct.pack(">I", 89) + usual[24:29]
        + struct.pack(">I", zlib.crc32(usual[12:20] + struct.pack(">I", 89) + usual[24:29])) + usual[33:],
    }  # fmt: skip
    for kind, data in other.items():
        assert png.rgb(data) is None, kind
    for kind in list(other)[:6]:
        assert np.array_equal(decoded(other[kind]), by_opencv(other[kind])), kind


def test_damage_of_any_byte_is_an_error_or_a_picture_of_the_size_that_the_header_says() -> None:
    rng = np.random.default_rng(2)
    usual = stored(lively(40, 30), ".png")
    for _ in range(300):
        data = bytearray(usual)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        picture = png.rgb(bytes(data))
        assert picture is None or picture.shape == (30, 40, 3)


def test_a_large_jpeg_is_scaled_down_while_it_is_decoded_and_lies_where_the_whole_one_would() -> None:
    picture = cv2.resize(lively(), (2560, 1440), interpolation=cv2.INTER_CUBIC)
    for turned in (1, 6):
        exif = Image.Exif()
        exif[0x112] = turned
        data = by_pillow(picture, format="jpeg", exif=exif)
        targets = np.zeros((2, 288, 512, 3), np.uint8)
        letterbox = into_slot(data, targets[0])
        assert letterbox == place(decoded(data), targets[1])
        assert letterbox.source_size == ((2560, 1440) if turned == 1 else (1440, 2560))
        assert np.abs(targets[0].astype(int) - targets[1]).mean() < 1.5
    assert reduction((2560, 1440), (288, 512, 3)) == 4
    assert reduction((1280, 720), (576, 1024, 3)) == reduction((2562, 1440), (288, 512, 3)) // 2 == 1
    assert reduction((720, 1280), (576, 1024, 3)) == 1, "upright it would be made smaller, turned it would not"


def test_a_small_jpeg_that_goes_over_its_pixels_again_and_again_is_refused_unseen() -> None:
    """A second of decoding for a kilobyte, and nothing could end it."""
    data = by_pillow(lively(), format="jpeg", progressive=True)
    assert data.count(b"\xff\xda") > 5 and decoded(data).shape == (90, 121, 3)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(BadPicture, match="scans"):
        decoded(data[:-2] + last_scan * 50 + data[-2:])
