"""Single pictures: PNG and JPEG into the model input, no larger in memory than their header was allowed to say."""

from __future__ import annotations

import io
from typing import Final

import cv2
import numpy as np
import pybase64
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from gateway.errors import BadPicture
from gateway.video import png
from touchline.contract import Frame, Letterbox

MOST_PIXELS: Final = 36_000_000
"""8192x4320 is 35 million: 101 MiB as RGB."""
MOST_SCANS: Final = 50
"""Of a JPEG: encoders make up to some twenty. Each goes over all pixels, and 23 bytes are enough for one."""
_SCAN: Final = b"\xff\xda"
"""What a scan begins with; among coded pixels it cannot stand."""
_JPEG: Final = b"\xff\xd8\xff"
_KINDS: Final = {b"\x89PNG\r\n\x1a\n": PngImageFile, _JPEG: JpegImageFile}
_REDUCED: Final = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""Of OpenCV's flags the part that says by how much; what colours there are is said by another."""


def into_slot(data: bytes, target: Frame) -> Letterbox:
    """Put a PNG or JPEG into `target`, uint8 [H, W, 3] RGB, grey around it; how it lies there. Raises BadPicture."""
    size = header_size(data)
    picture = decoded(data, reduction(size, target.shape) if data.startswith(_JPEG) else 1)
    height, width = picture.shape[:2]
    # Upright it may lie across, which square reduced pictures do not show and need not.
    return place(picture, target, size if (width > height) == (size[0] > size[1]) else size[::-1])


def decoded(data: bytes, reduced: int = 1) -> Frame:
    """A PNG or JPEG as uint8 [H, W, 3] RGB, upright as its EXIF says; of a JPEG only every `reduced`-th pixel.

    Raises BadPicture for anything else, and for more than MOST_PIXELS, or MOST_SCANS, before there is memory for one.
    """
    width, height = header_size(data)
    if width * height > MOST_PIXELS:
        raise BadPicture(f"is {width}x{height} pixels, more than {MOST_PIXELS // 10**6} million; send it smaller")
    if data.startswith(_JPEG) and data.count(_SCAN) > MOST_SCANS:
        raise BadPicture(f"has more than {MOST_SCANS} scans; save it anew")
    if (usual := png.rgb(data)) is not None:
        return usual
    try:
        flags = cv2.IMREAD_COLOR_RGB | _REDUCED.get(reduced, 0)
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise BadPicture(f"cannot be decoded ({error.err}); send it as PNG or JPEG") from error
    if picture is None:
        raise BadPicture("is damaged or cut off; send it again")
    return np.asarray(picture, np.uint8)


def reduction(size: tuple[int, int], shape: tuple[int, ...]) -> int:
    """How far libjpeg may scale a picture of `size` (width, height) down while it decodes it, which saves most of the
    work: 1, 2, 4 or 8, however it is turned to lie in an input of `shape` (H, W, ...).
    """
    gain = max(min(shape[1] / size[0], shape[0] / size[1]), min(shape[1] / size[1], shape[0] / size[0]))
    # One that does not divide the size would leave a part of a pixel at the edge.
    fitting = (by for by in reversed(_REDUCED) if by * gain <= 1 and size[0] % by == size[1] % by == 0)
    return next(fitting, 1)


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
        return pybase64.b64decode(text)
    except ValueError as error:
        raise BadPicture(f"has data that is not base64 ({error}); encode the file's bytes") from error


def place(picture: Frame, target: Frame, source_size: tuple[int, int] | None = None) -> Letterbox:
    """Scale RGB uint8 [h, w, 3] into `target`, uint8 [H, W, 3], grey around it; how it lies there.

    `source_size` (width, height) where the picture was reduced.
    """
    (height, width), (input_height, input_width) = picture.shape[:2], target.shape[:2]
    source_width, source_height = source_size or (width, height)
    letterbox = Letterbox(source_width, source_height, input_width, input_height)
    content = letterbox.content_of(target)
    size = letterbox.content_size
    # Bilinear takes two pixels of a line: of a much larger picture it would leave the others out.
    interpolation = cv2.INTER_AREA if width > 2 * size[0] else cv2.INTER_LINEAR
    cv2.resize(picture, size, content, interpolation=interpolation)
    return letterbox
