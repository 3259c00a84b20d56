"""Challenges kept on disk, a folder each: the video, the answer and how it came about.

    FOLDER/20251126-074509-312-ID/video.mp4     whatever its container is
                                  answer.json   the response's body
                                  about.json    challenge_id, validator, seconds, frames, inferred, stride, version

A challenge appears whole or not at all, and goes so too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

VIDEO, ANSWER, ABOUT = "video.mp4", "answer.json", "about.json"
_MIB: Final = 2**20
_PART: Final = ".part-"
_ABANDONED_S: Final = 600.0
"""A part that is so old belongs to a writer that was killed."""
_LONGEST_ID: Final = 60
_NAME: Final = re.compile(r"\d{8}-\d{6}-\d{3}-")
"""Of what was written here, and may be removed to make room."""


class NotKept(Exception):
    """There is no kept challenge to be read, or no room for one; the message says why."""


@dataclass(frozen=True, slots=True)
class KeptChallenge:
    """One that was kept."""

    name: str
    video: Path
    answer: Path
    about: Mapping[str, Any]
    """Empty where there is no about.json, as in a folder that was made by hand."""


def keep(
    folder: Path,
    *,
    challenge_id: str,
    video: Iterable[bytes],
    size: int,
    answer: Iterable[bytes],
    about: Mapping[str, Any],
    most: int,
    most_mb: int,
    go_on: Callable[[], bool] = lambda: True,
) -> Path | None:
    """Write a challenge into `folder`, the oldest making room for it first; where it lies, None if `go_on` said no.

    `size`: bytes of the video. Never more than `most` challenges and `most_mb` MiB
    lie there. Raises NotKept where one challenge alone is larger, OSError where the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(f"{_PART}*"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(part, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=_PART, dir=folder))
    try:
        (part / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        with (part / ANSWER).open("wb") as file:
            file.writelines(answer)
        needed = size + _bytes_in(part)
        if needed > most_mb * _MIB:
            raise NotKept(f"the challenge takes {needed / _MIB:.0f} MiB, more than the {most_mb} for all of them")
        _make_room(folder, most - 1, most_mb * _MIB - needed)
        with (part / VIDEO).open("wb") as file:
            for piece in video:
                if not go_on():
                    shutil.rmtree(part, ignore_errors=True)
                    return None
                file.write(piece)
        part.chmod(0o755)
        seconds, millis = divmod(time.time_ns() // 1_000_000, 1000)
        when = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(seconds))}-{millis:03d}"
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", challenge_id)[:_LONGEST_ID].strip("-")
        return part.rename(folder / f"{when}-{name or 'challenge'}")
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def kept_challenges(folder: Path) -> list[KeptChallenge]:
    """Those in `folder`, the oldest first, or the one that it is itself.

    Raises NotKept where there is none, or where one cannot be read.
    """
    if not folder.is_dir():
        raise NotKept(f"{folder} is no folder; name the one that KEEP_FOLDER names")
    found = []
    for place in [folder] if (folder / ANSWER).is_file() else _places(folder):
        video, answer, about = place / VIDEO, place / ANSWER, place / ABOUT
        if not (video.is_file() and answer.is_file()):
            continue
        try:
            said = json.loads(about.read_bytes()) if about.is_file() else {}
        except ValueError as error:
            raise NotKept(f"{about} is not JSON ({error}); mend it or remove it, one can do without") from error
        found.append(KeptChallenge(place.name, video, answer, said if isinstance(said, dict) else {}))
    if not found:
        raise NotKept(
            f"{folder} holds no kept challenge, a folder with {VIDEO} and {ANSWER} in it; set KEEP_CHALLENGES and wait"
        )
    return found


def _make_room(folder: Path, count: int, size: int) -> None:
    """Remove the oldest until at most `count` challenges of `size` bytes in all are left."""
    kept = [(place, _bytes_in(place)) for place in _places(folder) if _NAME.match(place.name)]
    while kept and (len(kept) > count or sum(each for _, each in kept) > size):
        oldest, _ = kept.pop(0)
        # Renamed first: nobody sees half of one.
        gone = Path(tempfile.mkdtemp(prefix=_PART, dir=folder))
        with suppress(FileNotFoundError):  # another gateway was faster
            oldest.rename(gone / oldest.name)
        shutil.rmtree(gone, ignore_errors=True)


def _places(folder: Path) -> list[Path]:
    """Folders of challenges by name, which begins with when they were kept."""
    return sorted(place for place in folder.iterdir() if (place / ANSWER).is_file() and not place.name.startswith("."))


def _bytes_in(place: Path) -> int:
    with suppress(FileNotFoundError):
        return sum(entry.stat().st_size for entry in os.scandir(place))
    return 0
