"""A miner's answer, the subnet's response JSON, as arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from touchline.contract import CLASS_NAMES, KEYPOINT_COUNT


class AnswerError(ValueError):
    """The response does not have the subnet's shape; the message says where."""


@dataclass(frozen=True, slots=True)
class FrameAnswer:
    """What an answer says about one frame, in pixels of the source video."""

    frame_number: int
    keypoints: npt.NDArray[np.float64]
    """float64 [32, 2]: x, y; (0, 0) for a keypoint that was not seen."""
    boxes: npt.NDArray[np.float32]
    """float32 [n, 4]: x1, y1, x2, y2."""
    classes: npt.NDArray[np.intp]
    """intp [n]: index into CLASS_NAMES."""
    ids: npt.NDArray[np.intp]
    """intp [n]: track ids."""

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """bool [32]: which keypoints were seen."""
        return np.asarray((self.keypoints != 0).any(axis=1), np.bool_)


def parse_answer(response: object) -> dict[int, FrameAnswer]:
    """Read a decoded response; frames by number, in ascending order.

    Raises AnswerError when the response is not an object with a non-empty list of frames, or a frame is malformed:
    a number twice, not 32 keypoints, a box that is not four finite numbers in order, an unknown class.
    """
    if not isinstance(response, Mapping) or not isinstance(response.get("frames"), list):
        raise AnswerError('the response has no "frames" list')
    if not response["frames"]:
        raise AnswerError('the response\'s "frames" list is empty')
    answers: dict[int, FrameAnswer] = {}
    for position, frame in enumerate(response["frames"]):
        answer = _parse_frame(frame, position)
        if answer.frame_number in answers:
            raise AnswerError(f"frame {answer.frame_number} is answered twice")
        answers[answer.frame_number] = answer
    return dict(sorted(answers.items()))


def processing_time(response: Mapping[str, object]) -> float | None:
    """Seconds that the miner says it took, None where it says nothing that could be one."""
    seconds = response.get("processing_time")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return float(seconds) if math.isfinite(seconds) and seconds >= 0 else None


def _parse_frame(frame: object, position: int) -> FrameAnswer:
    number = frame.get("frame_number") if isinstance(frame, Mapping) else None
    if not isinstance(frame, Mapping) or not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise AnswerError(f'entry {position} of "frames" has no frame_number')
    objects = frame.get("objects")
    if not isinstance(objects, list):
        raise AnswerError(f'frame {number} has no "objects" list')
    try:
        keypoints = np.array(frame.get("keypoints"), np.float64)
        boxes = np.array([entry["bbox"] for entry in objects], np.float32).reshape(len(objects), 4)
        classes = np.array([entry["class_id"] for entry in objects], np.intp)
        ids = np.array([entry["id"] for entry in objects], np.intp)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise AnswerError(f"frame {number} is malformed: {error!r}") from error
    if keypoints.shape != (KEYPOINT_COUNT, 2) or not np.isfinite(keypoints).all():
        raise AnswerError(f"frame {number} does not list {KEYPOINT_COUNT} keypoints as finite [x, y] pairs")
    if not np.isfinite(boxes).all() or (boxes[:, :2] > boxes[:, 2:]).any():
        raise AnswerError(f"frame {number} has a bbox that is not finite x1 <= x2, y1 <= y2")
    if ((classes < 0) | (classes >= len(CLASS_NAMES))).any():
        raise AnswerError(f"frame {number} has a class_id outside 0 to {len(CLASS_NAMES) - 1}")
    return FrameAnswer(number, keypoints, boxes, classes, ids)
