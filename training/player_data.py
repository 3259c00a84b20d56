"""Pictures of players with their boxes: reading, balls pasted in, random views."""

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

from touchline.contract import BALL, GOALKEEPER, LETTERBOX_GREY, Letterbox
from training.data import Image, Rng, degrade, grey, move, random_view, recolour
from training.kits import change_kits

Boxes = npt.NDArray[np.float32]

KEPT: Final = 0.4
"""Share of a box that must stay in a view for its object to count."""


@dataclass(frozen=True, slots=True)
class PlayerSample:
    """One picture: JPEG bytes and boxes float32 [n, 5], class x1 y1 x2 y2 in its pixels."""

    name: str
    jpeg: bytes
    boxes: Boxes

    def image(self) -> Image:
        """Decode to uint8 [h, w, 3] RGB."""
        bgr = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def load_players(root: Path, split: str) -> list[PlayerSample]:
    """Read `root/split` of the player set (YOLO boxes)."""
    samples = []
    for path in sorted((root / split / "images").glob("*.jpg")):
        jpeg = path.read_bytes()
        height, width = grey(jpeg, path).shape
        text = (root / split / "labels" / f"{path.stem}.txt").read_text().split()
        rows = np.array(text, np.float32).reshape(-1, 5)
        centre, half = rows[:, 1:3], rows[:, 3:] / 2
        corners = np.concatenate([centre - half, centre + half], 1) * np.array([width, height] * 2, np.float32)
        samples.append(PlayerSample(path.stem, jpeg, np.column_stack([rows[:, :1], corners]).astype(np.float32)))
    return samples


def load_player_views(folder: Path) -> list[PlayerSample]:
    """Read the synthetic views that training.make_views wrote so far."""
    return [
        PlayerSample(path.stem, path.with_suffix(".jpg").read_bytes(), np.load(path))
        for path in sorted(folder.glob("[0-9]*.npy"))
    ]


def cut_balls(samples: Sequence[PlayerSample]) -> list[Image]:
    """Every labelled ball with as much grass around it as it is wide, uint8 [h, w, 3]."""
    balls = []
    for sample in samples:
        for row in sample.boxes[sample.boxes[:, 0] == BALL]:
            size = row[3:] - row[1:3]
            low, high = np.floor(row[1:3] - size).astype(int), np.ceil(row[3:] + size).astype(int)
            image = sample.image()
            if (low >= 0).all() and high[0] <= image.shape[1] and high[1] <= image.shape[0]:
                balls.append(image[low[1] : high[1], low[0] : high[0]].copy())
    return balls


def paste_ball(rng: Rng, image: Image, boxes: Boxes, ball: Image) -> Boxes:
    """Lay a ball on grass, in place; returns the boxes with its own, or as they were where no free grass was found."""
    height, width = ball.shape[:2]
    for _ in range(8):
        x, y = int(rng.integers(0, image.shape[1] - width)), int(rng.integers(0, image.shape[0] - height))
        under = image[y : y + height, x : x + width].astype(np.float32)
        red, green, blue = under.reshape(-1, 3).mean(0)
        box = np.array([x + width / 3, y + height / 3, x + 2 * width / 3, y + 2 * height / 3], np.float32)
        clear = not (
            (boxes[:, 1] < box[2]) & (boxes[:, 3] > box[0]) & (boxes[:, 2] < box[3]) & (boxes[:, 4] > box[1])
        ).any()
        if green > 1.08 * red and green > 1.08 * blue and clear:
            rows, columns = np.mgrid[0:height, 0:width] + 0.5
            distance = np.hypot((columns / width - 0.5) * 6, (rows / height - 0.5) * 6)
            alpha = np.clip(1.6 - distance, 0, 1)[..., None]
            light = float(np.clip(under.mean() / max(1.0, float(ball[0].mean())), 0.6, 1.5))
            mixed = alpha * np.clip(ball.astype(np.float32) * light, 0, 255) + (1 - alpha) * under
            image[y : y + height, x : x + width] = mixed.astype(np.uint8)
            return np.concatenate([boxes, np.array([[BALL, *box]], np.float32)])
    return boxes


