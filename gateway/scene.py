"""Where everybody and the ball are on the pitch in every frame of a clip, and who plays for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.detections import Floats
from gateway.tracking.keypoints import Keypoints
from gateway.tracking.tracks import BALL_ID, Tracks
from touchline.contract import GOALKEEPER, PLAYER
from touchline.homography import project

NO_TEAM: Final = -1
LEAST_APART: Final = 12.0
"""CIE Lab units between the shirts of two teams; closer colours are one."""
THIRD_COLOUR: Final = 0.45
"""Share of what lies between the teams' colours: further off from both is another one."""
LEAST_PLAYERS: Final = 3
"""Of each team, before anybody is said to be of one."""
MOST_COMPARED: Final = 400
"""Shirts, each with each."""
HANDS_CM: Final = 60.0
"""What is added where a ball is only beside a keeper in the picture: it may be behind him."""
HEIGHT_CM: Final = 180.0
"""Of a person, about."""
_ROUNDS: Final = 20

Points = npt.NDArray[np.float64]
Colours = Mapping[int, tuple[Floats, Floats]]
"""By frame number: boxes float32 [n, 4] in source pixels, and the colour of each shirt, float32 [n, 3] in CIE Lab."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A clip seen from above, in centimetres."""

    fps: float
    pitch: tuple[float, float]
    """Length (x) and width (y)."""
    feet: Points
    """float64 [frames, people, 2], NaN where somebody is not seen."""
    ball: Points
    """float64 [frames, 2]: where the ball lies, or would lie where its picture is; NaN where it is not seen."""
    apart: Points
    """float64 [frames, people]: from the ball to somebody's feet or, of a keeper, to the body; NaN where not seen."""
    teams: npt.NDArray[np.int64]
    """int64 [people]: 0 for the team that defends x = 0, 1 for the other, NO_TEAM for officials and unknown."""
    keepers: npt.NDArray[np.bool_]
    """bool [people]."""


def scene_of(tracks: Tracks, keypoints: Keypoints, colours: Colours, frame_count: int) -> Scene:
    """The scene of an answer. About 60 bytes a box."""
    rows = tracks.rows(0, frame_count)
    to_picture = tracks.motion.at(np.arange(frame_count))
    known = np.flatnonzero(np.isfinite(to_picture).all(axis=(1, 2)))
    known = known[np.linalg.det(to_picture[known]) != 0]
    to_pitch = np.full_like(to_picture, np.nan)
    to_pitch[known] = np.linalg.inv(to_picture[known])
    standing = np.column_stack([(rows.xyxy[:, 0] + rows.xyxy[:, 2]) / 2, rows.xyxy[:, 3]])
    with np.errstate(invalid="ignore"):
        places = project(_seen_ahead(to_pitch[rows.frame_numbers], standing), standing[:, None])[:, 0]
    ids, person = np.unique(rows.ids, return_inverse=True)
    feet = np.full((frame_count, len(ids), 2), np.nan)
    feet[rows.frame_numbers, person] = places
    boxes = np.full((frame_count, len(ids), 4), np.nan)
    boxes[rows.frame_numbers, person] = rows.xyxy
    is_ball = ids == BALL_ID
    ball = feet[:, is_ball][:, 0] if is_ball.any() else np.full((frame_count, 2), np.nan)
    ball_boxes = boxes[:, is_ball][:, 0] if is_ball.any() else np.full((frame_count, 4), np.nan)
    feet, boxes, ids = feet[:, ~is_ball], boxes[:, ~is_ball], ids[~is_ball]
    classes = np.full(len(ids), -1)
    classes[np.searchsorted(ids, tracks.ids[tracks.ids != BALL_ID])] = tracks.classes[tracks.ids != BALL_ID]
    length, width = keypoints.ground.max(axis=0).tolist()
    teams = teams_by_shirt(shirts_by_id(tracks, colours, ids), classes == PLAYER)
    keepers = classes == GOALKEEPER
    apart = np.linalg.norm(feet - ball[:, None], axis=2)
    apart[:, keepers] = np.fmin(apart[:, keepers], from_body(ball_boxes, boxes[:, keepers]) + HANDS_CM)
    teams = sides(teams, keepers, feet, length)
    return Scene(tracks.fps, (length, width), feet, ball, apart, teams, keepers)


def _seen_ahead(to_pitch: Points, pixels: Points) -> Points:
    """Homographies float64 [n, 3, 3], each with the sign that puts its pixel, float64 [n, 2], before the camera."""
    depth = np.einsum("nj,nj->n", to_pitch[:, 2, :2], pixels) + to_pitch[:, 2, 2]
    return np.asarray(to_pitch * np.where(depth < 0, -1.0, 1.0)[:, None, None])


def from_body(ball: Points, people: Points) -> Points:
    """How far the ball, boxes float64 [n, 4], is from bodies, float64 [n, m, 4], in cm: float64 [n, m].

    As if it were as far from the camera as they are, which a ball in a keeper's hands is: on the ground below it would
    seem to lie metres behind. A body is the line from the feet up to the shoulders.
    """
    size = (people[..., 3] - people[..., 1]) / HEIGHT_CM
    x, y = ((ball[:, None, corner] + ball[:, None, corner + 2]) / 2 for corner in (0, 1))
    beside = x - (people[..., 0] + people[..., 2]) / 2
    shoulders = people[..., 1] + 0.2 * (people[..., 3] - people[..., 1])
    above = np.maximum(shoulders - y, 0) + np.maximum(y - people[..., 3], 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.hypot(beside, above) / size)


