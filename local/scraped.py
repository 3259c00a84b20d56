"""What a server on a /metrics page says, by Prometheus' own parser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families


class NotScraped(Exception):
    """The page could not be had, or is not one of Prometheus' text format."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a page."""

    labels: Mapping[str, str]
    value: float


def scraped(url: str, name: str, timeout_s: float = 5.0) -> list[Sample]:
    """The samples called `name` on the page at `url`, none where it has no such; raises NotScraped.

    A counter may be named with its _total or without.
    """
    try:
        # A proxy of the environment is for the internet, not for a server of one's own.
        answer = httpx.get(url, timeout=timeout_s, trust_env=False).raise_for_status()
        return [
            Sample(sample.labels, sample.value)
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            # The parser ends every counter's name in _total, as OpenMetrics does; Triton's page does not.
            if sample.name == name or (family.type == "counter" and sample.name == f"{name}_total")
        ]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise NotScraped(f"{url} gives no metrics: {error or type(error).__name__}") from error
