"""Metrics as Prometheus reads them.

Rules:
- No global registry and no state of its own: what is counted stands where it happens, and is read when somebody asks.
- A metric is described once, before anybody counts anything; a sample names a value for every label.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from orchestrator.core.timing import Timing

Value = float | Timing
Labels = tuple[str, ...]


class Kind(StrEnum):
    """How a metric moves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured.

    Attributes:
        name: as it is asked for, `_total` of a counter included.
        kind: how it moves.
        text: what it means, one sentence without its full stop.
        labels: names of what it is told apart by.
    """

    name: str
    kind: Kind
    text: str
    labels: Labels = ()


_FAMILIES = {Kind.COUNTER: CounterMetricFamily, Kind.GAUGE: GaugeMetricFamily, Kind.HISTOGRAM: HistogramMetricFamily}


class Exposition:
    """Writes metrics down, those of the process with them."""

    def __init__(self) -> None:
        registry = CollectorRegistry(auto_describe=False)
        self._process = ProcessCollector(registry=registry)

    def render(self, measured: Mapping[Metric, Mapping[Labels, Value]]) -> bytes:
        """Return the text of what was measured, by metric and the values of its labels."""
        return generate_latest(_Once([*map(_family, measured, measured.values()), *self._process.collect()]))


class _Once(Collector):
    """Collects what it was given."""

    def __init__(self, families: Sequence[Any]) -> None:
        self._families = families

    def collect(self) -> Iterator[Any]:
        yield from self._families


def _family(metric: Metric, samples: Mapping[Labels, Value]) -> Any:
    family = _FAMILIES[metric.kind](metric.name, metric.text, labels=metric.labels)
    for labels, value in samples.items():
        if isinstance(value, Timing):
            family.add_metric(labels, buckets=list(_buckets(value)), sum_value=value.total_s)
        else:
            family.add_metric(labels, value)
    return family


def _buckets(timing: Timing) -> Iterable[tuple[str, float]]:
    return (("+Inf" if math.isinf(bound) else str(bound), count) for bound, count in timing.below)
