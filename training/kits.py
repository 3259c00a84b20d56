"""New shirts for the people in a picture: nine matches show few of the colours that referees and keepers wear.

What makes a referee or a keeper is that the shirt is neither team's, so new colours keep away from the teams'.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from touchline.contract import GOALKEEPER, PLAYER, REFEREE

Colour = npt.NDArray[np.float32]
Patch = npt.NDArray[np.uint8]

SHIRT: Final = (0.14, 0.56)
"""Top and bottom of the shirt, in heights of the box."""

APART: Final = 75.0
"""Least distance in RGB between the shirts of two parties."""


def shirt_of(image: Patch, box: npt.NDArray[np.float32]) -> tuple[slice, slice, npt.NDArray[np.float32]] | None:
    """Rows, columns and mask float32 [h, w] (0..1) of a shirt: an oval in the upper box, without the grass."""
    x1, y1, x2, y2 = box
    height = y2 - y1
    top, bottom = int(y1 + SHIRT[0] * height), int(np.ceil(y1 + SHIRT[1] * height))
    left, right = int(x1), int(np.ceil(x2))
    if top < 0 or left < 0 or bottom > image.shape[0] or right > image.shape[1] or bottom - top < 4 or right - left < 4:
        return None
    patch = image[top:bottom, left:right]
    hsv = cv2.cvtColor(patch, cv2.COLOR_RGB2HSV)
    grass = (hsv[..., 0] > 30) & (hsv[..., 0] < 75) & (hsv[..., 1] > 60)
    rows = np.linspace(-1, 1, bottom - top, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, right - left, dtype=np.float32)[None]
    mask = ((columns / 0.8) ** 2 + (rows / 1.05) ** 2 < 1) & ~grass
    if mask.mean() < 0.2:
        return None
    return slice(top, bottom), slice(left, right), cv2.blur(mask.astype(np.float32), (3, 3))


def colour_of(image: Patch, shirt: tuple[slice, slice, npt.NDArray[np.float32]]) -> Colour:
    """Mean RGB float32 [3] of a shirt."""
    rows, columns, mask = shirt
    return np.asarray((image[rows, columns] * mask[..., None]).sum((0, 1)) / mask.sum(), np.float32)


def dye(image: Patch, shirt: tuple[slice, slice, npt.NDArray[np.float32]], colour: Colour, strength: float) -> None:
    """Give a shirt a colour, in place, keeping its folds and shadows."""
    rows, columns, mask = shirt
    patch = image[rows, columns].astype(np.float32)
    light = patch.mean(2)
    inside = light[mask > 0.5] if (mask > 0.5).any() else light
    spread = float(np.clip(inside.std(), 8, 40))
    shade = 1 + 0.35 * np.clip((light - inside.mean()) / spread, -2, 2)
    alpha = strength * mask[..., None]
    image[rows, columns] = np.clip(colour * shade[..., None] * alpha + patch * (1 - alpha), 0, 255).astype(np.uint8)


def any_colour(rng: np.random.Generator) -> Colour:
    """A shirt's colour under stadium light: often black, white or strong, at times anything."""
    if rng.random() < 0.2:
        return rng.uniform(15, 50, 3).astype(np.float32)
    hsv = np.array([[[rng.uniform(0, 180), rng.uniform(90, 245), rng.uniform(70, 235)]]], np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], np.float32)


def change_kits(rng: np.random.Generator, image: Patch, boxes: npt.NDArray[np.float32], chance: float = 0.4) -> None:
    """Dye, each with `chance`, the referees, the keepers and one of the teams, in place.

    `boxes` float32 [n, 5]: class x1 y1 x2 y2 in pixels of image uint8 [h, w, 3] RGB.
    """
    shirts = [shirt_of(image, row[1:]) for row in boxes]
    parties: dict[str, list[int]] = {"referees": [], "keepers": [], "one": [], "other": []}
    players = [i for i, row in enumerate(boxes) if row[0] == PLAYER and shirts[i] is not None]
    for index, row in enumerate(boxes):
        if shirts[index] is not None and row[0] in (REFEREE, GOALKEEPER):
            parties["referees" if row[0] == REFEREE else "keepers"].append(index)
    colours = {i: colour_of(image, shirt) for i, shirt in enumerate(shirts) if shirt is not None}
    if len(players) >= 4:
        table = np.stack([colours[i] for i in players])
        criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 10, 1.0)
        cv2.setRNGSeed(0)
        _, team, _ = cv2.kmeans(table, 2, np.zeros((len(table), 1), np.int32), criteria, 2, cv2.KMEANS_PP_CENTERS)
        parties["one"] = [players[i] for i in np.flatnonzero(team.ravel() == 0)]
        parties["other"] = [players[i] for i in np.flatnonzero(team.ravel() == 1)]
    means = {name: np.mean([colours[i] for i in who], axis=0) for name, who in parties.items() if who}
    for name in ("referees", "keepers", "one"):
        if name not in means or rng.random() > chance:
            continue
        others = [mean for party, mean in means.items() if party != name]
        for _ in range(10):
            colour = any_colour(rng)
            if all(np.linalg.norm(colour - mean) > APART for mean in others):
                strength = float(rng.uniform(0.7, 0.95))
                for index in parties[name]:
                    shirt = shirts[index]
                    if shirt is not None:
                        dye(image, shirt, colour, strength)
                means[name] = colour
                break
