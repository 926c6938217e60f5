"""The page in a real browser, on a truck with real clients."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from dhcpd.leases import BOUND, Row
from router.history import History
from router.periods import FILE_NAME, MAX_ROWS
from router.settings import Keep
from tests.browser.browser import Browser
from tests.browser.conftest import API_PORT, TOKEN
from tests.browser.forward import Forward
from tests.lab import netns
from tests.lab.clients import Client
from tests.lab.service import Service
from tests.wire import control
from tests.wire.segment import reservation, toml

Plug = Callable[..., Client]


def vlan(number: int, **settings: object) -> str:
    base = f"10.0.{number}"
    return "[[vlan]]\n" + toml(
        name=f"vlan{number}", tag=number, subnet=f"{base}.0/24", router=f"{base}.1",
        pools=[f"{base}.100-{base}.119"], probe=False, **settings,
    )  # fmt: skip


CAMERA = reservation(name="camera", mac="02:00:00:00:00:99", address="10.0.1.20")
ALLOW = '[[allow]]\nfrom = "vlan2"\nto = "vlan1/camera"\nports = ["tcp/443", "icmp"]\n'
PUBLISH = '[[publish]]\nport = "tcp/8080"\nto = "vlan1/camera"\n'
CONFIG = '[wan]\ninterface = "wan"\n' + vlan(1) + CAMERA + vlan(2) + ALLOW + PUBLISH
API = "[api]\n" + toml(listen=f"127.0.0.1:{API_PORT}", token=TOKEN)


@pytest.fixture
def shown(browser: Browser, service: Service, by_socket: Forward) -> Iterator[Browser]:
    """The page of a running service; it has complained of nothing and asked nobody else when the test is over."""
    service.start(CONFIG)
    browser.open(by_socket.url)
    live(browser)
    yield browser
    assert browser.complaints() == []
    assert browser.elsewhere(by_socket.url) == []


def live(browser: Browser) -> None:
    browser.wait(lambda: browser.text("#live") == "Live", "the page to be live")


def card(browser: Browser, name: str) -> str | None:
    """The text of a node's card on the map."""
    cards: list[str] = browser.run("return [...document.querySelectorAll('.node')].map((one) => one.innerText)")
    return next((one for one in cards if name in one.split("\n")), None)


def row(browser: Browser, name: str) -> str | None:
    """The text of a row of the list of leases."""
    rows: list[str] = browser.run(
        "return [...document.querySelectorAll('#lease-table tbody tr:not([hidden])')].map((one) => one.innerText)"
    )
    return next((one for one in rows if name in one.replace("\t", "\n").split("\n")), None)


def open_detail(browser: Browser, name: str) -> None:
    browser.wait(lambda: card(browser, name), f"{name} on the map")
    browser.run(
        "[...document.querySelectorAll('.node button')].find((one) => one.innerText.includes(arguments[0])).click()",
        name,
    )
    browser.one("#detail[open]")


def test_a_device_that_is_plugged_in_appears_within_a_second(
    shown: Browser, service: Service, plug: Plug, record_property: Callable[[str, object], None]
) -> None:
    shown.run("""
        window.seen = new Map();
        new MutationObserver(() => {
          for (const one of document.querySelectorAll('.node .name')) {
            if (!window.seen.has(one.textContent)) window.seen.set(one.textContent, Date.now());
          }
        }).observe(document.getElementById('drawing'), {subtree: true, childList: true, characterData: true});
    """)
    for device in ("device1", "device2"):
        plug(device)
        shown.wait(lambda device=device: card(shown, device), f"{device} on the map")  # type: ignore[misc]
    seen = dict(shown.run("return [...window.seen]"))
    granted = {one["hostname"]: one["time"] for one in service.events("granted")}
    late = [seen[name] / 1000 - datetime.fromisoformat(granted[name]).timestamp() for name in ("device1", "device2")]
    record_property("figure", f"a device is on the map {max(late) * 1000:.0f} ms after its lease is on the disk")
    assert max(late) < 1
    assert shown.text("#map-summary") == "2 VLANs, 2 devices and 0 containers with an address"
    assert "19 of 20 free" in shown.text(".lane")
    shown.wait(lambda: "device2 has 10.0.2.100 in vlan2" in shown.text("#activity"), "the activity")
    found = shown.wait(lambda: row(shown, "device1"), "device1 in the list")
    assert found.split("\t")[0].strip() == "10.0.1.100"


