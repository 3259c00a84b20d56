"""Pitch pictures with trustworthy labels, and the augmentation both networks share.

Labels are completed and corrected through the homography that the labelled points give; see `load_pitch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from touchline.contract import DEFAULT_SIZE, KEYPOINT_COUNT, LETTERBOX_GREY, Letterbox
from touchline.pitch import MIRRORED
from training.geometry import LINE_CLASSES, STRIDE, fit_any, line_segments, project

Image = npt.NDArray[np.uint8]
Rng = np.random.Generator

ABSENT: Final = 0
VISIBLE: Final = 1
UNKNOWN: Final = -1
"""State of a keypoint: a map must be empty, must peak, or is left out of the loss."""

FAR_OFF: Final = 4000.0
"""Pixels from the origin beyond which a line segment is not drawn."""

OUTLIER: Final = 0.02
"""Distance from the homography, in image widths, at which a label counts as wrong."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Painted lines cut into short segments: kind uint8 [n] (see line_segments), ends float32 [n, 2, 2] in pixels."""

    kinds: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PitchSample:
    """One picture: JPEG bytes, keypoints float32 [32, 2] in its pixels, state int8 [32], painted lines where known."""

    name: str
    jpeg: bytes
    points: npt.NDArray[np.float32]
    state: npt.NDArray[np.int8]
    lines: Lines | None = None

    def image(self) -> Image:
        """Decode to uint8 [h, w, 3] RGB."""
        bgr = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def read_labels(path: Path, width: int, height: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """One YOLO pose label: points float64 [32, 2] in pixels and visible bool [32]."""
    row = np.array(path.read_text().split()[5 : 5 + 3 * KEYPOINT_COUNT], np.float64).reshape(KEYPOINT_COUNT, 3)
    return row[:, :2] * [width, height], row[:, 2] > 0


def drawn_lines(template: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64]) -> Lines:
    """The painted lines in pixels; segments that are far off are dropped."""
    kinds: list[int] = []
    ends: list[npt.NDArray[np.float64]] = []
    for kind, line in line_segments(template):
        pixels = project(matrix, line)
        segments = np.stack([pixels[:-1], pixels[1:]], 1)
        with np.errstate(invalid="ignore"):
            segments = segments[np.abs(segments).max((1, 2)) < FAR_OFF]
        kinds += [kind] * len(segments)
        ends.append(segments)
    return Lines(np.array(kinds, np.uint8), np.concatenate(ends).astype(np.float32))


def load_pitch(root: Path, split: str) -> list[PitchSample]:
    """Read `root/split` of the pitch set with labels checked against the pitch's shape.

    Where 5 or more labels agree on a homography, a label farther from it than OUTLIER is replaced by the projection
    (with 8 or more in agreement) or ignored, and a point in the picture that nobody labelled is ignored, not punished.
    """
    samples = []
    for path in sorted((root / split / "images").glob("*.jpg")):
        jpeg = path.read_bytes()
        height, width = grey(jpeg, path).shape
        points, visible = read_labels(root / split / "labels" / f"{path.stem}.txt", width, height)
        samples.append(checked_sample(path.stem, jpeg, points, visible, (width, height)))
    return samples


