"""Who is who on the pitch: the detections of a whole clip joined to tracks, looking both ways in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

SPEED_SD = 3.0
"""Metres a second along each axis that a person whose movement is not known yet may be running."""
ACCELERATION = 10.0
"""Spectral density of the acceleration, m2/s3: within a second the speed changes by its root, 3 m/s."""
MAX_SPEED = 10.0
"""Nobody runs faster, m/s."""
GATE = 20.0
"""Squared Mahalanobis distance at which a detection is not that person any more."""
WEAK_COST = 4.0
"""So much nearer a weak detection has to be."""
MIN_LOST_S = 1.0

_P, _V, _PP, _PV, _VV = range(5)
_NEW: Final = -1

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class OnPitch:
    """Detections on the pitch, in frame order."""

    times_s: Floats
    """float64 [t]: of the inferred frames, ascending."""
    starts: Integers
    """int64 [t + 1]: the detections of frame k are starts[k] to starts[k + 1] - 1."""
    places: Floats
    """float64 [2, n]: in metres."""
    variances: Floats
    """float64 [2, n]: of the places, m2."""
    strong: Flags
    """bool [n]: which may begin a track."""


def tracks_on_pitch(seen: OnPitch, *, lost_s: float) -> Integers:
    """int64 [n]: the track of each detection, from 0 on; -1 for one without a track.

    A filter of constant velocity for each person and a best assignment frame by frame, first backwards, then forwards:
    on the way forwards a detection is also judged by where the way back says it goes from there.
    """
    backwards, _ = _filtered(_reversed(seen), None, lost_s)
    ahead = backwards[:, :, ::-1].copy()
    ahead[[_V, _PV]] *= -1
    return _filtered(seen, ahead, lost_s)[1]


def _reversed(seen: OnPitch) -> OnPitch:
    last = seen.starts[-1]
    return OnPitch(
        -seen.times_s[::-1], last - seen.starts[::-1], seen.places[:, ::-1], seen.variances[:, ::-1], seen.strong[::-1]
    )


def _filtered(seen: OnPitch, ahead: Floats | None, lost_s: float) -> tuple[Floats, Integers]:
    """The state at each detection by all before it, float64 [5, 2, n], and the track of each, int64 [n].

    State: place, speed and their covariance of each axis. `ahead` is the same by all that come after.
    """
    count = seen.places.shape[1]
    states = np.zeros((5, 2, count))
    states[_P], states[_PP], states[_VV] = seen.places, seen.variances, SPEED_SD**2
    track_of = np.full(count, _NEW)
    tracks, ids, lost = np.empty((5, 2, 0)), np.empty(0, np.int64), np.empty(0)
    named, before_s = 0, 0.0
    for index, now_s in enumerate(seen.times_s.tolist()):
        first, stop = seen.starts[index], seen.starts[index + 1]
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
            far = np.hypot(*(tracks[_P][:, :, None] - here[_P][:, None])) > MAX_SPEED * lost[:, None] + 2.0
            benefit = np.where(far, 0.0, np.maximum(GATE - cost, 0.0))
            rows, columns = linear_sum_assignment(benefit, maximize=True)
            good = benefit[rows, columns] > 0
            rows, columns = rows[good], columns[good]
            own = _corrected(tracks[:, :, rows], seen.places[:, first + columns], seen.variances[:, first + columns])
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
