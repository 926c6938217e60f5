"""A browser for the module, a truck with the service in its router, and ports that lead to it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from router import SOCKET_NAME
from tests.browser.browser import Browser, chromium, missing
from tests.browser.forward import Forward, connected
from tests.lab.clients import Client, Udhcpc
from tests.lab.service import Service
from tests.lab.truck import Truck
from tests.wire.conftest import MakeClient, client, service, truck
from tests.wire.segment import inside

__all__ = ["client", "service", "truck"]

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
def plug(client: MakeClient) -> Callable[..., Client]:
    """`plug(device, hostname)` plugs a device in and starts its DHCP client."""

    def plug(device: str, hostname: str | None = None) -> Client:
        made = client(Udhcpc, device, hostname)
        made.launch()
        return made

    return plug


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
