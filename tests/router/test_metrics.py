"""The metrics, as Prometheus reads them."""

from __future__ import annotations

import re
from typing import Any

from dhcpd.histogram import BOUNDS, Histogram
from router import metrics
from tests.router.test_view import engine, row, status

SAMPLE = re.compile(r'([a-z_:][a-z0-9_:]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (-?[0-9.e+-]+|\+Inf)')
"""One line of the text format, version 0.0.4."""


def shown(*vlans: dict[str, Any], docker: dict[str, Any] | None = None) -> dict[str, Any]:
    counts = {"received": 3, "sent": 6, "ignored": 1}
    firewall = {"error": None, "repairs": 2, "broadcasts": {"gps": counts}}
    return {"vlans": list(vlans), "firewall": firewall, "docker": docker}


def test_metrics_tell_of_the_rules() -> None:
    lines = list(metrics.of_status(shown()))
    assert "lanward_rules_repaired_total 2" in lines
    assert 'lanward_broadcasts_total{broadcast="gps",outcome="sent"} 6' in lines


def test_metrics_tell_the_status() -> None:
    book = engine(row("10.0.1.100"))
    book.dropped["short"] += 7
    lines = list(metrics.of_status(shown(status(book))))
    assert 'lanward_leases{vlan="vlan1",state="bound"} 1' in lines
    assert 'lanward_packets_dropped_total{vlan="vlan1",reason="short"} 7' in lines
    assert 'lanward_errors_total{vlan="vlan1",operation="send"} 2' in lines
    assert 'lanward_lost_datagrams_total{vlan="vlan1"} 3' in lines


def test_each_family_is_announced_once_however_many_vlans() -> None:
    first = status(engine())
    lines = list(metrics.of_status(shown(first, {**first, "name": "vlan2"})))
    announced = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(announced) == len(set(announced))
    assert sum(line.startswith("lanward_offers{") for line in lines) == 2


def test_metrics_tell_of_containers_where_there_are_some() -> None:
    counts = {"namespace": 5, "reconcile": 1, "drift": 2, "adopted": 3}
    lines = list(metrics.of_status(shown(docker={"pins": counts, "warnings": ["one", "two"]})))
    assert [line for line in lines if "pin" in line or "adopt" in line or "problem" in line if line[0] != "#"] == [
        'lanward_pins_total{path="namespace"} 5',
        'lanward_pins_total{path="start"} 0',
        'lanward_pins_total{path="reconcile"} 1',
        "lanward_pin_drift_repaired_total 2",
        'lanward_adoptions_total{outcome="adopted"} 3',
        'lanward_adoptions_total{outcome="healed"} 0',
        'lanward_adoptions_total{outcome="repaired"} 0',
        "lanward_container_problems 2",
    ]


def test_metrics_do_not_tell_of_containers_where_there_are_none() -> None:
    assert not [line for line in metrics.of_status(shown()) if "pin" in line or "container" in line]


def test_label_values_are_escaped() -> None:
    hostile = {"a\nb": {"sent": 1}, 'say "no"': {"sent": 2}, "back\\slash": {"sent": 3}}
    seen = shown()
    seen["firewall"]["broadcasts"] = hostile
    lines = [line for line in metrics.of_status(seen) if line.startswith("lanward_broadcasts_total{")]
    assert lines == [
        'lanward_broadcasts_total{broadcast="a\\nb",outcome="sent"} 1',
        'lanward_broadcasts_total{broadcast="say \\"no\\"",outcome="sent"} 2',
        'lanward_broadcasts_total{broadcast="back\\\\slash",outcome="sent"} 3',
    ]
    assert all(SAMPLE.fullmatch(line) for line in lines)


def test_a_histogram_counts_what_took_as_long_or_less() -> None:
    one = Histogram()
    one.observe(0.0001)
    one.observe(0.0002, 3)
    one.observe(99.0)
    lines = list(metrics.histogram_lines("lanward_x_seconds", "X.", one))
    assert lines[:5] == [
        "# HELP lanward_x_seconds X.",
        "# TYPE lanward_x_seconds histogram",
        'lanward_x_seconds_bucket{le="0.0001"} 1',
        'lanward_x_seconds_bucket{le="0.00025"} 4',
        'lanward_x_seconds_bucket{le="0.0005"} 4',
    ]
    assert lines[-3:] == [
        'lanward_x_seconds_bucket{le="+Inf"} 5',
        "lanward_x_seconds_sum 99.0007",
        "lanward_x_seconds_count 5",
    ]
    assert len(lines) == len(BOUNDS) + 5
