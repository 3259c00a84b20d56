"""Download of a video into an anonymous file that a decoder reads while it grows."""

from __future__ import annotations

import os
import tempfile
import threading
from types import TracebackType

import httpx

from gateway.errors import DownloadFailed, DownloadTimedOut, GatewayError


class GrowingFile:
    """A file that one side appends to and another reads; a read waits for bytes that are not there yet.

    The file has no name, so nothing is left on disk even when the process is killed. Reading is done by one thread,
    writing by one other. The reader's side is the file protocol that PyAV asks for: read, seek, tell.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="touchline-", suffix=".mp4", buffering=0)  # noqa: SIM115
        self._fd = self._file.fileno()
        self._changed = threading.Condition()
        self._written = 0
        self._size: int | None = None
        self._error: BaseException | None = None
        self._position = 0

    def expect(self, size: int) -> None:
        """Tell the final size in bytes before it is reached, so that a reader may seek from the end."""
        with self._changed:
            self._size = size

    def append(self, data: bytes) -> None:
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], self._written + written)
        with self._changed:
            self._written += len(data)
            self._changed.notify_all()

    def finish(self) -> None:
        """No more bytes will come."""
        with self._changed:
            self._size = self._written
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Make every read raise `error`, also one that waits now."""
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
                    raise OSError("the download failed") from self._error
                complete = self._size is not None and self._written >= self._size
                available = self._written - self._position
                if available > 0 and (complete or size < 0 or available >= min(size, 1)):
                    break
                if complete:
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

    def close(self) -> None:
        self.fail(OSError("the file was closed"))
        self._file.close()

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _final_size(self) -> int:
        with self._changed:
            while self._size is None:
                if self._error is not None:
                    raise OSError("the download failed") from self._error
                self._changed.wait()
            return self._size


async def download(client: httpx.AsyncClient, url: str, file: GrowingFile, *, max_bytes: int) -> None:
    """Stream `url` into `file`.

    Raises DownloadFailed for an answer other than 200 or a broken connection or a body over `max_bytes`,
    DownloadTimedOut for a host that stays silent. The same error reaches the reader of the file.
    """
    try:
        await _stream(client, url, file, max_bytes)
    except GatewayError as error:
        file.fail(error)
        raise
    except httpx.TimeoutException as error:
        silent = DownloadTimedOut(
            f"the host of {url} did not answer in time ({type(error).__name__}); send the challenge again"
        )
        file.fail(silent)
        raise silent from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        failed = DownloadFailed(f"{url} could not be downloaded: {error or type(error).__name__}; check the URL")
        file.fail(failed)
        raise failed from error
    except BaseException as error:
        file.fail(error)
        raise


async def _stream(client: httpx.AsyncClient, url: str, file: GrowingFile, max_bytes: int) -> None:
    async with client.stream("GET", url, follow_redirects=True) as response:
        if response.status_code != httpx.codes.OK:
            raise DownloadFailed(f"{url} answered {response.status_code}; the challenge needs a URL that answers 200")
        too_large = DownloadFailed(f"{url} is larger than MAX_VIDEO_MB allows ({max_bytes // 2**20} MiB)")
        length = response.headers.get("content-length", "")
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        if length.isdigit() and not encoded:
            if int(length) > max_bytes:
                raise too_large
            file.expect(int(length))
        async for chunk in response.aiter_bytes():
            if file.written + len(chunk) > max_bytes:
                raise too_large
            file.append(chunk)
    file.finish()
