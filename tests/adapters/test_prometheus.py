"""What Prometheus reads is what was measured."""

from __future__ import annotations

from orchestrator.adapters.prometheus import Exposition, Kind, Metric
from orchestrator.core.timing import Timing

COUNTED = Metric("t_seen_total", Kind.COUNTER, "Things seen", ("what",))
LEVEL = Metric("t_level", Kind.GAUGE, "How high it stands")
TOOK = Metric("t_took_seconds", Kind.HISTOGRAM, "How long it took", ("edge",))


def lines(text: bytes) -> set[str]:
    return set(text.decode().splitlines())


def test_values_are_written_under_their_names_and_labels() -> None:
    took = Timing((0.5, 1.0))
    for each in (0.5, 0.7, 3):
        took.note(each)
    said = lines(
        Exposition().render({COUNTED: {("a",): 3.0, ('"b"\n\\',): 1.0}, LEVEL: {(): 2.5}, TOOK: {("mqtt",): took}})
    )
    assert said >= {
        "# HELP t_seen_total Things seen",
        "# TYPE t_seen_total counter",
        't_seen_total{what="a"} 3.0',
        't_seen_total{what="\\"b\\"\\n\\\\"} 1.0',
        "# TYPE t_level gauge",
        "t_level 2.5",
        "# TYPE t_took_seconds histogram",
        't_took_seconds_bucket{edge="mqtt",le="0.5"} 1.0',
        't_took_seconds_bucket{edge="mqtt",le="1.0"} 2.0',
        't_took_seconds_bucket{edge="mqtt",le="+Inf"} 3.0',
        't_took_seconds_count{edge="mqtt"} 3.0',
        't_took_seconds_sum{edge="mqtt"} 4.2',
    }


def test_a_metric_without_values_is_described_all_the_same() -> None:
    said = lines(Exposition().render({LEVEL: {}}))
    assert "# TYPE t_level gauge" in said
    assert not any(line.startswith("t_level ") for line in said)


def test_the_process_is_measured_as_well_and_two_expositions_do_not_disturb_each_other() -> None:
    for exposition in (Exposition(), Exposition()):
        assert any(line.startswith("process_resident_memory_bytes ") for line in lines(exposition.render({})))
