"""What the service tells of containers: why they have their address, how long it took, what is wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.docker.managed import Managed
from tests.lab.netns import wait_until
from tests.wire.control import ask

pytestmark = pytest.mark.one_engine


def told(managed: Managed, target: str) -> Any:
    found = ask(managed.service.state, "GET", target)
    assert found.status == 200, found.body
    return json.loads(found.body)


def metric(managed: Managed, name: str) -> float:
    text = ask(managed.service.state, "GET", "/metrics").body.decode()
    found = re.search(rf"^{re.escape(name)} (.*)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def test_why_a_container_has_its_address(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web")
    address = str(managed.lease("web"))
    (one,) = told(managed, "/explain?node=web")
    assert one["address"] == address
    assert one["identity"] == {"kind": "container", "value": "web"}
    assert one["container"]["path"] in ("namespace", "start", "reconcile")
    assert one["namespace"]["addresses"][0] == f"{address}/24"
    assert one["namespace"]["default_route"]["gateway"] == "10.0.1.1"
    assert one["docker"]["address"].startswith("10.0.1.24")
    assert one["docker"]["at"] <= one["namespace"]["at"]
    text = managed.service.ask("explain", "vlan1/web")
    assert f"vlan1  {address}: " in text
    assert "  namespace  " in text
    assert told(managed, f"/explain?node={address}")[0]["container"]["name"] == "web"


def test_pins_are_counted_and_timed(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web")
    managed.lease("web")
    wait_until(lambda: metric(managed, "lanward_pin_duration_seconds_count") >= 1, 5, "the pin to be counted")
    assert 0 < metric(managed, "lanward_pin_duration_seconds_sum") < 10
    paths = ("namespace", "start", "reconcile")
    assert sum(metric(managed, f'lanward_pins_total{{path="{path}"}}') for path in paths) >= 1
    assert metric(managed, "lanward_reconcile_age_seconds") < 60
    assert ask(managed.service.state, "GET", "/readyz").body == b"ok\n"
    wait_until(lambda: told(managed, "/history?node=web"), 5, "the container in the history")
    assert {one["container"] for one in told(managed, "/history?node=web")} == {"web"}


def test_a_container_without_a_lease_is_a_warning_with_its_cure(managed: Managed) -> None:
    managed.start_full()

    def standing() -> list[dict[str, str]]:
        return [one for one in told(managed, "/warnings") if one["id"].startswith("container_without_lease:")]

    wait_until(standing, 10, "the warning")
    (one,) = standing()
    assert (one["subject"], one["cure"]) == ("second on br0net", "enlarge its pools, or with known_only reserve one")
    assert told(managed, "/explain?node=second")[0]["address"] is None
    managed.engine.remove_containers()
    wait_until(lambda: not standing(), 40, "the warning to be over")


def test_an_engine_that_is_away_is_a_warning_and_keeps_the_service_from_being_ready(managed: Managed) -> None:
    config = re.sub("socket = .*", 'socket = "/nowhere/docker.sock"', managed.edge.config())
    managed.service.start(config)
    wait_until(lambda: any(one["id"] == "docker:engine" for one in told(managed, "/warnings")), 10, "the warning")
    found = ask(managed.service.state, "GET", "/readyz")
    assert (found.status, found.body) == (503, b"the containers were not looked at yet\n")
    assert ask(managed.service.state, "GET", "/healthz").status == 200