def grey(jpeg: bytes, path: Path) -> Image:
    """The picture uint8 [h, w]. Raises ValueError naming `path` where the bytes are no picture."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise ValueError(f"{path} is no picture that can be read; give one or take it out")
    return np.asarray(picture, np.uint8)


def checked_sample(
    name: str,
    jpeg: bytes,
    points: npt.NDArray[np.float64],
    visible: npt.NDArray[np.bool_],
    size: tuple[int, int],
) -> PitchSample:
    """A sample whose labels have been checked as `load_pitch` says."""
    width, height = size
    inside = (points >= 0).all(1) & (points[:, 0] < width) & (points[:, 1] < height)
    state = np.where(visible & inside, VISIBLE, ABSENT).astype(np.int8)
    points = points.copy()
    lines = None
    fitted = fit_any(points, state == VISIBLE, OUTLIER * width / 2)
    if fitted is not None:
        template, matrix, inliers, residual = fitted
        count, share = int(inliers.sum()), float(inliers.sum() / (state == VISIBLE).sum())
        if count >= 5 and share >= 0.7 and residual < 0.005 * width:
            expected = project(matrix, template)
            with np.errstate(invalid="ignore"):
                in_view = (expected >= 0).all(1) & (expected[:, 0] < width) & (expected[:, 1] < height)
                wrong = (state == VISIBLE) & ~(np.linalg.norm(expected - points, axis=1) < OUTLIER * width)
            state[in_view & (state == ABSENT)] = UNKNOWN
            state[wrong] = UNKNOWN
            if count >= 8:
                points[wrong & in_view] = expected[wrong & in_view]
                state[wrong & in_view] = VISIBLE
            lines = drawn_lines(template, matrix)
    return PitchSample(name, jpeg, points.astype(np.float32), state, lines)


def load_views(folder: Path) -> list[PitchSample]:
    """Read synthetic views written by `training.make_views`: NAME.jpg beside keypoints.npy float32 [count, 32, 3]."""
    truth = np.load(folder / "keypoints.npy")
    samples = []
    for index, keypoints in enumerate(truth):
        path = folder / f"{index:06d}.jpg"
        jpeg = path.read_bytes()
        points, state = keypoints[:, :2], (keypoints[:, 2] > 0).astype(np.int8)
        lines = None
        fitted = fit_any(points.astype(np.float64), state > 0, 3.0)
        if fitted is not None and fitted[2].sum() >= 5:
            lines = drawn_lines(fitted[0], fitted[1])
        samples.append(PitchSample(path.stem, jpeg, points.astype(np.float32), state, lines))
    return samples


def letterbox(image: Image, size: tuple[int, int] = DEFAULT_SIZE) -> Image:
    """A picture uint8 [h, w, 3] as the model input uint8 [H, W, 3] of the contract."""
    height, width = size
    box = Letterbox(image.shape[1], image.shape[0], width, height)
    interpolation = cv2.INTER_AREA if box.gain < 1 else cv2.INTER_LINEAR
    return box.placed(np.asarray(cv2.resize(image, box.content_size, interpolation=interpolation), np.uint8))


def random_view(
    rng: Rng, source: tuple[int, int], target: tuple[int, int], bend: float = 0.045, turn: float = 3.0
) -> npt.NDArray[np.float64]:
    """Homography float64 [3, 3] of a camera that turned, zoomed and rolled a little; sizes are (width, height).

    `bend` is the spread of each corner in picture widths, `turn` that of the roll in degrees.
    """
    width, height = source
    scale = float(np.exp(rng.uniform(np.log(0.5), np.log(1.2)))) if rng.random() < 0.7 else rng.uniform(0.92, 1.05)
    aspect = float(np.exp(rng.normal(0, 0.07)))
    half = np.array([width * scale * aspect, height * scale / aspect]) / 2
    slack = np.abs(np.array([width, height]) / 2 - half) + 0.04 * np.array([width, height])
    centre = np.array([width, height]) / 2 + rng.uniform(-1, 1, 2) * slack
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    angle = np.radians(rng.normal(0, turn))
    rolled = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    corners = corners @ rolled.T + rng.normal(0, bend, (4, 2)) * half * 2 + centre
    goal = np.array([(0, 0), (target[0], 0), (target[0], target[1]), (0, target[1])])
    return np.asarray(cv2.getPerspectiveTransform(corners.astype(np.float32), goal.astype(np.float32)), np.float64)


def move(matrix: npt.NDArray[np.float64], points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Map float32 [n, 2] through a homography."""
    return np.asarray(cv2.perspectiveTransform(points[None].astype(np.float64), matrix)[0], np.float32)


def recolour(rng: Rng, image: Image, hue: float = 8.0, strength: float = 1.0) -> Image:
    """Light and camera changes: white balance, gamma, saturation, hue (degrees of 180), shadow, haze."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    steps = np.arange(256, dtype=np.float32)
    turned = np.mod(steps + rng.normal(0, hue), 180).astype(np.uint8)
    saturated = np.clip(steps * np.exp(rng.normal(0, 0.3 * strength)), 0, 255).astype(np.uint8)
    channels = [cv2.LUT(hsv[..., 0], turned), cv2.LUT(hsv[..., 1], saturated), hsv[..., 2]]
    image = np.asarray(cv2.cvtColor(cv2.merge(channels), cv2.COLOR_HSV2RGB), np.uint8)
    gamma, gain, lift = np.exp(rng.normal(0, 0.25)), np.exp(rng.normal(0, 0.15)), rng.normal(0, 10)
    balance = np.exp(rng.normal(0, 0.06 * strength, 3))
    curve = 255 * (steps / 255)[:, None] ** gamma * gain * balance + lift
    image = np.asarray(cv2.LUT(image, np.clip(curve, 0, 255).astype(np.uint8)[:, None, :]), np.uint8)
    if rng.random() < 0.25:
        mask = np.ones(image.shape[:2], np.float32)
        shape = rng.uniform(-0.3, 1.3, (4, 2)) * [image.shape[1], image.shape[0]]
        cv2.fillPoly(mask, [cv2.convexHull(shape.astype(np.float32)).astype(np.int32)], float(rng.uniform(0.35, 0.8)))
        image = (image * cv2.blur(mask, (9, 9))[..., None]).astype(np.uint8)
    return image


def degrade(rng: Rng, image: Image) -> Image:
    """What lenses and encoders do: blur, motion blur, a lower resolution, noise, JPEG blocks."""
    height, width = image.shape[:2]
    if rng.random() < 0.25:
        factor = rng.uniform(0.4, 0.9)
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(small, (width, height)), np.uint8)
    if rng.random() < 0.15:
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(-0.5, 0.5)
        middle = (length - 1) / 2
        reach = np.array([np.cos(angle), np.sin(angle)]) * middle
        start, end = np.round(middle - reach).astype(int), np.round(middle + reach).astype(int)
        cv2.line(kernel, start.tolist(), end.tolist(), 1.0)
        image = np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)
    elif rng.random() < 0.2:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6)), np.uint8)
    if rng.random() < 0.3:
        noise = rng.integers(-12, 13, (height, width, 1), dtype=np.int16)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return image


def cover(rng: Rng, image: Image, other: Image | None) -> Image:
    """Score boxes, captions and the like: rectangles of one colour, or pieces of another picture."""
    image = image.copy()
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(0, 4))):
        w, h = int(rng.uniform(0.03, 0.3) * width), int(rng.uniform(0.03, 0.15) * height)
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        if other is not None and rng.random() < 0.5 and min(other.shape[0] - h, other.shape[1] - w) > 0:
            u, v = int(rng.integers(0, other.shape[1] - w)), int(rng.integers(0, other.shape[0] - h))
            image[y : y + h, x : x + w] = other[v : v + h, u : u + w]
        else:
            image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return image


def mirrored(sample_points: npt.NDArray[np.float32], width: float) -> npt.NDArray[np.float32]:
    """Points float32 [32, 2] of the picture seen in a mirror, in keypoint order."""
    flipped = sample_points[MIRRORED].copy()
    flipped[:, 0] = width - flipped[:, 0]
    return flipped


def line_maps(lines: Lines, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Painted lines float32 [6, H/4, W/4] in 0..1 from segments in pixels of the input (height, width)."""
    height, width = size[0] // STRIDE, size[1] // STRIDE
    maps = np.zeros((LINE_CLASSES, height, width), np.uint8)
    cells = lines.ends / STRIDE - 0.5
    limit = np.array([width, height], np.float32)
    near = (cells.max(1) > -2).all(1) & (cells.min(1) < limit + 2).all(1) & (np.abs(cells).max((1, 2)) < FAR_OFF / 2)
    for kind, (start, end) in zip(lines.kinds[near], np.round(cells[near] * 16).astype(int).tolist(), strict=True):
        cv2.line(maps[kind], start, end, 255, 1, cv2.LINE_AA, 4)
    return np.asarray(maps.astype(np.float32) / 255, np.float32)


