"""The gateway is killed at random moments while challenges run: which of them are lost, and what is left behind."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import tritonclient.grpc as grpcclient
from rich.console import Console
from rich.table import Table

from benchmarks.common import demo_clip, fresh, parser, report, scratch, spread, status_mib, take_cores
from benchmarks.quick_engine import write_quick_engine
from demo.match import Match
from local.progress import progress_bar
from local.stack import Keys, LocalGateway, LocalStackError, make_keys
from local.triton import LocalTriton
from local.validator import (
    CLIENT_TIMEOUT_S,
    ChallengeFailed,
    challenge_body,
    check_response,
    post_challenge,
    served_file,
    signed_headers,
)

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
AGAIN_S = 0.2
"""A validator that was cut off, or found nobody, asks again after so long."""
REPLAYED = 3
REPLAY_S = 100.0
"""Nonces that are older are refused for their age."""


def main() -> None:
    arguments_of = parser(__doc__, cores=1)
    arguments_of.add_argument("--minutes", type=float, default=10.0)
    arguments_of.add_argument("--mean-s", type=float, default=15.0, help="from a start to its kill, on average")
    arguments_of.add_argument("--at-once", type=int, default=2, help="validators, each with one challenge at a time")
    arguments_of.add_argument("--seed", type=int, default=44)
    arguments_of.add_argument("--video", type=Path, help="instead of the demo clip")
    arguments = arguments_of.parse_args()
    console = Console()
    video = (arguments.video or demo_clip(console, Match()).video).resolve()
    take_cores(arguments.cores)
    with (
        scratch() as directory,
        LocalTriton(write_quick_engine(directory / "models"), log=directory / "triton.log") as triton,
        served_file(video) as url,
    ):
        keys = make_keys(directory / "keys")
        videos = directory / "videos"
        videos.mkdir()
        triton.wait_ready()
        settings = {
            **keys.environment(),
            "TRITON_URLS": triton.grpc_url,
            "TMPDIR": str(videos),
            "ANSWER_CACHE_S": "0",
        }
        gateway = LocalGateway(settings, log=directory / "gateway.log")
        siege = Siege(keys, triton, gateway, directory, url, np.random.default_rng(arguments.seed))
        siege.run(60 * arguments.minutes, arguments.mean_s, arguments.at_once, console)
    table = Table("what", "count", title=f"Killed for {arguments.minutes:g} minutes", title_justify="left")
    for name, value in siege.counted().items():
        table.add_row(name, value)
    notes = [
        f"{arguments.at_once} validators ask without a pause, models that answer at once; the time from a start to its "
        f"kill is random, {arguments.mean_s:g} s on average, and may end before the gateway is ready. Half of the "
        "kills take the gateway alone, half its whole process group, as the end of a container does. Who is cut off "
        "or refused asks again, newly signed."
    ]
    report(console, table, notes, {"counted": siege.counted(), "outcomes": dict(siege.outcomes)}, arguments)


@dataclass
class Siege:
    """Gateways that are started and killed, and validators that ask them."""

    keys: Keys
    triton: LocalTriton
    gateway: LocalGateway
    directory: Path
    url: str
    chance: np.random.Generator
    outcomes: Counter[str] = field(default_factory=Counter)
    """Of challenges, in the end, and of single attempts."""
    found: Counter[str] = field(default_factory=Counter)
    """What each start found left of the one before."""
    ready_s: list[float] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    """On time.monotonic's clock."""
    answered: list[tuple[float, bytes, dict[str, str]]] = field(default_factory=list)
    """When, and the request."""
    shared_mib: list[float] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def run(self, seconds: float, mean_s: float, at_once: int, console: Console) -> None:
        """Ask and kill for so long; then let everything that was asked be answered."""
        validators = [threading.Thread(target=self._validate, args=(number,)) for number in range(at_once)]
        began = time.monotonic()
        ends = began + seconds
        try:
            with progress_bar(console, "killing", "seconds") as advance:
                for validator in validators:
                    validator.start()
                while time.monotonic() < ends:
                    self._live(min(ends, time.monotonic() + 0.1 + self.chance.exponential(mean_s)))
                    advance(int(min(seconds, time.monotonic() - began)), int(seconds))
            self._start()
        finally:
            self._ended.set()
            for validator in validators:
                validator.join(CLIENT_TIMEOUT_S)
            self.gateway.stop()

    def counted(self) -> dict[str, str]:
        asked = sum(self.outcomes[name] for name in ("first", "again", "never"))
        replays = self.outcomes["replayed and refused"] + self.outcomes["replayed and taken"]
        lost = self.outcomes["lost by a gateway that lived"]
        return {
            "kills, of them before the gateway was ready": f"{len(self.kills)}, {self.outcomes['killed early']}",
            "seconds from a start to ready": spread(self.ready_s, 1),
            "challenges": str(asked),
            "answered when first asked": str(self.outcomes["first"]),
            "cut off by a kill or refused meanwhile, and answered when asked again": str(self.outcomes["again"]),
            "never answered": str(self.outcomes["never"]),
            "accepted by a gateway that lived on, and lost": str(lost),
            "answers that no validator would take": str(self.outcomes["wrong answer"]),
            "sent again as they were after a restart, taken": f"{self.outcomes['replayed and taken']} of {replays}",
            "regions of shared memory left": str(self.found["regions"]),
            "regions that Triton still held": str(self.found["registered"]),
            "temporary files left": str(self.found["temporary files"]),
            "other files left": str(self.found["other files"]),
            "shared memory of Triton, MiB, first and last": f"{self.shared_mib[0]:.0f}, {self.shared_mib[-1]:.0f}",
            "logs with a traceback": str(self.found["tracebacks"]),
        }

    def _count(self, outcome: str) -> None:
        with self._counting:
            self.outcomes[outcome] += 1

    def _live(self, until: float) -> None:
        """One gateway's life, until it is killed."""
        ready = self._start(until)
        while ready and (left_s := until - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.2))
        self.kills.append(time.monotonic())
        if not ready:
            self._count("killed early")
        if self.chance.random() < 0.5:
            with suppress(ProcessLookupError):
                os.killpg(self.gateway.pid or 0, signal.SIGKILL)
        self.gateway.kill()
        self.found["tracebacks"] += "Traceback" in (self.directory / "gateway.log").read_text(errors="replace")

    def _start(self, until: float = float("inf")) -> bool:
        """Start a gateway and look at what it found; False where it was not ready in time."""
        began = time.monotonic()
        self.gateway.start()
        try:
            self.gateway.wait_ready(max(0.0, min(until - began, 120.0)))
        except LocalStackError:
            if time.monotonic() < until:
                raise
            return False
        self.ready_s.append(time.monotonic() - began)
        pid = self.gateway.pid or 0
        own = set(re.findall(rf"{_SHARED_MEMORY}/(touchline-slots-\w+)", Path(f"/proc/{pid}/maps").read_text()))
        client = grpcclient.InferenceServerClient(self.triton.grpc_url)
        registered = client.get_system_shared_memory_status(client_timeout=10).regions
        self.found["regions"] += sum(map(_is_nobodys, _SHARED_MEMORY.glob("touchline-slots-*")))
        self.found["registered"] += len(set(registered) - own)
        self.found["temporary files"] += len(list((self.directory / "videos").iterdir()))
        kept = {"nodes.json", "wallets"}
        others = {path.name for path in self.keys.directory.iterdir()} - kept
        self.found["other files"] += sum(not re.fullmatch(r"nonces-\w+\.log", name) for name in others)
        self.shared_mib.append(status_mib(self.triton.pid or 0, "RssShmem"))
        self._replay()
        return True

    def _replay(self) -> None:
        """Send requests again that were answered before the kill."""
        now, pending = time.monotonic(), self.answered
        self.answered = []
        for when, body, headers in pending[-REPLAYED:]:
            if now - when < REPLAY_S:
                status = self._post(body, headers)
                self._count("replayed and taken" if status == httpx.codes.OK else "replayed and refused")

    def _validate(self, number: int) -> None:
        """Ask one challenge after the other, each until it is answered."""
        count = 0
        while not self._ended.is_set():
            count += 1
            challenge_id = f"{number}-{count}"
            body = challenge_body(fresh(self.url), challenge_id)
            deadline, attempts = time.monotonic() + CLIENT_TIMEOUT_S, 0
            while time.monotonic() < deadline:
                attempts += 1
                headers = signed_headers(self.keys.validator, self.keys.miner.ss58_address, body)
                began = time.monotonic()
                status = self._post(body, headers, challenge_id)
                if status == httpx.codes.OK:
                    self.answered.append((began, body, headers))
                    break
                # What ends without an answer is to have been killed while it was asked.
                killed = any(began <= kill for kill in self.kills) or not self.gateway.listens()
                if status == 0 and not killed:
                    self._count("lost by a gateway that lived")
                time.sleep(AGAIN_S)
            else:
                self._count("never")
                continue
            self._count("first" if attempts == 1 else "again")

    def _post(self, body: bytes, headers: Mapping[str, str], challenge_id: str | None = None) -> int:
        """The status; 0 where the connection ended before the answer, -1 where there was none."""
        try:
            answer = post_challenge(self.gateway.url, body, headers)
        except httpx.ConnectError:
            return -1
        except httpx.HTTPError:
            return 0
        if answer.status_code != httpx.codes.OK:
            self._count(str(answer.json()["error"]))
        elif challenge_id is not None:
            try:
                check_response(answer.content, challenge_id)
            except ChallengeFailed:
                self._count("wrong answer")
        return answer.status_code


def _is_nobodys(region: Path) -> bool:
    """Whether it is older than a second and no gateway of this machine holds it."""
    with suppress(OSError), region.open("rb") as file:
        if time.time() - region.stat().st_ctime < 1:
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


if __name__ == "__main__":
    main()
