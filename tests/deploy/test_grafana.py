"""Grafana's files: dashboards it can load, on the provisioned data source. Their queries: test_monitoring_live."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.files import DEPLOY, compose, from_yaml

DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
PANELS = {"row", "stat", "timeseries", "table", "heatmap"}


def test_there_are_two_dashboards() -> None:
    assert [path.stem for path in DASHBOARDS] == ["engineer", "operator"]
    assert len({load(path)["uid"] for path in DASHBOARDS}) == 2


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels(path: Path) -> None:
    dashboard = load(path)
    assert "touchline" in dashboard["tags"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert panel["type"] in PANELS
        assert place["x"] in range(24) and place["x"] + place["w"] <= 24
        if panel["type"] == "row":
            continue
        assert panel["title"] and panel["description"], "a panel says what it shows"
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references)
    for one, other in combinations(panels, 2):
        assert not overlap(one["gridPos"], other["gridPos"]), f"{one['title']} lies on {other['title']}"


def test_the_data_source_is_the_provisioned_one() -> None:
    provisioned = read(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    (source,) = provisioned
    host = source["url"].removeprefix("http://").partition(":")[0]
    assert host in compose("gpu")["services"]
    for path in DASHBOARDS:
        for panel in load(path)["panels"]:
            for item in (panel, *panel.get("targets", [])):
                if "datasource" in item or panel["type"] != "row":
                    assert item["datasource"] == {"type": source["type"], "uid": source["uid"]}


def test_the_rate_interval_follows_the_scrape_interval() -> None:
    (source,) = read(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    scraped = read(DEPLOY / "prometheus" / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped


def test_dashboards_are_mounted_where_they_are_provisioned_from() -> None:
    (provider,) = read(DEPLOY / "grafana" / "provisioning" / "dashboards" / "touchline.yml")["providers"]
    grafana = compose("gpu")["services"]["grafana"]
    mounts = {mount["target"]: mount["source"] for mount in grafana["volumes"]}
    assert mounts[provider["options"]["path"]] == "./grafana/dashboards"
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana" / "dashboards" / Path(home).name).exists()
    assert mounts["/etc/grafana/provisioning"] == "./grafana/provisioning"


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def load(path: Path) -> dict[str, Any]:
    dashboard = json.loads(path.read_text())
    assert isinstance(dashboard, dict)
    return dashboard


def read(path: Path) -> dict[str, Any]:
    document = from_yaml(path.read_text())
    assert isinstance(document, dict)
    return document
