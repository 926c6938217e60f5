"""Debian's Chromium, driven by selenium, with files of its own."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.lab import netns

PROGRAMS = ("chromium", "chromedriver")
PATIENCE = 10.0
T = TypeVar("T")

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-sync",
    "--disable-extensions", "--no-default-browser-check", "--metrics-recording-only", "--window-size=1280,900",
    "--disable-features=Translate,OptimizationHints,MediaRouter", "--lang=en-GB", "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)  # fmt: skip


def missing() -> str | None:
    """The program that this machine does not have."""
    return next((one for one in PROGRAMS if shutil.which(one) is None), None)


class Browser:
    """One window. What a page asks for and what it complains of are kept until `check`."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def media(self, **features: str) -> None:
        """What a style sheet may ask for, beside less motion: a page that still scrolls cannot be clicked at."""
        wanted = {
            "prefers-reduced-motion": "reduce",
            **{key.replace("_", "-"): value for key, value in features.items()},
        }
        told = [{"name": name, "value": value} for name, value in wanted.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": told})

    def run(self, script: str, *values: object) -> Any:
        """What a function with this body returns in the page."""
        return self.driver.execute_script(script, *values)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str, timeout: float = PATIENCE) -> WebElement:
        """The first element of that kind that can be seen, as soon as there is one."""
        return self.wait(
            lambda: next((one for one in self.all(selector) if one.is_displayed()), None),
            f"{selector} to be seen",
            timeout,
        )

    def button(self, text: str, within: str = "body") -> WebElement:
        """The button with that text, as soon as it can be seen."""
        return self.wait(
            lambda: next(
                (one for one in self.all(f"{within} button") if one.is_displayed() and one.text == text), None
            ),
            f"a button {text}",
        )

    def text(self, selector: str) -> str:
        """What can be read there; empty when there is nothing."""
        found: str = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return found

    def wait(self, condition: Callable[[], T | None], what: str, timeout: float = PATIENCE) -> T:
        """What the condition gives as soon as that is true."""
        end = time.monotonic() + timeout
        while True:
            with suppress(StaleElementReferenceException):
                if found := condition():
                    return found
            if time.monotonic() > end:
                raise TimeoutError(f"waited {timeout} s for {what}; the page shows:\n{self.text('body')[:2000]}")
            time.sleep(0.02)

    def requests(self) -> list[dict[str, Any]]:
        """What DevTools told of the network since the last question."""
        entries: list[dict[str, str]] = self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        return [json.loads(one["message"])["message"] for one in entries]

    def complaints(self) -> list[str]:
        """What is in the console since the last question."""
        entries: list[dict[str, str]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [one["message"] for one in entries]

    def elsewhere(self, url: str) -> list[str]:
        """What was asked of anybody but the service since the last question."""
        asked = [
            one["params"]["request"]["url"] for one in self.requests() if one["method"] == "Network.requestWillBeSent"
        ]
        own = urlsplit(url).netloc
        return [one for one in asked if urlsplit(one).scheme not in {"data", "blob"} and urlsplit(one).netloc != own]


@contextmanager
def chromium(home: Path) -> Iterator[Browser]:
    """A browser with its files below ``home``; nothing of it runs after the block."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={home / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home)}
    service = webdriver.ChromeService(
        shutil.which("chromedriver"), env=environment, popen_kw={"start_new_session": True}
    )
    driver: webdriver.Chrome | None = None
    try:
        driver = webdriver.Chrome(options=options, service=service)
        yield Browser(driver)
    finally:
        with suppress(Exception):
            if driver is not None:
                driver.quit()
        with suppress(Exception):
            service.stop()
        _end(home)


def _end(home: Path) -> None:
    """Kill what is left of a browser, known by the folder in its environment, and wait until it is gone."""
    mark = f"HOME={home}"

    def none_left() -> bool:
        left = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal() and mark in _environment(p)]
        for pid in left:
            netns.kill(pid)
        return not left

    netns.wait_until(none_left, 10, "the browser to end")


def _environment(process: Path) -> list[str]:
    try:
        return (process / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
