"""What the page costs: the browser that shows it, and the service that tells it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

import pytest

from router import SOCKET_NAME
from tests.browser.browser import Browser
from tests.browser.forward import Forward, connected
from tests.browser.test_page import CONFIG, live
from tests.lab.service import Service
from tests.wire.segment import Segment, vlan

Record = Callable[[str, object], None]
FRAMES = """
    window.frames = []; window.long = [];
    let last = performance.now();
    const frame = (now) => { window.frames.push(now - last); last = now; requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
    new PerformanceObserver((list) => list.getEntries().forEach((one) => window.long.push(one.duration)))
      .observe({type: 'longtask'});
"""


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path) as built:
        yield built


def to(state: Path) -> socket.socket:
    return connected(socket.socket(socket.AF_UNIX), str(state / SOCKET_NAME))


def test_the_first_view(
    browser: Browser,
    service: Service,
    by_socket: Forward,
    count: Callable[[int, int], int],
    record_property: Record,
) -> None:
    service.start(CONFIG)
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    paint, times = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime", []
    for _ in range(5):
        browser.open("about:blank")
        browser.requests()
        browser.open(by_socket.url)
        live(browser)
        times.append(browser.wait(lambda: browser.run(paint), "the first paint"))
    lanes = "return document.querySelectorAll('.lane').length"
    browser.wait(lambda: browser.run(lanes) == 2, "both VLANs to be drawn")
    loaded = sum(
        one["params"]["encodedDataLength"] for one in browser.requests() if one["method"] == "Network.loadingFinished"
    )
    browser.driver.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": False})
    record_property(
        "figure", f"first view after {median(times):.0f} ms (median of 5, {min(times):.0f} to {max(times):.0f})"
    )
    record_property("figure", f"{loaded / 1024:.0f} KiB for the first view")
    assert min(times) < count(1500, 300)
    assert 10 << 10 < loaded < 100 << 10


def test_1000_leases_and_50_events_a_second_without_jank(
    browser: Browser, segment: Segment, record_property: Record
) -> None:
    segment.service.start(vlan())
    assert segment.load("direct", count=1000, window=64, seconds=20)["exchanges"] == 1000
    with Forward(lambda: to(segment.service.state)) as port:
        browser.open(port.url)
        live(browser)
        browser.wait(lambda: browser.text("#lease-count") == "1,000 leases", "all leases")
        browser.run(FRAMES)
        browser.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        before = spent(browser)
        load = segment.start_load("direct", rate=25, seconds=6, first=5000)
        while load.poll() is None:
            browser.run("document.getElementById('lease-scroll').scrollBy(0, 700)")
            time.sleep(0.3)
        load.communicate(timeout=30)
        assert load.returncode == 0
        browser.wait(lambda: browser.text("#lease-count") == "1,150 leases", "what is new")
        after = spent(browser)
        frames, long = browser.run("return [window.frames, window.long]")
        drawn = browser.run(
            "return [document.querySelectorAll('.node').length, document.querySelectorAll('#lease-table tr').length]"
        )
        assert browser.complaints() == []
    assert drawn[0] <= 30
    assert drawn[1] < 60
    share = (after["TaskDuration"] - before["TaskDuration"]) / (sum(frames) / 1000)
    frames.sort()
    slow = [one for one in frames if one > 50]
    record_property(
        "figure",
        f"1,000 leases, 50 events/s: {len(frames)} frames, median {median(frames):.0f} ms, "
        f"99 % within {frames[int(len(frames) * 0.99)]:.0f} ms, {len(slow)} over 50 ms; "
        f"{len(long)} long tasks, the longest {max(long, default=0):.0f} ms; {share:.0%} of a processor",
    )
    assert median(frames) < 20
    assert share < 0.35


def spent(browser: Browser) -> dict[str, float]:
    """Seconds of a processor that the page's thread has used, by what for."""
    found = browser.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return {one["name"]: one["value"] for one in found}


@contextmanager
def pages(state: Path, number: int) -> Iterator[None]:
    """So many that follow the events, each as a page does: everything once, then the stream."""
    with ExitStack() as stack:
        for _ in range(number):
            one = stack.enter_context(to(state))
            one.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert one.recv(1 << 16).startswith(b"HTTP/1.1 200"), "the service has loaded what it needs for pages"
            thread = Thread(target=drain, args=(one,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(one.shutdown, socket.SHUT_RDWR)
        yield


def drain(one: socket.socket) -> None:
    while one.recv(1 << 20):
        pass


def test_five_pages_do_not_hold_up_dhcp(
    segment: Segment, count: Callable[[int, int], int], record_property: Record
) -> None:
    """In turns, for the machine's own speed drifts within seconds."""
    segment.service.start(vlan())
    assert segment.service.process is not None
    found: dict[int, list[dict[str, Any]]] = {0: [], 5: []}
    for turn in range(count(4, 12)):
        for number in (0, 5) if turn % 2 else (5, 0):
            with pages(segment.service.state, number):
                first = 1000 * sum(map(len, found.values()))
                load = segment.load("direct", rate=200, seconds=3, first=first, pid=segment.service.process.pid)
                found[number].append(load)
    told = []
    for kind in ("p50", "p99"):
        none, five = ([one["ack_us"][kind] for one in found[number]] for number in (0, 5))
        more = median(b / a for a, b in zip(none, five, strict=True)) - 1
        told.append(f"{kind} {median(none):.0f} us without, {median(five):.0f} with: {more:+.0%}")
        assert more < count(300, 10) / 100, told
    none, five = ([one["server_cpu_us"] for one in found[number]] for number in (0, 5))
    told.append(f"processor {median(none):.0f} us for each without, {median(five):.0f} with")
    record_property("figure", f"ACK at 200/s with 5 pages: {'; '.join(told)}")
    assert not any(one["lost"] or one["retransmits"] for loads in found.values() for one in loads)