def shirts_by_id(tracks: Tracks, colours: Colours, ids: npt.NDArray[np.integer]) -> Floats:
    """float32 [n, 3]: the usual colour, CIE Lab, of each track of `ids`; NaN where none was read."""
    found: dict[int, list[Floats]] = {}
    by_box = {
        (number, *box): colour
        for number, (boxes, shades) in colours.items()
        for box, colour in zip(boxes.tolist(), shades, strict=True)
    }
    for number, track, box in zip(
        tracks.frame_numbers.tolist(), tracks.ids.tolist(), tracks.xyxy.tolist(), strict=True
    ):
        colour = by_box.get((number, *box))
        if colour is not None and np.isfinite(colour).all():
            found.setdefault(track, []).append(colour)
    usual = np.full((len(ids), 3), np.nan, np.float32)
    for row, track in enumerate(ids.tolist()):
        if track in found:
            usual[row] = np.median(found[track], axis=0)
    return usual


def team_by_id(tracks: Tracks, colours: Colours) -> dict[int, int]:
    """The team, 0 or 1, of each track whose shirts tell it."""
    ids, at = np.unique(tracks.ids, return_index=True)
    teams = teams_by_shirt(shirts_by_id(tracks, colours, ids), tracks.classes[at] == PLAYER)
    return {number: team for number, team in zip(ids.tolist(), teams.tolist(), strict=True) if team != NO_TEAM}


def teams_in(pictures: Sequence[tuple[Floats, npt.NDArray[np.integer]]]) -> list[npt.NDArray[np.int64]]:
    """The team of each box, int64 [n] a picture, of pictures of one match: shirts float32 [n, 3] and classes [n]."""
    if not pictures:
        return []
    shirts, classes = (np.concatenate([pair[which] for pair in pictures]) for which in (0, 1))
    teams = teams_by_shirt(shirts, classes == PLAYER)
    return np.split(teams, np.cumsum([len(boxes) for _, boxes in pictures])[:-1])


def teams_by_shirt(shirts: Floats, players: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """0 or 1 by the colour of the shirt, float32 [n, 3] in CIE Lab, of those who are `players`, else NO_TEAM.

    Two medians (as Lloyd 1982), begun with the two shirts that differ most (of MOST_COMPARED); light and shade count
    half. Who wears a third colour, light and shade included, is of neither: an official that the model took for a
    player, or a keeper. Team 0 has the lighter shirts.
    """
    teams = np.full(len(shirts), NO_TEAM, np.int64)
    told = np.flatnonzero(players & np.isfinite(shirts).all(axis=1))
    if len(told) < 2 * LEAST_PLAYERS:
        return teams
    colours = shirts[told] * [0.5, 1.0, 1.0]
    some = colours[:: -(-len(told) // MOST_COMPARED)]
    apart = np.linalg.norm(some[:, None] - some[None], axis=2)
    centres = some[list(np.unravel_index(int(apart.argmax()), apart.shape))]
    nearest = np.full(len(told), NO_TEAM)
    for _ in range(_ROUNDS):
        before, nearest = nearest, np.linalg.norm(colours[:, None] - centres[None], axis=2).argmin(axis=1)
        if np.array_equal(before, nearest):
            break
        if nearest.all() or not nearest.any():
            return teams
        centres = np.array([np.median(colours[nearest == team], axis=0) for team in (0, 1)])
    if centres[0, 0] < centres[1, 0]:
        nearest = 1 - nearest
    usual = np.array([np.median(shirts[told][nearest == team], axis=0) for team in (0, 1)])
    between = float(np.linalg.norm(usual[0] - usual[1]))
    off = np.linalg.norm(shirts[told] - usual[nearest], axis=1)
    if between < LEAST_APART or min(np.bincount(nearest, minlength=2)) < LEAST_PLAYERS:
        return teams
    teams[told] = np.where(off <= THIRD_COLOUR * between, nearest, NO_TEAM)
    return teams


def sides(
    teams: npt.NDArray[np.int64], keepers: npt.NDArray[np.bool_], feet: Points, length: float
) -> npt.NDArray[np.int64]:
    """The teams renumbered, 0 the one that defends x = 0, with the keepers, who are of the team whose goal is near.

    `feet` float64 [frames, people, 2] in cm. The team that is nearer to a goal in the median frame defends it.
    """
    ahead = []
    for frame in feet[:, :, 0]:
        first, second = (frame[(teams == team) & np.isfinite(frame)] for team in (0, 1))
        if len(first) >= LEAST_PLAYERS and len(second) >= LEAST_PLAYERS:
            ahead.append(first.mean() - second.mean())
    turned = bool(ahead) and float(np.median(ahead)) > 0
    renumbered = np.where(teams >= 0, 1 - teams, teams) if turned else teams.copy()
    for keeper in np.flatnonzero(keepers):
        seen = feet[np.isfinite(feet[:, keeper, 0]), keeper, 0]
        if len(seen) and ahead:
            renumbered[keeper] = int(np.median(seen) > length / 2)
    return np.asarray(renumbered, np.int64)
