"""An anonymous file that a decoder reads while a download still writes it."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

from gateway.errors import StorageFull

_PIECE_BYTES = 2**20


class HeldFile:
    """A downloaded file that outlives its challenge, without a name: it is gone when nobody holds it any more."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd, self.size = fd, size
        """`size` in bytes."""
        self.close = weakref.finalize(self, os.close, fd)
        """Once or more often."""

    def pieces(self) -> Iterator[bytes]:
        """All of it, a MiB at a time."""
        for offset in range(0, self.size, _PIECE_BYTES):
            yield os.pread(self.fd, min(_PIECE_BYTES, self.size - offset), offset)


class GrowingFile:
    """A file that one side appends to and another reads; a read waits for bytes that are not there yet.

    The file has no name, so nothing is left on disk even when the process is killed. Reading is done by one thread,
    writing by one other. The reader's side is the file protocol that PyAV asks for: read, seek, tell.
    Raises StorageFull when the temporary folder takes no file or no more bytes.
    """

    def __init__(self) -> None:
        try:
            self._file = tempfile.TemporaryFile(prefix="touchline-", suffix=".mp4", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise _no_room(error) from error
        self._fd = self._file.fileno()
        self._changed = threading.Condition()
        self._written = 0
        self._size: int | None = None
        self._error: BaseException | None = None
        self._position = 0
        self._was_read = False
        self._told = False

    def expect(self, size: int) -> None:
        """Tell the final size in bytes before it is reached, so that a reader may seek from the end."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def append(self, data: bytes) -> None:
        """Write `data` after what is there. Raises StorageFull."""
        written = 0
        try:
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], self._written + written)
        except OSError as error:
            raise _no_room(error) from error
        with self._changed:
            self._written += len(data)
            self._changed.notify_all()

    def holds(self, data: bytes, offset: int) -> bool:
        """Whether these bytes have been written there already."""
        return os.pread(self._fd, len(data), offset) == data

    def start_over(self) -> bool:
        """Forget all bytes, if no reader has seen any or was told the size; whether that was so."""
        with self._changed:
            if self._was_read:
                return False
            self._written, self._size = 0, None
        os.ftruncate(self._fd, 0)
        return True

    def finish(self) -> None:
        """No more bytes will come."""
        with self._changed:
            self._size = self._written
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Make a read raise, also one that waits now, and all further ones end. `error` says why."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    @property
    def error(self) -> BaseException | None:
        """What the writer failed with. FFmpeg turns a reader's exception into an error code, so it is kept here."""
        return self._error

    @property
    def written(self) -> int:
        """Bytes that have arrived."""
        return self._written

    @property
    def size(self) -> int | None:
        """The final size in bytes, None while it is not known."""
        return self._size

    def read(self, size: int = -1) -> bytes:
        with self._changed:
            while True:
                if self._error is not None:
                    return self._failed()
                complete = self._size is not None and self._written >= self._size
                available = self._written - self._position
                if available > 0 and (complete or size < 0 or available >= min(size, 1)):
                    self._was_read = True
                    break
                if complete:
                    self._was_read = True
                    return b""
                self._changed.wait()
            wanted = available if size < 0 else min(size, available)
        data = os.pread(self._fd, wanted, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = max(0, (self._final_size() if base is None else base) + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def hold(self) -> HeldFile:
        """The finished file for whoever wants it when this one is closed."""
        return HeldFile(os.dup(self._fd), self._written)

    def close(self) -> None:
        self.fail(OSError("the file was closed"))
        self._file.close()

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _failed(self) -> bytes:
        """Tell the reader once; what FFmpeg reads from then on ends, for PyAV prints every further error at length."""
        if self._told:
            return b""
        self._told = True
        raise OSError("the download failed")

    def _final_size(self) -> int:
        with self._changed:
            while self._size is None:
                if self._error is not None:
                    return len(self._failed())
                self._changed.wait()
            self._was_read = True
            return self._size


def _no_room(error: OSError) -> StorageFull:
    """What to tell of a file that could not be made or written. The fault is this host's, not the video's."""
    folder, free = "no temporary folder", ""
    with suppress(OSError):
        folder = tempfile.gettempdir()
        free = f", which has {shutil.disk_usage(folder).free // 2**20} MiB free"
    return StorageFull(
        f"the video could not be written to {folder}{free} ({error.strerror or error}): make room there, "
        "or let TMPDIR name another folder"
    )
