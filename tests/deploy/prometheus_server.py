"""A real Prometheus as a child process, with the project's own configuration pointed at servers of a test."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import yaml

from local.child_process import end_with_parent
from local.ports import free_ports
from tests.deploy.files import DEPLOY, from_yaml
from tests.support.installed import installed


def binary(name: str) -> str:
    """Path of a tool of Debian's package prometheus."""
    return installed(name, "prometheus")


class PrometheusServer:
    """Runs deploy/prometheus with other targets, by job name, with short intervals and alerts that do not wait."""

    def __init__(self, directory: Path, targets: Mapping[str, Sequence[str]]) -> None:
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        self._directory = directory
        config = from_yaml((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"}
        jobs = [job for job in config["scrape_configs"] if job["job_name"] in targets]
        for job in jobs:
            job["static_configs"] = [{"targets": list(targets[job["job_name"]])}]
        config["scrape_configs"] = jobs
        (directory / "rules").mkdir(parents=True)
        for path in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml")):
            rules = from_yaml(path.read_text())
            for group in rules["groups"]:
                for rule in group["rules"]:
                    rule.pop("for", None)
            (directory / "rules" / path.name).write_text(yaml.safe_dump(rules))
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrometheusServer:
        command = [
            binary("prometheus"),
            f"--config.file={self._directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._directory / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,  # noqa: PLW1509
            )
        self.until(self._ready, "Prometheus is ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        result = answer["data"]["result"]
        assert isinstance(result, list)
        return result

    def alerts(self) -> dict[str, dict[str, Any]]:
        """The alerts that fire now, by name."""
        found = httpx.get(f"{self.url}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in found if alert["state"] == "firing"}

    def until(self, holds: Callable[[], Any], what: str, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}\n{self._log()}"
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    def _log(self) -> str:
        return "\n".join((self._directory / "log").read_text().splitlines()[-8:])