def test_the_map_shows_what_is_configured(shown: Browser) -> None:
    assert [one.text for one in shown.all(".lane h3")] == ["vlan1", "vlan2"]
    wanted = ["device", "camera", "10.0.1.20", "not seen yet", "reserved"]
    shown.wait(lambda: (card(shown, "camera") or "").split("\n") == wanted, "the camera's reservation")
    said = [" ".join(one.split()) for one in shown.run(
        "return [...document.querySelectorAll('#exceptions li')].map((one) => one.textContent)")]  # fmt: skip
    assert said == [
        "vlan2may reachvlan1/cameratcp/443, icmp",
        "the internetis published tovlan1/cameratcp/8080published",
    ]
    assert len(shown.all(".wires .exception")) == 2
    assert len(shown.all(".wires .leg")) == 2
    assert "by wan" in shown.text("#internet")


def test_a_reload_shows_at_once(shown: Browser, service: Service) -> None:
    service.reload(CONFIG + vlan(2))
    shown.wait(lambda: len(shown.all(".lane")) == 2 and "not taken" in shown.text("#activity"), "the refusal")
    service.reload(CONFIG.replace("tcp/443", "tcp/80"))
    shown.wait(lambda: "tcp/80, icmp" in shown.text("#exceptions"), "the new exception")


def test_leases_are_searched_and_sorted(shown: Browser, plug: Plug) -> None:
    for device in ("device1", "device2", "device3"):
        plug(device)
    shown.wait(lambda: row(shown, "device3") and row(shown, "device2") and row(shown, "device1"), "the leases")
    search = shown.one("#search")
    search.send_keys("VLAN1 dev")
    shown.wait(lambda: shown.text("#lease-count") == "2 of 4 leases", "two rows")
    assert row(shown, "device2") is None
    search.send_keys(Keys.BACKSPACE * 20, "02:00:00:00:02:06")
    shown.wait(lambda: shown.text("#lease-count") == "1 of 4 leases" and row(shown, "device2"), "one row")
    search.send_keys(Keys.BACKSPACE * 20, "nothing of the kind")
    assert "Nothing matches" in shown.one("#lease-none").text
    search.clear()
    search.send_keys(" ", Keys.BACKSPACE)
    shown.button("Name", "#lease-table").click()
    shown.button("Name", "#lease-table").click()
    names = shown.run(
        "return [...document.querySelectorAll('#lease-table tbody tr:not([hidden]) .name')].map((n) => n.innerText)"
    )
    assert names == ["device3", "device2", "device1", "camera"]
    assert shown.run("return document.querySelectorAll('#lease-table [aria-sort=descending]').length") == 1


def test_a_lease_is_reserved_and_dropped_from_the_page(shown: Browser, service: Service, plug: Plug) -> None:
    client = plug("device1")
    open_detail(shown, "device1")
    shown.button("Reserve this address", "#detail").click()
    shown.wait(lambda: "as device1" in shown.text("#facts"), "the reservation")
    rows = json.loads(control.ask(service.state, "GET", "/reservations").body)
    assert [(one["name"], one["origin"]) for one in rows if one["address"] == "10.0.1.100"] == [("device1", "state")]
    shown.button("Remove the reservation", "#detail").click()
    shown.button("Remove the reservation", "#detail .ask").click()
    shown.button("Reserve this address", "#detail")
    client.stop()
    shown.button("Drop the lease", "#detail").click()
    shown.button("Keep it", "#detail").click()
    assert service.leases()[-1]["state"] == "bound"
    shown.button("Drop the lease", "#detail").click()
    shown.button("Drop the lease", "#detail .ask").click()
    shown.wait(lambda: card(shown, "device1") is None, "the card to go")
    assert [one["hostname"] for one in service.leases()] == ["camera"]
    shown.button("Close", "#detail").click()
    assert not shown.all("#detail[open]")


def test_a_reservation_is_added_and_a_conflict_is_told(shown: Browser, service: Service) -> None:
    shown.one("#reserve-new").click()
    for name, text in {"name": "gps", "who": "02:00:00:00:00:77", "address": "10.0.1.20"}.items():
        shown.one(f"#new-{name}").send_keys(text)
    shown.button("Reserve", "#reserve").click()
    shown.wait(lambda: "10.0.1.20" in shown.text("#reserve .error"), "the conflict")
    shown.one("#new-address").clear()
    shown.one("#new-address").send_keys("10.0.1.21")
    shown.button("Reserve", "#reserve").click()
    shown.wait(lambda: card(shown, "gps"), "gps on the map")
    assert "gps" in [one["name"] for one in json.loads(control.ask(service.state, "GET", "/reservations").body)]
    assert [one for one in shown.complaints() if "409" not in one] == []  # the browser tells of each refusal