def moved_boxes(boxes: Boxes, matrix: npt.NDArray[np.float64], size: tuple[int, int]) -> Boxes:
    """Boxes seen through a homography, clipped to (width, height); those mostly outside or under 1.5 px are dropped."""
    if not len(boxes):
        return boxes
    x1, y1, x2, y2 = boxes[:, 1:].T
    # A standing figure turns with the picture hardly at all: the middles of the sides move, the box stays upright.
    sides = np.stack([(x1 + x2) / 2, y1, (x1 + x2) / 2, y2, x1, (y1 + y2) / 2, x2, (y1 + y2) / 2], 1)
    points = move(matrix, sides.reshape(-1, 2).astype(np.float32)).reshape(-1, 4, 2)
    new = np.stack([points[:, 2, 0], points[:, 0, 1], points[:, 3, 0], points[:, 1, 1]], 1)
    limit = np.array([size[0], size[1]] * 2, np.float32)
    clipped = np.clip(new, 0, limit)
    area, left = (np.clip(b[:, 2:] - b[:, :2], 0, None).prod(1) for b in (new, clipped))
    keep = (left > KEPT * area) & (clipped[:, 2:] - clipped[:, :2] > 1.5).all(1)
    return np.column_stack([boxes[keep, 0], clipped[keep]]).astype(np.float32)


class PlayerDataset(Dataset[dict[str, Tensor]]):
    """Augmented pictures of players, reproducible from (seed, epoch, index); those with goalkeepers come more often."""

    def __init__(
        self,
        real: Sequence[PlayerSample],
        synthetic: Sequence[PlayerSample],
        count: int,
        synthetic_share: float,
        seed: int,
        size: tuple[int, int],
    ) -> None:
        """`count` pictures an epoch of `size` (height, width)."""
        self.real, self.synthetic = real, synthetic
        self.count, self.share, self.seed, self.size = count, synthetic_share, seed, size
        self.balls = cut_balls(real)
        weight = np.array([1.0 + (s.boxes[:, 0] == GOALKEEPER).any() for s in real])
        self.weight = weight / weight.sum()
        self.epoch = 0

    def __len__(self) -> int:
        """Pictures in an epoch."""
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """image uint8 [3, H, W]; boxes float32 [n, 5]: class, centre x, y, width, height in shares of the picture."""
        rng = np.random.default_rng((self.seed, self.epoch, index))
        height, width = self.size
        synthetic = len(self.synthetic) > 0 and rng.random() < self.share
        if synthetic:
            sample = self.synthetic[int(rng.integers(len(self.synthetic)))]
        else:
            sample = self.real[int(rng.choice(len(self.real), p=self.weight))]
        image, boxes = sample.image(), sample.boxes
        if not synthetic:
            change_kits(rng, image, boxes)
        if not synthetic and rng.random() < 0.5:
            for _ in range(int(rng.integers(1, 4))):
                boxes = paste_ball(rng, image, boxes, self.balls[int(rng.integers(len(self.balls)))])
        if rng.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
            boxes = boxes[:, [0, 3, 2, 1, 4]] * np.array([1, -1, 1, -1, 1], np.float32)
            boxes = boxes + np.array([0, image.shape[1], 0, image.shape[1], 0], np.float32)
        box = Letterbox(16, 9, width, height)
        content = box.content_size
        matrix = random_view(rng, (image.shape[1], image.shape[0]), content, bend=0.012, turn=1.5)
        # Shrinking without a low-pass filter would turn the ball into a random pixel.
        shrink = 1 / float(np.sqrt(np.abs(np.linalg.det(matrix[:2, :2] / matrix[2, 2]))))
        if shrink > 1.2:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.35 * shrink), np.uint8)
        picture = np.asarray(
            cv2.warpPerspective(image, matrix, content, borderValue=[LETTERBOX_GREY] * 3, flags=cv2.INTER_LINEAR),
            np.uint8,
        )
        hue = 4.0 if rng.random() < 0.85 else 30.0
        picture = recolour(rng, picture, hue=hue, strength=0.8)
        if rng.random() < 0.6:
            picture = degrade(rng, picture)
        boxes = moved_boxes(boxes, matrix, content)
        corners = boxes[:, 1:] + np.array(box.offset * 2, np.float32)
        unit = np.array([width, height], np.float32)
        rows = np.column_stack(
            [boxes[:, 0], (corners[:, :2] + corners[:, 2:]) / 2 / unit, (corners[:, 2:] - corners[:, :2]) / unit]
        ).astype(np.float32)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(box.placed(picture).transpose(2, 0, 1))),
            "boxes": torch.from_numpy(rows),
        }


def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch as Ultralytics' loss wants it: img uint8 [N, 3, H, W], batch_idx [n], cls [n, 1], bboxes [n, 4]."""
    boxes = torch.cat([item["boxes"] for item in items])
    owner = torch.cat([torch.full((len(item["boxes"]),), float(i)) for i, item in enumerate(items)])
    return {
        "img": torch.stack([item["image"] for item in items]),
        "batch_idx": owner,
        "cls": boxes[:, :1],
        "bboxes": boxes[:, 1:],
    }
