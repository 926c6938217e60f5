"""What a running service shows of itself to the page, without a browser."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.lab.clients import Client, Udhcpc
from tests.lab.netns import wait_until
from tests.lab.service import Service
from tests.lab.truck import Truck
from tests.wire import control
from tests.wire.segment import inside, toml

TOKEN = "a-long-token-that-is-secret"


def vlan(number: int) -> str:
    base = f"10.0.{number}"
    return "[[vlan]]\n" + toml(
        name=f"vlan{number}", tag=number, subnet=f"{base}.0/24", router=f"{base}.1", pools=[f"{base}.100-{base}.119"]
    )


CONFIG = '[wan]\ninterface = "wan"\n' + vlan(1) + vlan(2)


def answer(service: Service, method: str, target: str) -> Any:
    found = control.ask(service.state, method, target)
    assert found.status == 200, found
    return json.loads(found.body)


def test_what_was_measured_stands_beside_what_is_expected(
    truck: Truck, service: Service, client: Callable[..., Client]
) -> None:
    service.start(CONFIG)
    for device in ("device1", "device2"):
        client(Udhcpc, device).start()
    before = answer(service, "GET", "/verify")
    assert before["at"] is None
    expected = {(one["source"], one["target"]): one["expected"] for one in before["rows"]}
    assert expected["vlan1/device1", "vlan2/device2"] is False
    assert expected["vlan1/device1", "router, vlan1"] is True
    assert {one["measured"] for one in before["rows"]} == {None}
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: answer(service, "POST", "/verify"), range(3)))
    wait_until(lambda: service.events("verified"), 5, "the line in the log")
    assert len(service.events("verified")) == 1  # who asks meanwhile waits for the same measurement
    assert found[0] == found[1] == found[2]
    rows = found[0]["rows"]
    assert {(one["source"], one["target"]) for one in rows} == expected.keys()
    measured = {one["target"]: one["measured"] for one in rows if one["source"] == "router"}
    assert measured == {"vlan1/device1": True, "vlan2/device2": True, "internet": True}
    assert (found[0]["nodes"], found[0]["is_part"], found[0]["is_old"]) == (2, False, False)
    assert answer(service, "GET", "/verify") == found[0]
    assert service.events("verified")[0]["differing"] == 0
    answer(service, "POST", "/reload")
    assert answer(service, "GET", "/verify")["is_old"] is True
    assert truck.ping("device1", "10.0.1.1")  # the service is still in its own namespace
    assert answer(service, "GET", "/map")["vlans"][0]["is_up"] is True


def test_an_exception_for_a_reserved_name_is_not_for_who_calls_itself_so(
    truck: Truck, service: Service, client: Callable[..., Client]
) -> None:
    camera = "[[vlan.reservation]]\n" + toml(name="camera", mac=truck.plan.device("device1").mac)
    allow = "[[allow]]\n" + toml(**{"from": "vlan1/camera", "to": "vlan2"})
    service.start('[wan]\ninterface = "wan"\n' + vlan(1) + camera + vlan(2) + allow)
    address = str(client(Udhcpc, "device1", "anything").start().address.ip)
    target = str(client(Udhcpc, "device2").start().address.ip)
    impostor = str(client(Udhcpc, "device3", "camera").start().address.ip)
    assert answer(service, "GET", "/status")["firewall"]["nodes"] == {"vlan1/camera": address}
    assert truck.ping("device1", target)
    assert not truck.ping("device3", target)
    rows = answer(service, "GET", "/verify")["rows"]
    expected = {one["source"]: one["expected"] for one in rows if one["address"] == target}
    assert expected == {"vlan1/camera": True, f"vlan1/{impostor}": False, "router": True}
    assert [one["from"]["address"] for one in answer(service, "GET", "/map")["exceptions"]] == [address]


def test_by_tcp_the_token_and_the_name_have_to_be_right(truck: Truck, service: Service) -> None:
    service.start(CONFIG + "[api]\n" + toml(listen="10.0.1.1:8067", token=TOKEN, hosts=["Router.truck.lan"]))

    def ask(host: str, token: str | None, method: str = "GET", target: str = "/map", **headers: str) -> int:
        connection = http.client.HTTPConnection("10.0.1.1", 8067, timeout=10)
        with inside(truck.netns("router")):
            connection.connect()
        try:
            sent = {"Host": host, **headers} | ({} if token is None else {"Authorization": f"Bearer {token}"})
            connection.request(method, target, headers=sent)
            return connection.getresponse().status
        finally:
            connection.close()

    assert ask("10.0.1.1:8067", TOKEN) == 200
    assert ask("router.truck.lan:8067", TOKEN) == 200
    assert ask("router.truck.lan", None, target="/") == 200
    assert ask("10.0.1.1:8067", None) == 401
    assert ask("10.0.1.1:8067", "wrong") == 401
    assert ask("evil.example:8067", TOKEN) == 403
    assert ask("10.0.1.1:8067", TOKEN, "POST", "/reload", Origin="http://evil.example") == 403
    assert ask("10.0.1.1:8067", TOKEN, "POST", "/reload", Origin="http://10.0.1.1:8067") == 200
    wait_until(lambda: service.events("reloaded"), 5, "the reload")
    assert len(service.events("reloaded")) == 1