def hold(browser: Browser, request: str) -> None:
    """Keep the answers to requests like ``DELETE /leases`` from the page until `answer`."""
    browser.run(
        """
        const wanted = arguments[0];
        window.held = [];
        window.asked = window.fetch;
        window.fetch = async (path, options) => {
          const found = await window.asked(path, options);
          const request = `${options.method ?? 'GET'} ${path}`;
          if (request.startsWith(wanted)) await new Promise((resolve) => window.held.push(resolve));
          return found;
        };
        """,
        request,
    )


def wait_held(browser: Browser, number: int = 1) -> None:
    browser.wait(lambda: browser.run("return window.held.length") == number, "the answer to be held")


def answer(browser: Browser) -> None:
    """Let the first answer that is held through, and wait until the page has taken it."""
    browser.driver.execute_async_script("""
        const done = arguments[0];
        window.held.shift()();
        window.asked('/status').then((next) => next.text()).then(() => requestAnimationFrame(() => setTimeout(done)));
    """)


def test_an_outcome_is_told_in_the_dialog_that_asked(shown: Browser, service: Service) -> None:
    new = {"vlan": "vlan1", "name": "gps", "mac": "02:00:00:00:00:77", "address": "10.0.1.21"}
    assert control.ask(service.state, "POST", "/reservations", json.dumps(new)).status == 201
    open_detail(shown, "gps")
    hold(shown, "DELETE /reservations")
    shown.button("Remove the reservation", "#detail").click()
    shown.button("Remove the reservation", "#detail .ask").click()
    wait_held(shown)
    press(shown, Keys.ESCAPE)
    shown.wait(lambda: not shown.all("#detail[open]"), "the dialog to close")
    open_detail(shown, "camera")
    answer(shown)
    assert shown.text("#detail-title") == "camera"
    assert shown.text("#outcome") == ""
    shown.wait(lambda: card(shown, "gps") is None, "the card to go")


def test_a_reservation_that_was_added_closes_no_other_form(shown: Browser) -> None:
    shown.one("#reserve-new").click()
    for name, text in {"name": "gps", "who": "02:00:00:00:00:77", "address": "10.0.1.21"}.items():
        shown.one(f"#new-{name}").send_keys(text)
    hold(shown, "POST /reservations")
    shown.button("Reserve", "#reserve").click()
    wait_held(shown)
    press(shown, Keys.ESCAPE)
    shown.wait(lambda: not shown.all("#reserve[open]"), "the form to close")
    shown.one("#reserve-new").click()
    shown.one("#new-name").send_keys("radar")
    answer(shown)
    shown.wait(lambda: card(shown, "gps"), "gps on the map")
    assert shown.all("#reserve[open]")
    assert shown.run("return document.getElementById('new-name').value") == "radar"


HOSTILE = ("<script>document.title='owned'</script>", "\x1b[2J\x1b]0;owned\x07", "<img src=x onerror=alert(1)>")


def test_names_from_the_network_are_text(shown: Browser, service: Service, plug: Plug) -> None:
    for device, name in zip(("device1", "device2", "device3"), HOSTILE, strict=True):
        plug(device, name)
    bad = CONFIG.replace('name = "vlan2"', 'name = "<img src=x onerror=\\"document.title=1\\">"')
    shown.wait(lambda: len(shown.all(".node")) == 4, "four nodes")
    service.reload(bad)
    shown.wait(lambda: "not taken" in shown.text("#activity"), "the refusal")
    assert "<img src=x" in shown.text("#activity")
    assert "owned" not in shown.driver.title
    assert not shown.run("return document.querySelectorAll('main script, main img').length")
    assert not shown.run("return [...document.body.innerText].some((one) => one < ' ' && !'\\n\\t'.includes(one))")


