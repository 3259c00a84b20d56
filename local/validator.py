"""A validator in one call: sign a challenge, send it, check the answer."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import string
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from bittensor_wallet import Keypair

from touchline.answer import parse_answer

CLIENT_TIMEOUT_S = 240.0
"""How long a validator of the subnet waits."""

_NONCE_LETTERS = string.ascii_letters + string.digits


class ChallengeFailed(Exception):
    """No video to send, a gateway that refused or could not be reached, or an answer that no validator would accept."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a validator gets back."""

    response: dict[str, Any]
    body: bytes
    elapsed_s: float
    stage_seconds: dict[str, float]
    """From the Server-Timing header; empty when a miner sends none."""
    notes: dict[str, str]
    """What the same header describes instead of timing: strides, inferred frames."""


def signed_headers(validator: Keypair, miner_hotkey: str, body: bytes) -> dict[str, str]:
    """The four headers of a signed request for these body bytes."""
    nonce = f"{time.time_ns()}_{''.join(secrets.choice(_NONCE_LETTERS) for _ in range(10))}"
    message = f"{nonce}:{miner_hotkey}:{hashlib.sha256(body).hexdigest()}"
    return {
        "validator-hotkey": validator.ss58_address,
        "miner-hotkey": miner_hotkey,
        "nonce": nonce,
        "signature": "0x" + validator.sign(message.encode()).hex(),
        "content-type": "application/json",
    }


def challenge_body(video_url: str, challenge_id: str | None = None) -> bytes:
    """A challenge as a validator writes it."""
    challenge = {
        "challenge_id": challenge_id or str(uuid.uuid4()),
        "type": "gsr",
        "video_url": video_url,
        "created_at": datetime.now(UTC).isoformat(),
    }
    return json.dumps(challenge).encode()


def post_challenge(
    gateway_url: str, body: bytes, headers: Mapping[str, str], timeout_s: float = CLIENT_TIMEOUT_S
) -> httpx.Response:
    """Whatever the gateway answers to a challenge of these body bytes. Raises httpx.HTTPError where nothing comes."""
    return httpx.post(
        f"{gateway_url.rstrip('/')}/soccer/challenge",
        content=body,
        headers=headers,
        timeout=timeout_s,
        trust_env=False,  # a proxy of the environment is for the internet, not for a gateway of one's own
    )


def send_challenge(gateway_url: str, validator: Keypair, miner_hotkey: str, video_url: str) -> Outcome:
    """Send one challenge and check the answer. Raises ChallengeFailed with what the gateway said."""
    body = challenge_body(video_url)
    headers = signed_headers(validator, miner_hotkey, body)
    begun = time.perf_counter()
    try:
        answer = post_challenge(gateway_url, body, headers)
    except httpx.HTTPError as error:
        raise ChallengeFailed(
            f"{gateway_url} could not be asked: {error or type(error).__name__}; is a gateway running there?"
        ) from error
    elapsed_s = time.perf_counter() - begun
    if answer.status_code != httpx.codes.OK:
        raise ChallengeFailed(f"{gateway_url} answered {answer.status_code}: {_detail(answer)}")
    response = check_response(answer.content, json.loads(body)["challenge_id"])
    timing = answer.headers.get("server-timing", "")
    return Outcome(response, answer.content, elapsed_s, _stage_seconds(timing), _notes(timing))


def check_response(body: bytes, challenge_id: str) -> dict[str, Any]:
    """The response, if it is what the subnet asks for. Raises ChallengeFailed saying what is not."""
    try:
        response = json.loads(body)
        numbers = list(parse_answer(response))
    except ValueError as error:
        raise ChallengeFailed(f"the answer has not the subnet's form: {error}") from error
    if response.get("challenge_id") != challenge_id:
        raise ChallengeFailed(f"the answer is for challenge {response.get('challenge_id')}, not {challenge_id}")
    if not isinstance(response.get("processing_time"), int | float):
        raise ChallengeFailed("the answer has no processing_time")
    missing = next((expected for expected, number in enumerate(numbers) if number != expected), None)
    if missing is not None:
        raise ChallengeFailed(f"the answer lacks frame {missing}")
    return dict(response)


@contextmanager
def video_url(video: str) -> Iterator[str]:
    """The URL of what a user named: a URL as it is, a file served while the block lasts. Raises ChallengeFailed."""
    if re.match(r"https?://", video):
        yield video
    elif Path(video).is_file():
        with served_file(Path(video).resolve()) as url:
            yield url
    else:
        raise ChallengeFailed(f"{video} is neither a file nor an http(s) URL; give one of these")


@contextmanager
def served_file(path: Path) -> Iterator[str]:
    """Serve one file on the loopback address and give its URL, as a validator's storage would."""

    class OneFile(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the name is the base class's
            pass

        def translate_path(self, requested: str) -> str:
            return str(path)  # whatever is asked for, it is this file

        def copyfile(self, source: Any, outputfile: Any) -> None:
            with suppress(ConnectionError):  # the gateway has what it wants, or refused the file
                super().copyfile(source, outputfile)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(OneFile))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/{quote(path.name)}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _stage_seconds(header: str) -> dict[str, float]:
    return {name: float(ms) / 1000 for name, ms in re.findall(r"([\w-]+);dur=([\d.]+)", header)}


def _notes(header: str) -> dict[str, str]:
    return dict(re.findall(r'([\w-]+);desc="([^"]*)"', header))


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
