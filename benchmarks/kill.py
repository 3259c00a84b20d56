"""The gateway is killed at random moments while challenges run: which of them are lost, and what is left behind.

What it looks for it finds: tests/benchmarks/test_kill.py lets gateways lose challenges.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
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
from local.stack import Keys, LocalGateway, make_keys
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
LEAST_LIFE_S = 0.1
"""From a gateway's readiness to its kill."""
NOBODY, CUT_OFF = -1, 0
"""Instead of a status: nobody listened, or the connection ended before the answer."""
REPLAYED = 3
REPLAY_S = 100.0
"""Nonces that are older are refused for their age."""


def main() -> None:
    arguments_of = parser(__doc__, cores=1)
    arguments_of.add_argument("--minutes", type=float, default=10.0)
    arguments_of.add_argument(
        "--mean-s", type=float, default=15.0, help="from a gateway's readiness to its kill, on average"
    )
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
        f"{arguments.at_once} validators ask without a pause, models that answer at once; the time from a gateway's "
        f"readiness to its kill is random, {arguments.mean_s:g} s on average. Half of the kills take the gateway "
        "alone, half its whole process group, as the end of a container does. Who is cut off or refused asks again, "
        "newly signed."
    ]
    report(console, table, notes, {"counted": siege.counted(), "outcomes": dict(siege.outcomes)}, arguments)


@dataclass
class Kill:
    """When a gateway was killed, on time.monotonic's clock."""

    began: float
    ended: float = float("inf")
    """When it was gone."""


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
    kills: list[Kill] = field(default_factory=list)
    answered: list[tuple[float, bytes, dict[str, str]]] = field(default_factory=list)
    """When, and the request."""
    shared_mib: list[float] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def run(self, seconds: float, mean_s: float, at_once: int, console: Console) -> None:
        """Ask and kill for so long, at least once; then let everything that was asked be answered."""
        validators = [threading.Thread(target=self._validate, args=(number,)) for number in range(at_once)]
        began = time.monotonic()
        ends = began + seconds
        try:
            with progress_bar(console, "killing", "seconds") as advance:
                for validator in validators:
                    validator.start()
                while not self.kills or time.monotonic() < ends:
                    self._live(LEAST_LIFE_S + self.chance.exponential(mean_s), self.chance.random() < 0.5)
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
            "kills": str(len(self.kills)),
            "gateways that ended before they were killed": str(self.found["ended by themselves"]),
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

    def _live(self, seconds: float, whole_group: bool) -> None:
        """One gateway's life, until it is killed so long after it was ready."""
        self._start()
        time.sleep(seconds)
        if self.gateway.runs and self.gateway.pid is not None:
            self.kills.append(kill := Kill(time.monotonic()))  # who is cut off from now on is so by this
            if whole_group:
                os.killpg(self.gateway.pid, signal.SIGKILL)
            self.gateway.kill()
            kill.ended = time.monotonic()
        else:
            self.found["ended by themselves"] += 1
        self.found["tracebacks"] += "Traceback" in (self.directory / "gateway.log").read_text(errors="replace")

    def _start(self) -> None:
        """Start a gateway and look at what it found."""
        began = time.monotonic()
        self.gateway.start()
        self.gateway.wait_ready()
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

    def _replay(self) -> None:
        """Send requests again that were answered before the kill."""
        now, pending = time.monotonic(), self.answered
        self.answered = []
        for when, body, headers in pending[-REPLAYED:]:
            if now - when < REPLAY_S:
                status = self._post(body, headers)
                self._count("replayed and taken" if status == httpx.codes.OK else "replayed and refused")

    def _validate(self, number: int) -> None:
        """Ask one challenge after the other."""
        count = 0
        while not self._ended.is_set():
            count += 1
            self.ask(f"{number}-{count}")

    def ask(self, challenge_id: str) -> None:
        """One challenge, until it is answered."""
        body = challenge_body(fresh(self.url), challenge_id)
        deadline, attempts = time.monotonic() + CLIENT_TIMEOUT_S, 0
        while time.monotonic() < deadline:
            attempts += 1
            headers = signed_headers(self.keys.validator, self.keys.miner.ss58_address, body)
            began = time.monotonic()
            status = self._post(body, headers, challenge_id)
            if status == httpx.codes.OK:
                self.answered.append((began, body, headers))
                self._count("first" if attempts == 1 else "again")
                return
            if is_lost(status, began, self.kills):
                self._count("lost by a gateway that lived")
            time.sleep(AGAIN_S)
        self._count("never")

    def _post(self, body: bytes, headers: Mapping[str, str], challenge_id: str | None = None) -> int:
        """The status, CUT_OFF or NOBODY."""
        try:
            answer = post_challenge(self.gateway.url, body, headers)
        except httpx.ConnectError:
            return NOBODY
        except httpx.HTTPError:
            return CUT_OFF
        if answer.status_code != httpx.codes.OK:
            self._count(str(answer.json()["error"]))
        elif challenge_id is not None:
            try:
                check_response(answer.content, challenge_id)
            except ChallengeFailed:
                self._count("wrong answer")
        return answer.status_code


def is_lost(status: int, began: float, kills: Sequence[Kill]) -> bool:
    """Whether a challenge that was posted at `began` was let in and not answered, though nobody was killed meanwhile.

    A 503 asks to come again.
    """
    if status == CUT_OFF:
        return all(kill.ended < began for kill in kills)
    return status not in (NOBODY, httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE)


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
