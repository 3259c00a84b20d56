"""Who is who on the pitch: the detections of a whole clip joined to tracks, looking both ways in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from touchline.pitch import LENGTH_CM, WIDTH_CM

SPEED_SD = 3.0
"""Metres a second along each axis that a person whose movement is not known yet may be running."""
ACCELERATION = 10.0
"""Spectral density of the acceleration, m2/s3: within a second the speed changes by its root, 3 m/s."""
MAX_SPEED = 10.0
"""Nobody runs faster, m/s."""
GATE = 20.0
"""Squared Mahalanobis distance at which a detection is not that person any more."""
WEAK_COST = 6.0
"""So much nearer a weak detection has to be."""
REACH_M = 2.0
"""And so far they may be off besides."""
FOOT_SD = 0.08
"""How far the foot of a box is off, in heights of the box."""
PLACE_SD_CM = 15.0
"""How far the camera's homography is off."""
AROUND_CM = 1500.0
"""People stand on the pitch or this far beside it."""

_P, _V, _PP, _PV, _VV = range(5)
_NEW: Final = -1

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OnPitch:
    """Detections on the pitch, in frame order."""

    places: Floats
    """float64 [n, 2] in cm, NaN where the pitch is not known."""
    variances: Floats
    """float64 [n, 2]: of the places, cm2."""
    strong: Flags
    """bool [n]: which may begin a track."""

    def only(self, chosen: npt.NDArray[np.intp] | slice) -> OnPitch:
        return OnPitch(self.places[chosen], self.variances[chosen], self.strong[chosen])


def tracks_on_pitch(times_s: Floats, starts: npt.NDArray[np.intp], seen: OnPitch, *, lost_s: float) -> Integers:
    """int64 [n]: the track of each detection, from 0 on; -1 for one without a track.

    `times_s` float64 [t] ascend; the detections of frame k are starts[k] to starts[k + 1] - 1, and all have a place.
    A filter of constant velocity for each person and a best assignment frame by frame, first backwards, then forwards:
    on the way forwards a detection is also judged by where the way back says it goes from there.
    """
    backwards, _ = _filtered(-times_s[::-1], starts[-1] - starts[::-1], seen.only(slice(None, None, -1)), None, lost_s)
    ahead = backwards[:, :, ::-1].copy()
    ahead[[_V, _PV]] *= -1
    return _filtered(times_s, starts, seen, ahead, lost_s)[1]


def on_pitch(xyxy: Boxes, to_picture: Floats) -> tuple[Floats, Floats]:
    """Where the feet of boxes float32 [n, 4] stand, and the variances of that: float64 [n, 2] in cm and cm2, else NaN.

    `to_picture` float64 [n, 3, 3]: the pitch in the picture of each box, NaN where it is not known.
    """
    known = np.isfinite(to_picture).all(axis=(1, 2))
    to_pitch = np.full_like(to_picture, np.nan)
    to_pitch[known] = np.linalg.inv(to_picture[known])
    boxes = xyxy.astype(np.float64)
    feet = np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3], np.ones(len(boxes))], axis=1)
    mapped = np.einsum("nij,nj->ni", to_pitch, feet)
    with np.errstate(divide="ignore", invalid="ignore"):
        places = mapped[:, :2] / mapped[:, 2:]
        slopes = (to_pitch[:, :2, :2] - places[:, :, None] * to_pitch[:, 2:, :2]) / mapped[:, 2, None, None]
    variances = (FOOT_SD * (boxes[:, 3] - boxes[:, 1]))[:, None] ** 2 * (slopes**2).sum(axis=2) + PLACE_SD_CM**2
    standing = ((places > -AROUND_CM) & (places < np.array([LENGTH_CM, WIDTH_CM]) + AROUND_CM)).all(axis=1)
    return np.where(standing[:, None], places, np.nan), variances


