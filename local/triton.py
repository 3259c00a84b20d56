"""A real Triton on this machine without Docker: the server of the nvidia-pytriton wheel, owned as a child process."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from local.child_process import start_child
from local.ports import free_ports

PROJECT = Path(__file__).resolve().parent.parent
DEFAULT_ENVIRONMENT = PROJECT / ".venv-triton"
DEFAULT_REPOSITORY = PROJECT / "model_repository"

_STUB_BYTES = 64 * 2**20
_CRASHES, _SOON_S = 2, 60.0
"""So often in a row Triton may crash so soon after its start."""
_CRASH_SIGNALS = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}
"""Those by which nobody ends it."""


class LocalTritonError(Exception):
    """Triton could not be started, or ended by itself."""


@dataclass(frozen=True, slots=True)
class Ports:
    grpc: int
    http: int
    metrics: int


class LocalTriton:
    """The server process: `start` it, wait until it is `ready`, `stop` it. It does not outlive its parent.

    When the block ends that it serves, nobody waits for its answers any more: it is ended at once.

    Its Python backend takes a model's process that shows no life for a second for dead, and crashes as that goes on: on
    a busy machine this happens now and then, most of all as it starts. Where it crashes it is started again, and the
    log of the crash lies beside the log.

    `environment` is the virtual environment made from requirements/triton.txt, `flags` are more of Triton's own.
    Output goes to `log`, or to the terminal when that is None.
    """

    def __init__(
        self,
        repository: Path = DEFAULT_REPOSITORY,
        *,
        environment: Path = DEFAULT_ENVIRONMENT,
        ports: Ports | None = None,
        flags: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        self.repository = repository
        self.ports = ports or Ports(*free_ports(3))
        self.log = log
        self._environment = environment
        self._flags = tuple(flags)
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._changing = threading.Lock()
        self._crashed = self._status = 0
        self._region_prefix = f"touchline-triton-{os.getpid()}-{self.ports.grpc}-"

    @property
    def grpc_url(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.metrics}/metrics"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process. Raises LocalTritonError naming what is missing."""
        server, backends, libraries = _install(self._environment)
        if not any(self.repository.glob("*/config.pbtxt")):
            raise LocalTritonError(f"{self.repository} holds no model; run `touchline export` or name another folder")
        command = [
            server,
            f"--model-repository={self.repository}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self._region_prefix}",
            f"--backend-config=python,shm-default-byte-size={_STUB_BYTES}",
            "--disable-auto-complete-config",
            "--exit-on-error=true",
            "--allow-sagemaker=false",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.ports.grpc}",
            "--http-address=127.0.0.1",
            f"--http-port={self.ports.http}",
            f"--metrics-port={self.ports.metrics}",
            *self._flags,
        ]
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": libraries,
            "PATH": f"{self._environment / 'bin'}:{os.environ.get('PATH', '')}",
            "VIRTUAL_ENV": str(self._environment),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._process = start_child(command, environment, self.log)
        kept = partial(self._keep_up, self._process, command, environment)
        self._keeper = threading.Thread(target=kept, name="triton", daemon=True)
        self._keeper.start()

    @property
    def is_ready(self) -> bool:
        """The server and all models of the repository are ready."""
        # Without the environment's proxies, which would be asked for the loopback address too.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"http://127.0.0.1:{self.ports.http}/v2/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def wait_ready(self, timeout_s: float = 60.0, waiting: Callable[[], None] = lambda: None) -> None:
        """Return when it is ready. `waiting` is called about ten times a second, for a progress bar."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready:
            if self._keeper is None or not self._keeper.is_alive():
                raise LocalTritonError(f"Triton ended while starting{self._log_tail()}")
            if time.monotonic() > deadline:
                raise LocalTritonError(f"Triton was not ready after {timeout_s:.0f} s{self._log_tail()}")
            waiting()
            time.sleep(0.1)

    def wait(self) -> int:
        """Return the exit status when the process has ended and is not started again."""
        if self._keeper is None:
            raise LocalTritonError("Triton was not started")
        self._keeper.join()
        return self._status

    def stop(self, timeout_s: float = 15.0) -> None:
        """End the process when it has answered what it was asked; its models take three seconds to be unloaded."""
        if (process := self._let_go()) is not None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout_s)
            _end_group(process)
        self._sweep()

    def end(self) -> None:
        """End the process at once, and what it left in shared memory, which is all that outlives it."""
        self.kill()
        self._sweep()

    def kill(self) -> None:
        """End the process as a crash would: all of it, and nothing is cleared away. It is not started again."""
        if (process := self._let_go()) is not None:
            _end_group(process)

    def _let_go(self) -> subprocess.Popen[bytes] | None:
        """The process, which is the caller's to end: it is not started again."""
        with self._changing:
            process, self._process = self._process, None
        return process

    def _keep_up(
        self, process: subprocess.Popen[bytes], command: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """Start it again where it crashes, unless it does so again and again."""
        soon = 0
        while True:
            begun = time.monotonic()
            self._status = process.wait()
            soon = soon + 1 if time.monotonic() - begun < _SOON_S else 1
            with self._changing:
                if self._process is not process or -self._status not in _CRASH_SIGNALS or soon > _CRASHES:
                    return
                _end_group(process)
                self._sweep()
                self._crashed += 1
                if self.log is not None:
                    self.log.replace(self.log.with_suffix(f".crash{self._crashed}{self.log.suffix}"))
                process = self._process = start_child(command, environment, self.log)

    def _sweep(self) -> None:
        for region in Path("/dev/shm").glob(f"{self._region_prefix}*"):  # noqa: S108
            region.unlink(missing_ok=True)

    def __enter__(self) -> LocalTriton:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _log_tail(self) -> str:
        if self.log is None or not self.log.exists():
            return ""
        lines = self.log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("E") or "error" in line.lower()] or lines
        return "; the end of its log:\n  " + "\n  ".join(errors[-8:])


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # its models' processes may outlive it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _install(environment: Path) -> tuple[str, Path, str]:
    """The server binary, the backend directory and the libraries of the wheel in `environment`.

    The wheel carries the Python backend and its stubs apart; Triton wants them in one directory.
    """
    packages = next(iter(sorted(environment.glob("lib/python3.*/site-packages"))), None)
    if packages is None or not (packages / "pytriton").exists():
        raise LocalTritonError(f"{environment} has no Triton; `make triton-env` makes it")
    wheel = packages / "pytriton" / "tritonserver"
    backends = environment / "triton-backends"
    if not backends.exists():
        version = packages.parent.name.removeprefix("python")
        stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
        with tempfile.TemporaryDirectory(dir=environment, prefix=".backends-") as made:
            shutil.copytree(wheel / "backends", Path(made) / "backends")
            shutil.copy2(stub, Path(made) / "backends" / "python" / stub.name)
            try:
                (Path(made) / "backends").rename(backends)
            except OSError:
                if not backends.exists():  # Else another process was faster.
                    raise
    libraries = f"{packages / 'nvidia_pytriton.libs'}:{_libpython_folder(environment, packages.parent.name)}"
    return str(wheel / "bin" / "tritonserver"), backends, libraries.rstrip(":")


def _libpython_folder(environment: Path, python: str) -> str:
    """Where lib<python>.so.1.0 lies, which Triton's Python backend loads; empty when the system's loader knows it."""
    library = f"lib{python}.so.1.0"
    for line in (environment / "pyvenv.cfg").read_text().splitlines():
        name, _, value = line.partition("=")
        folder = Path(value.strip()).parent / "lib"
        if name.strip() == "home" and (folder / library).exists():
            return str(folder)
    try:
        ctypes.CDLL(library)
    except OSError as error:
        raise LocalTritonError(
            f"Triton's Python backend needs {library}, which this Python does not bring; "
            f"on Debian or Ubuntu: apt-get install lib{python}"
        ) from error
    return ""
