"""What the front page says: the gateway's state now and the sums of what it did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from prometheus_client.metrics import MetricWrapperBase

from gateway.doctor.finding import Finding
from gateway.history import Entry
from gateway.inference.engine import Engine
from gateway.inference.triton import ServedModels
from gateway.metrics import Metrics, value_of
from gateway.pace import Aim
from gateway.settings import Settings
from gateway.subnet.metagraph import Metagraph
from gateway.subnet.nonces import NonceStore
from touchline import __version__


@dataclass(frozen=True, slots=True)
class Overview:
    """One look at the gateway."""

    version: str
    hotkey: str
    ready: bool
    why_not_ready: str
    tritons: Mapping[str, str]
    """State by address: ready, or why it is asked nothing."""
    models: ServedModels | None
    in_progress: int
    limit: int
    slots: int
    slots_free: int
    gpus: int
    nodes: int
    metagraph_age_s: float | None
    registered: bool
    incentive: float
    budget_s: float
    fastest_s: float
    answered: int
    reused: int
    refused: Mapping[str, int]
    """By reason, only those that happened; since the gateway started, as all sums here."""
    decoded: int
    inferred: int
    lately: Lately | None
    findings: Sequence[Finding]
    """What the doctor found wrong when the gateway started."""


@dataclass(frozen=True, slots=True)
class Lately:
    """How long the kept answers took; those that were not computed for their challenge do not count."""

    count: int
    p50_s: float
    p95_s: float
    longest_s: float
    frames_per_s: float
    """Median over the challenges."""

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Lately | None:
        computed = [entry for entry in entries if entry.work is not None and not entry.reused]
        if not computed:
            return None
        seconds = np.array([entry.seconds for entry in computed])
        frames = np.array([entry.work.frames for entry in computed if entry.work is not None])
        p50, p95 = np.percentile(seconds, (50, 95))
        return cls(len(computed), float(p50), float(p95), float(seconds.max()), float(np.median(frames / seconds)))


def look(
    entries: Iterable[Entry],
    *,
    settings: Settings,
    engine: Engine,
    metagraph: Metagraph,
    nonces: NonceStore,
    metrics: Metrics,
    hotkey: str,
    findings: Sequence[Finding] = (),
) -> Overview:
    """Take it from where /metrics and /health take it."""
    outcomes = _values(metrics.challenges, "outcome")
    frames = _values(metrics.frames, "kind")
    why_not_ready = "; ".join(filter(None, (engine.why_not_ready, nonces.why_not_ready)))
    return Overview(
        version=__version__,
        hotkey=hotkey,
        ready=not why_not_ready,
        why_not_ready=why_not_ready,
        tritons=engine.states,
        models=engine.models,
        in_progress=int(value_of(metrics.in_progress)),
        limit=int(value_of(metrics.limit)),
        slots=int(value_of(metrics.slots)),
        slots_free=int(value_of(metrics.slots_free)),
        gpus=int(value_of(metrics.gpus)),
        nodes=len(metagraph),
        metagraph_age_s=metagraph.age_s,
        registered=metagraph.find(hotkey) is not None,
        incentive=node.incentive if (node := metagraph.find(hotkey)) else 0.0,
        budget_s=Aim.of(settings).budget_s,
        fastest_s=settings.fastest_s,
        answered=outcomes.pop("answered"),
        reused=int(value_of(metrics.reused)),
        refused=dict(sorted(((name, count) for name, count in outcomes.items() if count), key=lambda pair: -pair[1])),
        decoded=frames["decoded"],
        inferred=frames["inferred"],
        lately=Lately.of(entries),
        findings=[finding for finding in findings if finding.level != "good"],
    )


def _values(metric: MetricWrapperBase, label: str) -> dict[str, int]:
    """Of a counter, by the values of its one label."""
    samples = next(iter(metric.collect())).samples
    return {sample.labels[label]: int(sample.value) for sample in samples if sample.name.endswith("_total")}
