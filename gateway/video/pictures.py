"""Single pictures: PNG and JPEG into the model input, no larger in memory than their header was allowed to say."""

from __future__ import annotations

import binascii
import io
from typing import Final

import cv2
import numpy as np
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from gateway.errors import BadPicture
from touchline.contract import Frame, Letterbox

MOST_PIXELS: Final = 36_000_000
"""8192x4320 is 35 million: 101 MiB as RGB."""
_KINDS: Final = {b"\x89PNG\r\n\x1a\n": PngImageFile, b"\xff\xd8\xff": JpegImageFile}


def decoded(data: bytes) -> Frame:
    """A PNG or JPEG as uint8 [H, W, 3] RGB, upright as its EXIF says.

    Raises BadPicture for anything else, and for more than MOST_PIXELS before there is memory for one of them.
    """
    width, height = header_size(data)
    if width * height > MOST_PIXELS:
        raise BadPicture(f"is {width}x{height} pixels, more than {MOST_PIXELS // 10**6} million; send it smaller")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise BadPicture(f"cannot be decoded ({error.err}); send it as PNG or JPEG") from error
    if picture is None:
        raise BadPicture("is damaged or cut off; send it again")
    return np.asarray(picture, np.uint8)


def header_size(data: bytes) -> tuple[int, int]:
    """Width and height that the header says, in pixels. Raises BadPicture for what is neither PNG nor JPEG."""
    kind = next((kind for start, kind in _KINDS.items() if data.startswith(start)), None)
    if kind is None:
        raise BadPicture("is neither PNG nor JPEG; send one of these")
    try:
        # The classes themselves: Image.open has a limit of its own, which is the process's and not ours.
        with kind(io.BytesIO(data)) as picture:
            width, height = picture.size
    except Exception as error:  # Pillow's readers raise many kinds for what breaks their rules
        raise BadPicture(f"has a header that cannot be read ({str(error)[:100]}); send it again") from error
    if width < 1 or height < 1:
        raise BadPicture("has no pixels; send another")
    return width, height


def from_base64(text: str) -> bytes:
    """The bytes of base64, with or without `data:...;base64,` before it. Raises BadPicture."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return binascii.a2b_base64(text)
    except ValueError as error:
        raise BadPicture(f"has data that is not base64 ({error}); encode the file's bytes") from error


def place(picture: Frame, target: Frame) -> Letterbox:
    """Scale RGB uint8 [h, w, 3] into `target`, uint8 [H, W, 3], grey around it; how it lies there."""
    (height, width), (input_height, input_width) = picture.shape[:2], target.shape[:2]
    letterbox = Letterbox(width, height, input_width, input_height)
    content = letterbox.content_of(target)
    size = letterbox.content_size
    # Bilinear takes two pixels of a line: of a much larger picture it would leave the others out.
    interpolation = cv2.INTER_AREA if width > 2 * size[0] else cv2.INTER_LINEAR
    cv2.resize(picture, size, content, interpolation=interpolation)
    return letterbox
