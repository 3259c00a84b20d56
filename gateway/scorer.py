"""A child process that scores one answer beside its video, at the lowest priority: python -m gateway.scorer.

In a process of its own because it computes for seconds, some of them with the interpreter's lock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from local.child_process import end_with_parent

COMMAND = (sys.executable, "-m", "gateway.scorer")
LONGEST_S = 180.0
"""On a machine that has nothing better to do it takes about ten seconds."""


class NotScored(Exception):
    """The message says why."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a validator's public rules give an answer, 0 to 1: see touchline.score."""

    keypoints: float
    boxes_at_best: float


class Scorer:
    """Scores one answer at a time, for one thread. `stop` may be called by another."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def score(self, video_fd: int, answer: Iterable[bytes]) -> Scored:
        """Score the JSON of an answer about the video that lies in this file. Raises NotScored."""
        video = f"/proc/self/fd/{video_fd}"
        with self._lock:
            if self._stopped:
                raise NotScored("the gateway ends")
            self._child = subprocess.Popen(  # noqa: S603
                [*COMMAND, video],
                pass_fds=(video_fd,),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        with self._child as child:
            try:
                out, err = child.communicate(b"".join(answer), LONGEST_S)
            except subprocess.TimeoutExpired as error:
                raise NotScored(f"it took longer than {LONGEST_S:.0f} s: this machine has no time to spare") from error
            except BrokenPipeError as error:
                raise NotScored("the scorer ended too early") from error
            finally:
                child.kill()
        try:
            said = json.loads(out)
            return Scored(float(said["keypoints"]), float(said["boxes_at_best"]))
        except (ValueError, KeyError, TypeError) as error:
            lines = err.decode(errors="replace").strip().splitlines()
            raise NotScored(lines[-1] if lines else f"the scorer ended with status {child.returncode}") from error

    def stop(self) -> None:
        """Give up what is under way, and all that would follow."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()


def main() -> None:
    """Read an answer from the standard input, score it and write {"keypoints", "boxes_at_best"}."""
    end_with_parent()
    with suppress(OSError):
        os.nice(19)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # Only now: importing it is work too.
    from pathlib import Path  # noqa: PLC0415

    import cv2  # noqa: PLC0415

    from touchline.render import RenderError  # noqa: PLC0415
    from touchline.score_video import SCORED_PICTURES, score_video  # noqa: PLC0415

    cv2.setNumThreads(1)
    try:
        response = json.load(sys.stdin.buffer)
        score = score_video(Path(sys.argv[1]), response, pictures_looked_at=SCORED_PICTURES, seconds=0.0, fastest_s=1.0)
    except (RenderError, ValueError) as error:
        sys.exit(str(error))
    json.dump({"keypoints": score.keypoints, "boxes_at_best": score.boxes_at_best}, sys.stdout)


if __name__ == "__main__":
    main()
