"""What broadcasting does to a picture: softness, edge sharpening, sensor noise, tone, compression."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from demo.canvas import Image


@lru_cache(maxsize=4)
def _grain(height: int, width: int) -> npt.NDArray[np.int16]:
    """Noise that is cut out at random places: int16 [height + 64, width + 64, 3], spread 64."""
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((height + 64, width + 64, 3), dtype=np.float32)
    soft = cv2.GaussianBlur(plain, (0, 0), 0.7)
    soft += 0.6 * soft.mean(axis=2, keepdims=True)
    return np.asarray(soft * (64 / soft.std()), np.int16)


def add_grain(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Sensor noise of this spread (in 0 to 255 steps)."""
    height, width = image.shape[:2]
    bank = _grain(height, width)
    top, left = (int(v) for v in rng.integers(0, 64, 2))
    cut = bank[top : top + height, left : left + width]
    noise = cv2.multiply(cut, 1.0, scale=sigma / 64)
    return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), np.uint8)


def soften(image: Image, sigma: float) -> Image:
    """Gaussian blur, sigma in pixels."""
    return (
        np.asarray(cv2.GaussianBlur(image, (3, 3) if sigma < 0.7 else (0, 0), sigma), np.uint8)
        if sigma > 0.2
        else image
    )


def sharpen(image: Image, amount: float) -> Image:
    """Edge enhancement as cameras do it, with its halo."""
    return np.asarray(cv2.addWeighted(image, 1 + amount, cv2.GaussianBlur(image, (5, 5), 1.2), -amount, 0), np.uint8)


def drag(image: Image, pixels: float, angle: float) -> Image:
    """Motion blur of a panning camera: length in pixels, direction in radians."""
    size = int(np.ceil(pixels)) | 1
    if size < 3:
        return image
    kernel = np.zeros((size, size), np.float32)
    centre, reach = size // 2, pixels / 2
    end = (round(centre + reach * np.cos(angle)), round(centre + reach * np.sin(angle)))
    start = (round(centre - reach * np.cos(angle)), round(centre - reach * np.sin(angle)))
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_AA)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def tone(image: Image, gains: npt.NDArray[np.float64], gamma: float, lift: float) -> Image:
    """Per-channel gain float64 [3], gamma and black lift, by look-up."""
    base = np.linspace(0, 1, 256) ** gamma
    table = np.clip((base[:, None] * gains + lift) * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


def saturate(image: Image, factor: float) -> Image:
    """Stretch colours away from grey (factor above 1) or towards it."""
    luma = np.array([0.299, 0.587, 0.114])
    matrix = factor * np.eye(3) + (1 - factor) * luma[None, :]
    return np.asarray(cv2.transform(image, matrix), np.uint8)


def compress(image: Image, quality: int) -> Image:
    """Through JPEG and back."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def rescale(image: Image, factor: float) -> Image:
    """Lose detail: down by a factor below 1 and up again."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