def stretches(steps: npt.NDArray[np.bool_]) -> list[slice]:
    """The frames that bool [n - 1], from each of n frames to the next, joins."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], steps, [False]])))
    return [slice(first, stop + 1) for first, stop in edges.reshape(-1, 2).tolist()]


def joined_up(chains: Integers, online: Integers) -> Integers:
    """Tracks int64 [n], from 0 on, in order of appearance: of `chains`, and of the `online` ids where those end.

    Both int64 [n], by detection in frame order. A chain (-1: none) is right about its own detections; what it does not
    say, an online id (0: none) does: it carries on where a chain ends, or where there is none.
    """
    ends = {chain: index for index, chain in enumerate(chains.tolist()) if chain >= 0}
    begun: dict[int, int] = {}
    last: dict[int, tuple[int, int]] = {}
    tracks = []
    for index, (chain, name) in enumerate(zip(chains.tolist(), online.tolist(), strict=True)):
        track = begun.get(chain)
        if track is None:
            before, at = last.get(name, (-1, -1)) if name else (-1, -1)
            free = before >= 0 and (chains[at] < 0 or (ends[int(chains[at])] == at and chain < 0))
            track = before if free else index
        if chain >= 0:
            begun[chain] = track
        if name:
            last[name] = track, index
        tracks.append(track)
    return np.array(tracks, np.int64)


def _filtered(
    times_s: Floats, starts: npt.NDArray[np.intp], seen: OnPitch, ahead: Floats | None, lost_s: float
) -> tuple[Floats, Integers]:
    """The state at each detection by all before it, float64 [5, 2, n], and the track of each, int64 [n].

    State: place, speed and their covariance of each axis. `ahead` is the same by all that come after.
    """
    count = len(seen.places)
    places, variances = seen.places.T / 100, seen.variances.T / 100**2
    states = np.zeros((5, 2, count))
    states[_P], states[_PP], states[_VV] = places, variances, SPEED_SD**2
    track_of = np.full(count, _NEW)
    tracks, ids, lost = np.empty((5, 2, 0)), np.empty(0, np.int64), np.empty(0)
    named, before_s = 0, 0.0
    for index, now_s in enumerate(times_s.tolist()):
        first, stop = starts[index], starts[index + 1]
        step_s = now_s - before_s
        before_s = now_s
        if tracks.shape[2]:
            lost += step_s
            alive = lost <= max(lost_s, 2 * step_s + 1e-6)
            tracks, ids, lost = _predicted(tracks[:, :, alive], step_s), ids[alive], lost[alive]
        rows, columns = np.empty(0, np.intp), np.empty(0, np.intp)
        here = states[:, :, first:stop] if ahead is None else ahead[:, :, first:stop]
        if len(ids) and stop > first:
            cost = _costs(tracks, here, both=ahead is not None)
            cost += WEAK_COST * ~seen.strong[first:stop]
            far = np.hypot(*(tracks[_P][:, :, None] - here[_P][:, None])) > MAX_SPEED * lost[:, None] + REACH_M
            benefit = np.where(far, 0.0, np.maximum(GATE - cost, 0.0))
            rows, columns = linear_sum_assignment(benefit, maximize=True)
            good = benefit[rows, columns] > 0
            rows, columns = rows[good], columns[good]
            own = _corrected(tracks[:, :, rows], places[:, first + columns], variances[:, first + columns])
            tracks[:, :, rows] = own
            states[:, :, first + columns] = own
            track_of[first + columns] = ids[rows]
            lost[rows] = 0.0
        fresh = seen.strong[first:stop].copy()
        fresh[columns] = False
        new = first + np.flatnonzero(fresh)
        if len(new):
            track_of[new] = named + np.arange(len(new))
            tracks = np.concatenate([tracks, states[:, :, new]], axis=2)
            ids, lost = np.append(ids, track_of[new]), np.append(lost, np.zeros(len(new)))
            named += len(new)
    return states, track_of


def _predicted(tracks: Floats, step_s: float) -> Floats:
    """Constant velocity with white noise of acceleration (Bar-Shalom, 6.2.2)."""
    place, speed, pp, pv, vv = tracks
    noise = ACCELERATION * step_s
    return np.stack(
        [
            place + step_s * speed,
            speed,
            pp + step_s * (2 * pv + step_s * vv) + noise * step_s**2 / 3,
            pv + step_s * vv + noise * step_s / 2,
            vv + noise,
        ]
    )


def _corrected(tracks: Floats, places: Floats, variances: Floats) -> Floats:
    place, speed, pp, pv, vv = tracks
    gain_p, gain_v = pp / (pp + variances), pv / (pp + variances)
    away = places - place
    return np.stack(
        [place + gain_p * away, speed + gain_v * away, pp - gain_p * pp, pv - gain_p * pv, vv - gain_v * pv]
    )


def _costs(tracks: Floats, here: Floats, *, both: bool) -> Floats:
    """Squared Mahalanobis distance float64 [n, m] of each of `here` from each track, plus the logarithm of its spread.

    `both`: of places and speeds, else of places alone.
    """
    away = here[_P][:, None] - tracks[_P][:, :, None]
    pp = here[_PP][:, None] + tracks[_PP][:, :, None]
    if not both:
        return np.asarray((away**2 / pp + np.log(pp)).sum(axis=0))
    turn = here[_V][:, None] - tracks[_V][:, :, None]
    pv = here[_PV][:, None] + tracks[_PV][:, :, None]
    vv = here[_VV][:, None] + tracks[_VV][:, :, None]
    determinant = np.maximum(pp * vv - pv**2, 1e-9)
    distance = (vv * away**2 - 2 * pv * away * turn + pp * turn**2) / determinant
    return np.asarray((distance + np.log(pp)).sum(axis=0))
