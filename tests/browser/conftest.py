"""A browser for the module, a truck with the service in its router, and ports that lead to it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router import SOCKET_NAME
from tests.browser.browser import Browser, chromium, missing
from tests.browser.forward import Forward, connected
from tests.lab.clients import Client, Udhcpc
from tests.lab.plan import two_vlans
from tests.lab.service import Service
from tests.lab.truck import Truck
from tests.wire.segment import inside

API_PORT = 8067
TOKEN = "a-long-token-that-is-secret"


@pytest.fixture(scope="session")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if absent := missing():
        pytest.skip(f"{absent} is not installed")
    with chromium(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def browser(chrome: Browser) -> Iterator[Browser]:
    """A window without history, cookies or size of its own; a test ends with a look at what it complained of."""
    chrome.open("about:blank")
    chrome.driver.set_window_size(1280, 900)
    chrome.media()
    chrome.requests()
    chrome.complaints()
    yield chrome
    chrome.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    chrome.open("about:blank")


@pytest.fixture
def truck() -> Iterator[Truck]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Truck(two_vlans(devices=4)) as built:
        yield built


@pytest.fixture
def service(truck: Truck, tmp_path: Path) -> Iterator[Service]:
    """The service in the router's namespace, not started yet."""
    made = Service(truck.enter("router"), tmp_path)
    yield made
    made.kill9()


@pytest.fixture
def plug(truck: Truck, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """`plug(device, hostname)` plugs a device in and starts its DHCP client."""
    made: list[Client] = []

    def plug(device: str, hostname: str | None = None) -> Client:
        truck.plug(device)
        made.append(Udhcpc(truck.netns(device), tmp_path / device, hostname or device))
        made[-1].launch()
        return made[-1]

    if absent := Udhcpc.missing():
        pytest.skip(f"{absent} is not installed")
    yield plug
    for one in made:
        one.stop()


@pytest.fixture
def by_socket(service: Service) -> Iterator[Forward]:
    """A port that leads to the service's unix socket."""

    def connect() -> socket.socket:
        return connected(socket.socket(socket.AF_UNIX), str(service.state / SOCKET_NAME))

    with Forward(connect) as port:
        yield port


@pytest.fixture
def by_tcp(truck: Truck) -> Iterator[Forward]:
    """A port that leads to port `API_PORT` on the router's loopback."""

    def connect() -> socket.socket:
        with inside(truck.netns("router")):
            one = socket.socket()
        return connected(one, ("127.0.0.1", API_PORT))

    with Forward(connect) as port:
        yield port
