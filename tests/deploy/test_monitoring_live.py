"""The real Prometheus scrapes a running gateway and Triton; every query of the dashboards is executed against it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from local.ports import free_ports
from local.stack import LocalStack, local_stack
from tests.deploy.files import DEPLOY, compose, from_yaml
from tests.deploy.prometheus_server import PrometheusServer, binary
from tests.support.pictures import picture
from tests.support.quick_models import write_quick_models
from tests.support.videos import make_video

# No GPU here: what Triton says of one, by the names of its documentation, is served from a file.
GPU = """\
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.83
nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 17179869184
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 9126805504
nv_gpu_power_usage{gpu_uuid="GPU-1"} 121.5
"""


@dataclass
class Watched:
    stack: LocalStack
    prometheus: PrometheusServer


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, web: tuple[str, Path]) -> Iterator[Watched]:
    """A miner that has answered challenges while Prometheus looked on."""
    binary("prometheus")
    directory = tmp_path_factory.mktemp("monitoring")
    address, folder = web
    (folder / "metrics").write_text(GPU)
    make_video(folder / "watched.mp4", 20)
    make_video(folder / "watched-again.mp4", 30)
    cameras = directory / "cameras.yaml"
    cameras.write_text("- {id: tape, url: 'file:watched.mp4', loop: true, skip: 5}\n")
    settings = {
        "IMG_SIZE": "160",
        "DEVICE": "cpu",
        "SCORE_CHALLENGES": "true",
        "LIVE": "true",
        "PROTOCOLS": "soccer,predict",
        "CONSOLE_PORT": str(free_ports(1)[0]),
    }
    settings |= {"CAMERAS_FILE": str(cameras), "LIVE_FILES_DIR": str(folder)}
    with local_stack(repository=write_quick_models(directory / "models"), settings=settings, logs=directory) as stack:
        targets = {
            "gateway": [f"127.0.0.1:{stack.gateway.metrics_port}"],
            "triton": [
                stack.triton.metrics_url.removeprefix("http://").removesuffix("/metrics"),
                address[len("http://") :],
            ],
        }
        with PrometheusServer(directory / "prometheus", targets) as prometheus:
            prometheus.until(lambda: len(prometheus.query("up == 1")) == 3, "all targets are up")
            prometheus.until(lambda: prometheus.query("touchline_inference_ready == 1"), "the gateway is ready")
            pictures = {"frames": [{"frame_id": number, "data": picture(9)} for number in range(2)]}
            assert httpx.post(f"{stack.gateway.url}/predict", json=pictures, timeout=30).json()["success"]
            prometheus.until(
                lambda: prometheus.query("touchline_prediction_pictures_sum == 2"), "pictures were counted"
            )
            for number, name in enumerate(("watched.mp4", "watched-again.mp4"), 1):
                stack.challenge(f"{address}/{name}")
                answered = f'touchline_challenges_total{{outcome="answered"}} == {number}'
                prometheus.until(partial(prometheus.query, answered), f"challenge {number} was counted")
            prometheus.until(lambda: prometheus.query("touchline_score"), "an answer was scored", timeout_s=120)
            prometheus.until(
                lambda: prometheus.query("touchline:stage_seconds:p95_15m > 0"), "the rules were evaluated"
            )
            inferred = 'rate(touchline_live_frames_total{kind="inferred"}[1m]) > 0'
            prometheus.until(partial(prometheus.query, inferred), "the camera was watched")
            yield Watched(stack, prometheus)


def queries() -> list[tuple[str, str]]:
    """Title of the panel and expression of every query, variables replaced as Grafana would."""
    found = []
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        values = {entry["name"]: entry["current"]["value"] for entry in dashboard["templating"]["list"]}
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"].replace("$__rate_interval", "1m")
                for name, value in values.items():
                    expression = expression.replace(f"${name}", value)
                found.append((panel["title"], expression))
    return found


def test_rules_load_and_evaluate(watched: Watched) -> None:
    names = {
        rule["record"]
        for group in from_yaml((DEPLOY / "prometheus" / "rules" / "recording.yml").read_text())["groups"]
        for rule in group["rules"]
    }
    for name in names:
        watched.prometheus.until(partial(watched.prometheus.query, name), f"{name} has a value")


def test_every_series_that_a_rule_names_is_there(watched: Watched) -> None:
    """An alert on a misspelt series would be silent for ever."""
    named = set()
    for path in (DEPLOY / "prometheus" / "rules").glob("*.yml"):
        for group in from_yaml(path.read_text())["groups"]:
            for rule in group["rules"]:
                named |= set(re.findall(r"\b(?:touchline|nv)[_:][\w:]+", rule["expr"]))
    assert len(named) > 10
    for name in named:
        assert watched.prometheus.query(name), name


@pytest.mark.parametrize(("title", "expression"), [q for q in queries() if "ALERTS{" not in q[1]])
def test_a_dashboards_query_returns_data(watched: Watched, title: str, expression: str) -> None:
    samples = watched.prometheus.query(expression)
    assert samples, f"{title}: no data for {expression}"
    assert all(math.isfinite(float(sample["value"][1])) for sample in samples), samples


def test_the_health_check_asks_what_prometheus_answers(watched: Watched) -> None:
    url = compose("gpu")["services"]["prometheus"]["healthcheck"]["test"][-1]
    assert httpx.get(url.replace("http://127.0.0.1:9090", watched.prometheus.url)).status_code == 200


def test_what_the_dashboards_say_is_what_happened(watched: Watched) -> None:
    def value(expression: str) -> float:
        (sample,) = watched.prometheus.query(expression)
        return float(sample["value"][1])

    assert value('touchline_frames_total{kind="decoded"}') == 50
    assert value('touchline_stage_seconds_count{stage="total"}') == 2
    assert value("max(touchline_registered)") == 1
    assert value("sum(touchline_challenges_limit)") == 2
    assert value("max(touchline_last_answer_timestamp_seconds) > bool 0") == 1
    assert value("max_over_time(touchline_slots_free[10m]) == bool touchline_slots{}") == 1
    assert value('sum(nv_inference_request_success{model="player"})') >= 2
    assert watched.prometheus.query("touchline:slots_used:ratio")


def test_the_autoscalers_query_returns_data(watched: Watched) -> None:
    """prometheus-adapter's template, with its placeholders filled as the adapter does for pods."""
    values = from_yaml((DEPLOY / "kubernetes" / "prometheus-adapter-values.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    expression = rule["metricsQuery"].replace("<<.GroupBy>>", "instance").replace("<<.LabelMatchers>>", 'job="triton"')
    (sample,) = watched.prometheus.query(expression)
    assert float(sample["value"][1]) >= 0


def test_an_alert_fires_when_triton_dies(watched: Watched) -> None:
    """Last in this file: Triton does not come back."""
    quiet = watched.prometheus.alerts()
    assert "TouchlineTritonNotReady" not in quiet
    watched.stack.triton.kill()
    watched.prometheus.until(lambda: "TouchlineTritonNotReady" in watched.prometheus.alerts(), "the alert fires")
    alert = watched.prometheus.alerts()["TouchlineTritonNotReady"]
    assert alert["labels"]["instance"] in watched.stack.gateway.metrics_url
    assert alert["labels"]["instance"] in alert["annotations"]["summary"]
    for title, expression in queries():
        if "ALERTS{" in expression:
            watched.prometheus.until(partial(watched.prometheus.query, expression), title)
