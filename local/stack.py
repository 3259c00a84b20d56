"""The whole stack on this machine, for the demo, tests and benchmarks: local Triton, gateway, throwaway keys."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from bittensor_wallet import Keypair

from local.child_process import start_child
from local.ports import free_ports
from local.triton import DEFAULT_REPOSITORY, LocalTriton
from local.validator import Outcome, send_challenge

_WALLET = "throwaway"


class LocalStackError(Exception):
    """The gateway could not be started."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Throwaway keys of a miner and of a validator that the miner's nodes.json lists."""

    directory: Path
    miner: Keypair
    validator: Keypair

    def environment(self) -> dict[str, str]:
        """The gateway's settings that make it use these keys and take videos of this machine, to try it."""
        return {
            "WALLET_PATH": str(self.directory / "wallets"),
            "WALLET_NAME": _WALLET,
            "HOTKEY_NAME": "miner",
            "NODES_FILE": str(self.directory / "nodes.json"),
            "REFRESH_NODES": "false",
            "ALLOW_PRIVATE_VIDEO_HOSTS": "true",
        }


def make_keys(directory: Path, stake: float = 10_000.0) -> Keys:
    """Write two hotkey files and a nodes.json into `directory`, or read those that are there."""
    hotkeys = directory / "wallets" / _WALLET / "hotkeys"
    hotkeys.mkdir(parents=True, exist_ok=True)
    pairs = {}
    for name in ("miner", "validator"):
        path = hotkeys / name
        if not path.exists():
            seed = os.urandom(32)
            path.touch(mode=0o600)
            path.write_text(json.dumps({"secretSeed": f"0x{seed.hex()}"}))
        pairs[name] = Keypair.create_from_seed(json.loads(path.read_text())["secretSeed"])
    nodes = {
        pair.ss58_address: {"hotkey": pair.ss58_address, "node_id": index, "netuid": 44, "stake": stake}
        for index, pair in enumerate(pairs.values())
    }
    (directory / "nodes.json").write_text(json.dumps(nodes, indent=1))
    return Keys(directory, pairs["miner"], pairs["validator"])


class LocalGateway:
    """`touchline serve` as a child process, started by `within` where that is given. It does not outlive its parent."""

    def __init__(self, settings: Mapping[str, str], *, log: Path | None = None, within: Sequence[str] = ()) -> None:
        self.port, self.metrics_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics_url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        self._settings = dict(settings)
        self._log = log
        self._within = tuple(within)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def runs(self) -> bool:
        """Whether its process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        quiet = {"CONSOLE_PORT": "0", "SCORE_CHALLENGES": "false", "LOG_FORMAT": "text"}
        ports = {"PORT": str(self.port), "METRICS_PORT": str(self.metrics_port)}
        hosts = {"HOST": "127.0.0.1", "METRICS_HOST": "127.0.0.1"}
        environment = {**os.environ, **quiet, **self._settings, **hosts, **ports}
        self._process = start_child(
            [*self._within, sys.executable, "-m", "commands.main", "serve"], environment, self._log
        )

    def health(self) -> dict[str, object] | None:
        """What the operator's /health says; None while nobody listens."""
        try:
            return dict(httpx.get(f"http://127.0.0.1:{self.metrics_port}/health", timeout=2, trust_env=False).json())
        except (httpx.HTTPError, ValueError):
            return None

    def listens(self) -> bool:
        """Whether the public port takes connections: one that ends does so no more while it finishes its challenges."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
        except OSError:
            return False
        return True

    def wait_ready(
        self, timeout_s: float = 120.0, waiting: Callable[[], None] = lambda: None, *, listening_is_enough: bool = False
    ) -> None:
        """Return when the gateway is ready for challenges. Raises LocalStackError with the end of its log."""
        deadline = time.monotonic() + timeout_s
        while True:
            health = self.health()
            if health is not None and (listening_is_enough or health["ready"]):
                return
            if not self.runs:
                raise LocalStackError(f"the gateway ended while starting{self._log_tail()}")
            if time.monotonic() > deadline:
                raise LocalStackError(f"the gateway was not ready after {timeout_s:.0f} s: {health}{self._log_tail()}")
            waiting()
            time.sleep(0.1)

    def stop(self, timeout_s: float = 15.0) -> int | None:
        """End the process as Ctrl-C would; its exit status."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def kill(self) -> None:
        """End the process as a crash would, for tests."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _log_tail(self) -> str:
        if self._log is None or not self._log.exists():
            return ""
        return "; the end of its log:\n  " + "\n  ".join(self._log.read_text(errors="replace").splitlines()[-8:])


@dataclass(frozen=True, slots=True)
class LocalStack:
    """A running stack."""

    triton: LocalTriton
    gateway: LocalGateway
    keys: Keys

    def challenge(self, video_url: str) -> Outcome:
        """Send one signed challenge. Raises ChallengeFailed."""
        return send_challenge(self.gateway.url, self.keys.validator, self.keys.miner.ss58_address, video_url)


@contextmanager
def local_stack(
    *,
    repository: Path = DEFAULT_REPOSITORY,
    settings: Mapping[str, str] | None = None,
    logs: Path | None = None,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[LocalStack]:
    """Start Triton and the gateway on free loopback ports, and end both however the block is left.

    Raises LocalTritonError or LocalStackError. Logs go to `logs`/triton.log and `logs`/gateway.log, or are dropped.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="touchline-")))
        log_directory = logs or scratch
        keys = make_keys(scratch)
        triton = stack.enter_context(LocalTriton(repository, log=log_directory / "triton.log"))
        environment = {**keys.environment(), "TRITON_URLS": triton.grpc_url, **(settings or {})}
        gateway = LocalGateway(environment, log=log_directory / "gateway.log")
        stack.callback(gateway.stop)
        gateway.start()
        triton.wait_ready(waiting=waiting)
        gateway.wait_ready(waiting=waiting)
        yield LocalStack(triton, gateway, keys)