def test_reachability_is_measured_from_the_page(shown: Browser, plug: Plug) -> None:
    client = plug("device1")
    client.next_lease(0)
    shown.wait(lambda: card(shown, "device1"), "device1")
    assert shown.text("#reach-summary").startswith("Not measured yet")
    shown.one("#measure").click()
    shown.wait(lambda: "answered as expected" in shown.text("#reach-summary"), "the measurement")
    marks = shown.run("return [...document.querySelectorAll('.matrix .mark')].map((one) => one.className)")
    assert "mark yes" in marks
    assert not [one for one in marks if "differs" in one]


def test_the_page_follows_a_service_that_is_started_again(shown: Browser, service: Service, plug: Plug) -> None:
    service.kill9()
    shown.wait(lambda: shown.text("#live").startswith("No connection"), "the loss")
    service.start(CONFIG.replace("vlan2", "other"))
    shown.wait(lambda: shown.text("#live") == "Live", "the page to be live again")
    shown.wait(lambda: [one.text for one in shown.all(".lane h3")] == ["vlan1", "other"], "the new VLAN")
    plug("device1")
    shown.wait(lambda: card(shown, "device1"), "device1")
    assert all("/events" in one or "ERR_" in one for one in shown.complaints())


def test_only_who_knows_the_token_sees_the_page_by_tcp(browser: Browser, service: Service, by_tcp: Forward) -> None:
    service.start(CONFIG + API)
    browser.open(by_tcp.url)
    token = browser.one("#token")
    assert not browser.one("#login").text.count("vlan1")
    token.send_keys("wrong", Keys.ENTER)
    browser.wait(lambda: "not the token" in browser.text("#login-error"), "the refusal")
    token.send_keys(TOKEN, Keys.ENTER)
    live(browser)
    assert browser.run("return document.cookie") == ""
    (cookie,) = browser.driver.get_cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert TOKEN not in cookie["value"]
    browser.driver.refresh()
    live(browser)
    browser.one("#logout").click()
    browser.one("#token")
    assert {one.split(" - ")[0].rpartition("/")[2] for one in browser.complaints()} <= {"events", "login"}
    assert browser.elsewhere(by_tcp.url) == []


def test_a_page_from_elsewhere_gets_nothing(browser: Browser, service: Service, by_socket: Forward) -> None:
    service.start(CONFIG)
    browser.open(by_socket.url.replace("127.0.0.1", "localhost"))  # another origin, for the browser
    live(browser)
    for method in ("POST", "GET"):
        found = browser.driver.execute_async_script(
            """const [url, method, done] = arguments;
            fetch(url + 'reload', {method}).then((answer) => done(answer.status), () => done(0))""",
            by_socket.url, method,
        )  # fmt: skip
        assert found == 0
    assert service.events("reloaded") == []
    browser.complaints()


def test_without_a_mouse(shown: Browser, plug: Plug) -> None:
    plug("device1")
    shown.wait(lambda: card(shown, "device1"), "device1")
    order = []
    for _ in range(40):
        shown.driver.switch_to.active_element.send_keys(Keys.TAB)
        order.append(
            shown.run("return document.activeElement.innerText?.split('\\n').pop() || document.activeElement.id")
        )
        if order[-1] == "search":
            break
    assert order[:6] == ["Skip to the leases", "Map", "Reachability", "Leases", "Activity", "Theme: auto"]
    assert "10.0.1.100" in order
    assert order[-1] == "search"
    shown.run("document.querySelector('.node button').focus()")
    shown.driver.switch_to.active_element.send_keys(Keys.ENTER)
    shown.one("#detail[open]")
    shown.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    shown.wait(lambda: not shown.all("#detail[open]"), "the dialog to close")
    assert shown.run("return document.activeElement.closest('.node') !== null")


NODES = [f"n{number:03}" for number in range(2, 98)]
MANY = CONFIG.replace(ALLOW, "".join(
    reservation(name=name, mac=f"02:00:00:01:00:{int(name[1:]):02x}", address=f"10.0.2.{int(name[1:])}")
    for name in NODES
) + ALLOW)  # fmt: skip


@pytest.fixture
def crowded(shown: Browser, service: Service) -> Browser:
    """The page with 97 leases, more than it draws at once: the camera and `NODES`."""
    service.reload(MANY)
    shown.wait(lambda: shown.text("#lease-count") == "97 leases", "all leases")
    return shown


def press(browser: Browser, *keys: str) -> None:
    ActionChains(browser.driver).send_keys(*keys).perform()


