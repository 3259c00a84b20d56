"""The log: text or JSON, each line with the request it belongs to; of what strangers cause only so much."""

from __future__ import annotations

import logging
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, Literal

import orjson

REQUEST_ID: Final = ContextVar("request_id", default="")
"""Of the request that is worked on; tasks and threads that it starts have it too."""
STRANGERS: Final = logging.getLogger("gateway.strangers")
"""What anybody can make the gateway say, at most LINES a minute of it."""
LINES: Final = 20
PERIOD_S: Final = 60.0


def log_to_stderr(level: str, form: Literal["auto", "text", "json"]) -> None:
    """Let everything be logged there; auto: for people on a terminal, else as JSON."""
    handler = logging.StreamHandler()
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    handler.setFormatter(_Json() if as_json else _Text("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for name in (STRANGERS.name, "uvicorn.error"):  # uvicorn says so of each request that is no HTTP
        logger = logging.getLogger(name)
        if not any(isinstance(known, Sparing) for known in logger.filters):
            logger.addFilter(Sparing())


class Sparing(logging.Filter):
    """Lets LINES warnings through in PERIOD_S, and says with the first of the next ones how many it kept back."""

    def __init__(self) -> None:
        super().__init__()
        self._since = self._passed = self._kept_back = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        now = time.monotonic()
        if not self._since or now - self._since > PERIOD_S:
            if self._kept_back:
                record.msg = f"{record.msg} (and {self._kept_back:.0f} like it before, in {now - self._since:.0f} s)"
            self._since, self._passed, self._kept_back = now, 0.0, 0.0
        self._passed += 1
        if self._passed > LINES:
            self._kept_back += 1
            return False
        return True


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name is the base class's
        line = super().formatMessage(record)
        return f"{line} [{request_id}]" if (request_id := REQUEST_ID.get()) else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            said["request"] = request_id
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(said, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
