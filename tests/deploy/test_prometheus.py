"""Prometheus' own verdict on its configuration, rules and alerts; names that the rules use and the gateway knows."""

from __future__ import annotations

import re

from gateway import errors
from tests.deploy.files import DEPLOY, compose, from_yaml, tool
from tests.deploy.prometheus_server import binary

RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
REASONS = {
    error.reason
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, errors.GatewayError)
}


def test_promtool_accepts_the_configuration() -> None:
    config = DEPLOY / "prometheus" / "prometheus.yml"
    checked = tool(binary("promtool"), "check", "config", config)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    cases = DEPLOY.parent / "tests" / "deploy" / "alerts.promtool.yml"
    tested = tool(binary("promtool"), "test", "rules", cases)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    for alert in alerts():
        assert f'alertname="{alert["alert"]}"' in cases.read_text(), f"{alert['alert']} has no case"


def test_every_alert_says_what_to_do() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description", "page", "runbook"} == set(alert["annotations"])
        assert alert["annotations"]["runbook"].startswith("1. ")
        for setting in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", alert["annotations"]["runbook"]):
            assert setting in (DEPLOY / ".env.example").read_text(), f"{alert['alert']} names {setting}"


def test_outcomes_are_those_of_the_gateway() -> None:
    texts = [path.read_text() for path in (*RULES, *(DEPLOY / "grafana" / "dashboards").glob("*.json"))]
    found = {
        name for text in texts for names in re.findall(r'outcome=~?\\?"([^"\\]+)', text) for name in names.split("|")
    }
    assert "busy" in found
    assert found <= REASONS | {"answered", "client_gone"}


def test_targets_are_services_of_the_compose_files() -> None:
    config = from_yaml((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    hosts = {
        target.partition(":")[0]
        for job in config["scrape_configs"]
        for group in job.get("static_configs", [])
        for target in group["targets"]
    } - {"127.0.0.1"}
    hosts |= {
        name for job in config["scrape_configs"] for group in job.get("dns_sd_configs", []) for name in group["names"]
    }
    assert hosts <= compose("gpu")["services"].keys()


def alerts() -> list[dict[str, dict[str, str]]]:
    groups = from_yaml((DEPLOY / "prometheus" / "rules" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]
