"""The state estimator of the `trackers` library, at a tenth of its cost: four coordinates that share one covariance."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from trackers.utils.state_representations import BaseStateEstimator

_NOMINAL_STEP_S = 0.004


class SharedCovarianceEstimator(BaseStateEstimator):  # type: ignore[misc]  # the library is untyped
    """XYXYStateEstimator's constant-velocity filter of [x1, y1, x2, y2], to rounding.

    Its 8 x 8 matrices are four equal, independent filters of position and velocity, whose covariance, 2 x 2, does not
    depend on what is measured: three numbers serve all four coordinates, and no matrix is inverted (Bar-Shalom,
    Estimation with Applications to Tracking and Navigation, 6.2 and 6.3.2 for the noise of a longer step).
    """

    def __init__(self, bbox: npt.NDArray[Any]) -> None:
        self.kf = SimpleNamespace(measurement_noise=np.eye(4), process_noise=np.eye(8))
        self._position = np.asarray(bbox, np.float64).reshape(4)
        self._velocity = np.zeros(4)
        self._pp, self._pv, self._vv = 1.0, 0.0, 1.0
        self._measurement_noise = self._process_noise = 1.0

    def set_kf_covariances(
        self,
        measurement_noise: npt.NDArray[Any] | None = None,
        process_noise: npt.NDArray[Any] | None = None,
        state_covariance: npt.NDArray[Any] | None = None,
    ) -> None:
        """Take the noise of the tracklet: multiples of the identity, as ByteTrackTracklet sets them."""
        if measurement_noise is not None:
            self._measurement_noise = float(measurement_noise[0, 0])
        if process_noise is not None:
            self._process_noise = float(process_noise[0, 0])
        if state_covariance is not None:
            self._pp, self._pv, self._vv = float(state_covariance[0, 0]), 0.0, float(state_covariance[4, 4])

    def predict(self, frame_step: float = 1.0, frame_rate: float | None = None) -> None:
        """Move on by `frame_step` frames."""
        noise = self._process_noise
        if abs(frame_step - 1.0) <= (_NOMINAL_STEP_S * frame_rate if frame_rate else 0.1):
            noise_pp, noise_pv, noise_vv = noise, 0.0, noise
        else:
            noise_pp, noise_pv, noise_vv = noise * frame_step**4 / 4, noise * frame_step**3 / 2, noise * frame_step**2
        self._position = self._position + frame_step * self._velocity
        self._pp += frame_step * (2 * self._pv + frame_step * self._vv) + noise_pp
        self._pv += frame_step * self._vv + noise_pv
        self._vv += noise_vv

    def update(self, bbox: npt.NDArray[Any] | None) -> None:
        """Take a measurement [x1, y1, x2, y2]; None changes nothing."""
        if bbox is None:
            return
        innovation = bbox - self._position
        gain_p = self._pp / (self._pp + self._measurement_noise)
        gain_v = self._pv / (self._pp + self._measurement_noise)
        self._position = self._position + gain_p * innovation
        self._velocity = self._velocity + gain_v * innovation
        self._vv -= gain_v * self._pv
        self._pv -= gain_p * self._pv
        self._pp -= gain_p * self._pp

    def state_to_bbox(self) -> npt.NDArray[np.float64]:
        return self._position

    def bbox_to_measurement(self, bbox: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return bbox

    def clamp_velocity(self, frame_step: float = 1.0) -> None:
        """Nothing to clamp, as in XYXYStateEstimator."""

    def _create_filter(self, bbox: npt.NDArray[Any]) -> None:
        raise NotImplementedError("the filter is this object's own numbers")