class PitchDataset(Dataset[dict[str, Tensor]]):
    """Augmented pitch pictures: a random view of a sample at each access, reproducible from (seed, epoch, index)."""

    def __init__(
        self,
        real: Sequence[PitchSample],
        synthetic: Sequence[PitchSample],
        count: int,
        synthetic_share: float,
        seed: int,
        size: tuple[int, int] = DEFAULT_SIZE,
    ) -> None:
        """`count` pictures an epoch, of which `synthetic_share` come from the synthetic views."""
        self.real, self.synthetic = real, synthetic
        self.count, self.share, self.seed, self.size = count, synthetic_share, seed, size
        self.epoch = 0

    def __len__(self) -> int:
        """Pictures in an epoch."""
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """image uint8 [3, H, W], points float32 [32, 2], state int8 [32], lines float32 [6, H/4, W/4], lined bool."""
        rng = np.random.default_rng((self.seed, self.epoch, index))
        synthetic = len(self.synthetic) > 0 and (not self.real or rng.random() < self.share)
        pool = self.synthetic if synthetic else self.real
        sample = pool[int(rng.integers(len(pool)))]
        image = sample.image()
        other = pool[int(rng.integers(len(pool)))].image() if rng.random() < 0.3 else None
        return self.augment(rng, image, sample, other)

    def augment(self, rng: Rng, image: Image, sample: PitchSample, other: Image | None) -> dict[str, Tensor]:
        """One random view of a sample."""
        height, width = self.size
        points, state, lines = sample.points, sample.state, sample.lines
        if rng.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
            points, state = mirrored(points, image.shape[1]), state[MIRRORED]
            if lines is not None:
                ends = lines.ends * np.array([-1, 1], np.float32) + np.array([image.shape[1], 0], np.float32)
                lines = Lines(lines.kinds, ends)
        box = Letterbox(16, 9, width, height) if rng.random() < 0.85 else Letterbox(width, height, width, height)
        content = box.content_size
        matrix = random_view(rng, (image.shape[1], image.shape[0]), content)
        fill = [int(v) for v in rng.integers(0, 256, 3)] if rng.random() < 0.5 else [LETTERBOX_GREY] * 3
        picture = np.asarray(cv2.warpPerspective(image, matrix, content, borderValue=fill), np.uint8)
        picture = degrade(rng, recolour(rng, cover(rng, picture, other)))
        points = move(matrix, points)
        inside = (points >= 0).all(1) & (points[:, 0] < content[0]) & (points[:, 1] < content[1])
        state = np.where(inside, state, ABSENT).astype(np.int8)
        offset = np.array(box.offset, np.float32)
        maps = np.zeros((LINE_CLASSES, height // STRIDE, width // STRIDE), np.float32)
        if lines is not None:
            ends = move(matrix, lines.ends.reshape(-1, 2)).reshape(-1, 2, 2) + offset
            maps = line_maps(Lines(lines.kinds, ends), self.size)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(box.placed(picture).transpose(2, 0, 1))),
            "points": torch.from_numpy(points + offset),
            "state": torch.from_numpy(state),
            "lines": torch.from_numpy(maps),
            "lined": torch.tensor(lines is not None),
        }
