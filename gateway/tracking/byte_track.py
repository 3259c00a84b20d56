"""ByteTrack (Zhang 2022) with the state of all tracks in one array, a column each."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from touchline.overlap import Boxes, diou

MEASUREMENT_NOISE = 0.1
PROCESS_NOISE = 0.01
_NOMINAL_STEP_S = 0.004

_POSITION: Final = slice(0, 4)
_VELOCITY: Final = slice(4, 8)
_PP, _PV, _VV, _LOST_S, _HITS, _ID = range(8, 14)

Columns = npt.NDArray[np.intp]
Ids = npt.NDArray[np.int64]


class ByteTrack:
    """Gives the boxes of one person the same id, frame after frame.

    What `trackers.ByteTrackTracker` answers with a time stamp a frame, DIoU and minimum_consecutive_frames=1, to
    rounding, at a fifth of its cost. Each track is four equal constant-velocity filters, one a coordinate, whose
    covariance (variances of position and velocity, and between them) does not depend on what is measured: three numbers
    serve all four, and no matrix is inverted (Bar-Shalom, Estimation with Applications to Tracking and Navigation, 6.2
    and 6.3.2 for the noise of a longer step).
    """

    def __init__(self, *, frame_rate: float, lost_s: float, confidence: float, min_diou: float) -> None:
        self._frame_rate = frame_rate
        self.lost_s = lost_s
        """A track that was not seen for longer ends."""
        self._confidence = confidence
        self.min_diou = min_diou
        """The least of boxes that are one person's."""
        self._tracks = np.empty((14, 0))
        self._last_s: float | None = None
        self._last_id = 0

    def update(self, at_s: float, boxes: Boxes, scores: npt.NDArray[np.floating]) -> Ids:
        """Take the boxes, float64 [4, n] in pixels, of the frame at `at_s` seconds, later than the one before.

        int64 [n]: the id of each, from 1 on in order of appearance; 0 for a box without a track, as a new one is that
        starts a track with a score of at least `confidence`. Boxes with lower scores may only continue tracks that no
        other box continues.
        """
        self._predict(at_s)
        self._keep(self._tracks[_LOST_S] <= self.lost_s)
        confident = scores >= self._confidence
        high, low = np.flatnonzero(confident), np.flatnonzero(~confident)
        tracks, found = self._match(np.arange(self._tracks.shape[1]), high, boxes)
        unseen = np.ones(self._tracks.shape[1], bool)
        unseen[tracks] = False
        low_tracks, low_found = self._match(np.flatnonzero(unseen), low, boxes)
        ids = np.zeros(len(scores), np.int64)
        self._correct(np.concatenate([tracks, low_tracks]), np.concatenate([found, low_found]), boxes, ids)
        confident[found] = False
        self._begin(boxes[:, confident])
        # One that was never seen twice ends with the second frame that does not show it.
        self._keep((self._tracks[_ID] > 0) | (self._tracks[_HITS] > 0) | (self._tracks[_LOST_S] == 0))
        return ids

    def _predict(self, at_s: float) -> None:
        tracks, noise = self._tracks, PROCESS_NOISE
        elapsed_s = at_s - self._last_s if self._last_s is not None else 1 / self._frame_rate
        step = elapsed_s * self._frame_rate
        self._last_s = at_s
        noise_pp, noise_pv, noise_vv = noise * step**4 / 4, noise * step**3 / 2, noise * step**2
        if abs(step - 1.0) <= _NOMINAL_STEP_S * self._frame_rate:
            noise_pp, noise_pv, noise_vv = noise, 0.0, noise
        tracks[_POSITION] += step * tracks[_VELOCITY]
        tracks[_PP] += step * (2 * tracks[_PV] + step * tracks[_VV]) + noise_pp
        tracks[_PV] += step * tracks[_VV] + noise_pv
        tracks[_VV] += noise_vv
        tracks[_HITS] *= tracks[_LOST_S] == 0
        tracks[_LOST_S] += elapsed_s

    def _match(self, tracks: Columns, candidates: Columns, boxes: Boxes) -> tuple[Columns, Columns]:
        """Pairs of one of `tracks` and one of `candidates` with the largest sum of DIoU."""
        if not (len(tracks) and len(candidates)):
            return tracks[:0], candidates[:0]
        closeness = diou(self._tracks[_POSITION, tracks], boxes[:, candidates])
        rows, columns = linear_sum_assignment(closeness, maximize=True)
        close = closeness[rows, columns] >= self.min_diou
        return tracks[rows[close]], candidates[columns[close]]

    def _correct(self, chosen: Columns, found: Columns, boxes: Boxes, ids: Ids) -> None:
        """Kalman's update of the `chosen` tracks with the boxes `found`; writes their ids into `ids`."""
        if not len(chosen):
            return
        tracks = self._tracks[:, chosen]
        innovation = boxes[:, found] - tracks[_POSITION]
        gain_p, gain_v = tracks[_PP : _PV + 1] / (tracks[_PP] + MEASUREMENT_NOISE)
        tracks[_POSITION] += gain_p * innovation
        tracks[_VELOCITY] += gain_v * innovation
        tracks[_VV] -= gain_v * tracks[_PV]
        tracks[_PV] -= gain_p * tracks[_PV]
        tracks[_PP] -= gain_p * tracks[_PP]
        tracks[_LOST_S] = 0
        tracks[_HITS] += 1
        unnamed = np.flatnonzero(tracks[_ID] == 0)
        tracks[_ID, unnamed] = self._last_id + 1 + np.arange(len(unnamed))
        self._last_id += len(unnamed)
        self._tracks[:, chosen] = tracks
        ids[found] = tracks[_ID]

    def _begin(self, boxes: Boxes) -> None:
        if boxes.shape[1]:
            tracks = np.zeros((14, boxes.shape[1]))
            tracks[_POSITION] = boxes
            tracks[[_PP, _VV, _HITS]] = 1
            self._tracks = np.concatenate([self._tracks, tracks], axis=1)

    def _keep(self, chosen: npt.NDArray[np.bool_]) -> None:
        if not chosen.all():
            self._tracks = self._tracks[:, chosen]
