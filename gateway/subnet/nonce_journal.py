"""Used nonces on disk, so that a gateway that starts again knows what the one before it was asked."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RETRY_S: Final = 5.0
"""So often a file that could not be had is asked for again: the gateway before this one may still be ending."""
_SPARE_LINES: Final = 10_000
"""So many lines more than are remembered the file may have; each is about 90 bytes."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Use:
    """One nonce that was used, and when, in seconds since 1970."""

    validator_hotkey: str
    nonce: str
    when: float


class NonceJournal:
    """A file with a line for each use, appended at once and locked while it is open.

    What cannot be written is a warning, and no reason to refuse a challenge. Not synced: a crash of the gateway loses
    nothing, one of the host the last seconds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._lines = 0
        self._tried = float("-inf")
        self._complaint = ""

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def open(self) -> list[Use] | None:
        """The uses in the file, which is this journal's from now on; None where it cannot be had, or not yet."""
        now = time.monotonic()
        if now - self._tried < RETRY_S:
            return None
        self._tried = now
        try:
            file = _locked(self.path)
            text = self.path.read_text(errors="replace")
        except BlockingIOError:
            self._complain("another gateway has it open")
            return None
        except OSError as error:
            self._complain(error.strerror or str(error))
            return None
        self._file, self._complaint = file, ""
        lines = text.splitlines()
        self._lines = len(lines)
        return [use for line in lines if (use := _read(line)) is not None]

    def add(self, use: Use, remembered: int) -> bool:
        """Append one. False: so much is in the file that is not `remembered` any more that it wants a `rewrite`."""
        self._write(_line(use))
        self._lines += 1
        return self._lines <= 2 * remembered + _SPARE_LINES

    def rewrite(self, uses: Iterable[Use]) -> None:
        """Let the file hold `uses` alone, in one step."""
        if self._file is None:
            return
        lines = [_line(use) for use in uses]
        part = self.path.with_name(f"{self.path.name}.part")
        try:
            part.unlink(missing_ok=True)
            file = _locked(part)
            try:
                part.write_bytes(b"".join(lines))
                part.replace(self.path)
            except BaseException:
                os.close(file)
                part.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._complain(error.strerror or str(error))
            self._lines = 0  # not again with the next one
            return
        os.close(self._file)
        self._file, self._lines = file, len(lines)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            written = os.write(self._file, data)
        except OSError as error:
            self._complain(error.strerror or str(error))
        else:
            if written < len(data):
                self._complain("there is no room")
            else:
                self._complaint = ""

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            _log.warning(
                "%s cannot be written (%s): nonces used now are forgotten with this process; give NODES_FILE a folder "
                "that can be written to",
                self.path,
                why.lower(),
            )
            self._complaint = why


def _locked(path: Path) -> int:
    """The file, open for appending and nobody else's. Raises BlockingIOError while another has it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file), path.stat()):
            raise BlockingIOError(errno.EAGAIN, "it was just replaced")
    except BaseException:
        os.close(file)
        raise
    return file


def _line(use: Use) -> bytes:
    # The line's end comes first: what a full disk cut off stays a line of its own.
    return f"\n{use.when:.3f} {use.validator_hotkey} {use.nonce}".encode()


def _read(line: str) -> Use | None:
    try:
        when, validator_hotkey, nonce = line.split(" ")
        return Use(validator_hotkey, nonce, float(when))
    except ValueError:
        return None
