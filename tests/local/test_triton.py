"""The local Triton's own preparations, on a wheel of empty files, and what is left when it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local.triton import LocalTriton, LocalTritonError, _install
from tests.support.quick_models import write_quick_models


def test_two_that_start_at_once_share_one_directory_of_backends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyvenv.cfg").write_text(f"home = {tmp_path}/bin\n")
    wheel = tmp_path / "lib/python3.12/site-packages/pytriton/tritonserver"
    stub = wheel / "python_backend_stubs/3.12/triton_python_backend_stub"
    for path in (tmp_path / "lib/libpython3.12.so.1.0", wheel / "backends/python/model.so", stub):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    both_made = threading.Barrier(2)
    rename = Path.rename

    def wait_and_rename(made: Path, target: Path) -> Path:
        both_made.wait(timeout=10)
        return rename(made, target)

    monkeypatch.setattr(Path, "rename", wait_and_rename)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(_install, [tmp_path, tmp_path])
    assert first == second
    assert {path.name for path in (first[1] / "python").iterdir()} == {"model.so", "triton_python_backend_stub"}
    assert not list(tmp_path.glob(".backends-*"))


@pytest.mark.parametrize("how", ["stop", "end"])
def test_no_process_and_no_shared_memory_outlives_it(how: str, tmp_path: Path) -> None:
    with LocalTriton(write_quick_models(tmp_path / "models"), log=tmp_path / "log") as triton:
        triton.wait_ready()
        pid, regions = triton.pid, f"touchline-triton-{os.getpid()}-{triton.ports.grpc}-*"
        assert pid is not None
        assert list(Path("/dev/shm").glob(regions))
        getattr(triton, how)()
        assert triton.pid is None
        assert not list(Path("/dev/shm").glob(regions))
        assert not left_of({pid}), "the models' processes are of its group"


@pytest.mark.parametrize("crashes", [2, 3])
def test_one_that_crashes_as_it_starts_is_started_again_a_few_times(crashes: int, tmp_path: Path) -> None:
    crashed: set[int] = set()

    def crash() -> None:
        if triton.pid and len(crashed) < crashes:
            crashed.add(triton.pid)
            os.kill(triton.pid, signal.SIGABRT)

    with LocalTriton(write_quick_models(tmp_path / "models"), log=tmp_path / "log") as triton:
        if crashes == 2:
            triton.wait_ready(waiting=crash)
        else:
            with pytest.raises(LocalTritonError, match="ended while starting"):
                triton.wait_ready(waiting=crash)
        assert len(crashed) == crashes == len(list(tmp_path.glob("log.crash*"))) + (crashes == 3)
    assert not list(Path("/dev/shm").glob(f"touchline-triton-{os.getpid()}-{triton.ports.grpc}-*"))
    assert not left_of(crashed), "its models' processes end with it"


def test_one_that_crashes_as_it_serves_is_started_again_and_one_that_is_killed_is_not(tmp_path: Path) -> None:
    with LocalTriton(write_quick_models(tmp_path / "models"), log=tmp_path / "log") as triton:
        triton.wait_ready()
        crashed = triton.pid
        assert crashed is not None
        os.kill(crashed, signal.SIGSEGV)
        until = time.monotonic() + 60
        while triton.pid == crashed and time.monotonic() < until:
            time.sleep(0.02)
        triton.wait_ready()
        assert triton.pid != crashed
        assert not left_of({crashed})
        assert (tmp_path / "log.crash1").exists()
        triton.kill()
        assert triton.wait() == -signal.SIGKILL
        assert not triton.is_ready
        triton.start()
        triton.wait_ready()


def left_of(groups: set[int]) -> set[int]:
    """Those of the process groups that still run, a moment later: what is killed has to be reaped."""
    until = time.monotonic() + 10
    while (left := set(filter(running, groups))) and time.monotonic() < until:
        time.sleep(0.02)
    return left


def running(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