def focus(browser: Browser, selector: str, name: str) -> None:
    """Give focus to the button of a node; `window.lost` counts how often the button loses it."""
    browser.run(
        """
        window.held = [...document.querySelectorAll(arguments[0])].find((one) => one.innerText.includes(arguments[1]));
        window.held.focus();
        window.lost = 0;
        window.held.addEventListener('blur', () => { window.lost += 1; });
        """,
        selector, name,
    )  # fmt: skip


def focused(browser: Browser) -> str:
    """The text of what has focus, or its id when it is no button."""
    found: str = browser.run(
        "const one = document.activeElement; return one.matches('button') ? one.innerText : one.id || one.tagName"
    )
    return found


def test_every_lease_is_reached_by_keyboard(crowded: Browser) -> None:
    crowded.run("""
        window.visited = [];
        document.addEventListener('keyup', ({key}) => {
          const one = document.activeElement;
          if (key === 'Shift' || !one.closest('#lease-table tbody')) return;
          const [list, head, row] = [document.querySelector('.scroll'), document.querySelector('.scroll thead'), one]
            .map((part) => part.getBoundingClientRect());
          const isSeen = head.bottom <= row.top + 1 && row.bottom <= list.bottom + 1;
          window.visited.push([one.innerText, Number(one.closest('tr').ariaRowIndex), isSeen]);
        });
        document.querySelector('[data-sort=expires]').focus();
    """)

    def visited() -> list[str]:
        """The leases that had focus after a key since the last question; all could be seen and knew their place."""
        found = crowded.run("return window.visited.splice(0)")
        assert found == [[name, ["camera", *NODES].index(name) + 2, True] for name, _, _ in found]
        return [name for name, _, _ in found]

    press(crowded, Keys.TAB, Keys.ARROW_DOWN * len(NODES))
    assert visited() == ["camera", *NODES]
    assert crowded.run("return document.getElementById('lease-table').ariaRowCount") == "98"
    press(crowded, Keys.ARROW_UP * len(NODES))
    assert visited() == ["camera", *NODES][-2::-1]
    press(crowded, Keys.END, Keys.ARROW_DOWN, Keys.PAGE_UP, Keys.PAGE_DOWN, Keys.ARROW_UP)
    end, same, page, back, before = visited()
    assert (end, same, back, before) == ("n097", "n097", "n097", "n096")
    assert 5 < NODES.index("n097") - NODES.index(page) < 20
    press(crowded, Keys.HOME, Keys.PAGE_DOWN, Keys.PAGE_UP, Keys.ARROW_UP, Keys.ARROW_DOWN)
    assert visited()[::2] == ["camera", "camera", "n002"]
    press(crowded, Keys.TAB)
    assert crowded.run("return document.activeElement.closest('#leases')") is None
    crowded.run("document.getElementById('lease-scroll').scrollTop = 1e6")
    crowded.wait(lambda: row(crowded, "n097"), "the end of the list")
    ActionChains(crowded.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    crowded.wait(lambda: row(crowded, "n010"), "the list to follow")
    assert visited() == ["n002"]
    press(crowded, Keys.ENTER)
    assert crowded.one("#detail-title").text == "n002"


def test_focus_stays_on_its_lease(crowded: Browser, service: Service) -> None:
    focus(crowded, "#lease-table td button", "n004")
    new = {"vlan": "vlan1", "name": "newcomer", "mac": "02:00:00:00:00:77", "address": "10.0.1.5"}
    assert control.ask(service.state, "POST", "/reservations", json.dumps(new)).status == 201
    crowded.wait(lambda: row(crowded, "newcomer"), "who comes before it")
    crowded.run("document.getElementById('lease-scroll').scrollTop = 1e6")
    crowded.wait(lambda: row(crowded, "n097") and row(crowded, "n003") is None, "the end of the list")
    crowded.run("document.querySelector('[data-sort=num]').click()")
    crowded.wait(lambda: (row(crowded, "n004") or "").startswith("10.0.2.4"), "the other order")
    assert focused(crowded) == "n004"
    assert crowded.run("return [window.lost, document.activeElement.closest('tr').ariaRowIndex]") == [0, "95"]
    press(crowded, Keys.ARROW_UP)
    assert focused(crowded) == "n005"
    press(crowded, Keys.ARROW_DOWN, Keys.ENTER)
    assert crowded.one("#detail-title").text == "n004"


def test_focus_that_loses_its_lease_goes_to_the_list(crowded: Browser, service: Service) -> None:
    new = {"vlan": "vlan2", "name": "guest", "mac": "02:00:00:00:00:77", "address": "10.0.2.99"}
    for is_open in (False, True):
        assert control.ask(service.state, "POST", "/reservations", json.dumps(new)).status == 201
        crowded.wait(lambda: crowded.text("#lease-count") == "98 leases", "the guest")
        crowded.run("document.querySelector('#lease-table td button').focus()")
        press(crowded, Keys.END)
        assert focused(crowded) == "guest"
        if is_open:
            press(crowded, Keys.ENTER)
            crowded.one("#detail[open]")
        assert control.ask(service.state, "DELETE", "/reservations/vlan2/10.0.2.99").status in {200, 204}
        crowded.wait(lambda: crowded.text("#lease-count") == "97 leases", "the guest to go")
        if is_open:
            press(crowded, Keys.ESCAPE)
            crowded.wait(lambda: not crowded.all("#detail[open]"), "the dialog to close")
        crowded.wait(lambda: focused(crowded) == "lease-scroll", "focus on the list")
        press(crowded, Keys.ARROW_DOWN)
        assert focused(crowded) == "n097"


def test_focus_stays_on_its_node_when_the_map_is_drawn_anew(crowded: Browser, service: Service) -> None:
    def reload(config: str, wanted: str) -> None:
        service.reload(config)
        crowded.wait(lambda: wanted in crowded.text("#drawing"), wanted)

    focus(crowded, ".node button", "n003")
    reload(MANY.replace('name = "vlan2"', 'name = "vlan2"\nguard = true'), "guarded")
    assert crowded.run("return document.activeElement === window.held && window.held.innerText.includes('n003')")
    press(crowded, Keys.ENTER)
    assert crowded.one("#detail-title").text == "n003"
    reload(MANY.replace('name = "vlan2"', 'name = "vlan2"\nencrypted_only = true'), "encrypted only")
    press(crowded, Keys.ESCAPE)
    crowded.wait(lambda: not crowded.all("#detail[open]"), "the dialog to close")
    assert crowded.run("return document.activeElement === window.held")
    crowded.run("document.querySelector('.more:not([hidden])').focus()")
    reload(MANY.replace('name = "vlan2"', 'name = "vlan2"\nguard = true'), "guarded")
    assert crowded.run("return document.activeElement.className") == "more"


def test_light_and_dark(shown: Browser) -> None:
    def paper() -> str:
        color: str = shown.run("return getComputedStyle(document.body).backgroundColor")
        return color

    for wanted in ("light", "dark"):
        shown.media(prefers_color_scheme=wanted)
        assert paper() == {"light": "rgb(245, 244, 240)", "dark": "rgb(18, 20, 22)"}[wanted]
    shown.one("#theme").click()
    assert (shown.text("#theme"), paper()) == ("Theme: light", "rgb(245, 244, 240)")
    shown.driver.refresh()
    live(shown)
    assert paper() == "rgb(245, 244, 240)"
    shown.run("localStorage.clear()")


def test_a_screen_reader_finds_its_way(shown: Browser) -> None:
    """Names and roles as the browser computes them for it."""
    nodes = shown.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    seen = [
        (one["role"]["value"], one.get("name", {}).get("value", ""))
        for one in nodes
        if not one["ignored"] and "role" in one
    ]
    for wanted in [
        ("navigation", "Sections"), ("region", "Map"), ("region", "Reachability"), ("region", "Leases"),
        ("region", "vlan1"), ("heading", "Exceptions"), ("searchbox", "Search the leases"), ("button", "Measure now"),
    ]:  # fmt: skip
        assert wanted in seen
    assert {"banner", "main", "contentinfo", "meter", "columnheader", "rowheader", "status"} <= {
        role for role, _ in seen
    }
    unnamed = [role for role, name in seen if role in {"button", "link", "textbox", "searchbox"} and not name.strip()]
    assert unnamed == []


def test_it_fits_a_phone(shown: Browser, plug: Plug) -> None:
    plug("device1")
    shown.wait(lambda: card(shown, "device1"), "device1")
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    shown.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert shown.run("return document.documentElement.scrollWidth") <= 360
        small = shown.run("""
            return [...document.querySelectorAll('main button, .top button')].filter((one) => one.offsetParent)
              .map((one) => [one.innerText, one.getBoundingClientRect().height]).filter(([, height]) => height < 24)
        """)
        assert small == []
    finally:
        shown.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_hidden_page_holds_no_connection_and_catches_up(shown: Browser, by_socket: Forward, plug: Plug) -> None:
    def hide(is_hidden: bool) -> None:
        shown.run(
            "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))",
            is_hidden,
        )

    plug("device1")
    shown.wait(lambda: card(shown, "device1"), "device1")
    streams = by_socket.connections
    hide(True)
    shown.wait(lambda: by_socket.connections < streams, "the stream to end")
    client = plug("device2")
    client.next_lease(0)
    assert card(shown, "device2") is None
    hide(False)
    shown.wait(lambda: card(shown, "device2"), "device2")


def travel(browser: Browser, minutes: int) -> None:
    """Ask for the list as it was, or will be, so many minutes from now."""
    browser.run(
        """
        const then = new Date(Date.now() + arguments[0] * 60000 - new Date().getTimezoneOffset() * 60000);
        const field = document.getElementById('at');
        field.value = then.toISOString().slice(0, 16);
        field.dispatchEvent(new Event('change'));
        """,
        minutes,
    )


def test_the_list_as_it_was_at_another_time(shown: Browser, service: Service, plug: Plug) -> None:
    plug("device1").next_lease(0)
    netns.wait_until(lambda: control.ask(service.state, "GET", "/history").body != b"[]", 10, "the history")
    shown.wait(lambda: shown.text("#lease-count") == "2 leases", "the device and the reservation")
    travel(shown, 2)
    shown.wait(lambda: shown.text("#lease-count") == "1 lease", "who had a lease then")
    assert "since" in str(row(shown, "device1"))
    shown.button("Back to now", "#leases").click()
    shown.wait(lambda: shown.text("#lease-count") == "2 leases", "the present")


def test_only_the_last_answer_of_the_history_is_wanted(shown: Browser, service: Service, plug: Plug) -> None:
    plug("device1").next_lease(0)
    netns.wait_until(lambda: control.ask(service.state, "GET", "/history").body != b"[]", 10, "the history")
    shown.wait(lambda: shown.text("#lease-count") == "2 leases", "the device and the reservation")
    hold(shown, "GET /history")
    travel(shown, -60)
    wait_held(shown)
    travel(shown, 2)
    wait_held(shown, 2)
    answer(shown)
    assert shown.text("#lease-count") == "2 leases"
    answer(shown)
    assert shown.text("#lease-count") == "1 lease"
    travel(shown, -60)
    wait_held(shown)
    shown.button("Back to now", "#leases").click()
    answer(shown)
    assert shown.text("#lease-count") == "2 leases"


def test_a_history_that_cannot_be_read_is_not_shown_as_an_empty_one(shown: Browser, service: Service) -> None:
    (service.state / FILE_NAME).unlink(missing_ok=True)
    (service.state / FILE_NAME).mkdir()
    travel(shown, -60)
    shown.wait(lambda: shown.text("#lease-none").startswith("the history cannot be read"), "the reason")
    assert shown.text("#lease-count") == "Not known"
    shown.one("#search").send_keys("camera")
    assert shown.text("#lease-none").startswith("the history cannot be read")
    shown.button("Back to now", "#leases").click()
    shown.wait(lambda: shown.text("#lease-count") == "1 of 1 lease", "the present")
    assert not shown.all("#lease-none:not([hidden])")
    assert [one for one in shown.complaints() if "503" not in one] == []  # the browser tells of each


def test_an_answer_of_the_history_that_is_full_says_so(browser: Browser, service: Service, by_socket: Forward) -> None:
    history = History(service.state, Keep())
    history.start()
    now = int(time.time())
    for number in range(MAX_ROWS):
        mac = b"\2\0\0\0" + number.to_bytes(2)
        since = now - (7200 if number else 1800)
        history.put("vlan2", [Row((10 << 24) + number, BOUND, mac, mac, b"", "", since, now + 3600)], now)
    history.close()
    service.start(CONFIG)
    browser.open(by_socket.url)
    live(browser)
    travel(browser, -60)
    browser.wait(lambda: browser.text("#lease-count") == "999 leases", "all that began by then")
    travel(browser, -10)
    browser.wait(
        lambda: browser.text("#lease-count") == "1,000 leases, the latest: there may be more", "the full answer"
    )
