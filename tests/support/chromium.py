"""A real Chromium without a window, driven by Selenium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

pytest.importorskip("selenium", reason="Selenium drives the browser")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

Result = TypeVar("Result")
WAIT_S = 60
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
    "--disable-background-networking",
)


class Chromium:
    """A page in Chromium."""

    def __init__(self, driver: Any) -> None:  # noqa: ANN401 - Selenium's driver
        self.driver = driver

    def show(self, url: str, *, width: int, dark: bool = False) -> None:
        """Open a page in a window of a width in pixels."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(url)

    def run(self, script: str, *arguments: object) -> Any:  # noqa: ANN401 - any JSON
        """Run JavaScript, whose `return` gives the result."""
        return self.driver.execute_script(script, *arguments)

    def text(self, id_: str) -> str:
        """The text of an element, as far as it is visible."""
        script = "const one = document.getElementById(arguments[0]); return one.checkVisibility() ? one.innerText : ''"
        return str(self.run(script, id_))

    def element(self, selector: str) -> Any:  # noqa: ANN401 - Selenium's element
        """The one element that a CSS selector finds."""
        (found,) = self.driver.find_elements("css selector", selector)
        return found

    def until(self, condition: Callable[[], Result]) -> Result:
        """Wait until a condition holds; returns what it gave."""
        result: Result = WebDriverWait(self.driver, WAIT_S, poll_frequency=0.05).until(lambda _: condition())
        return result

    def complaints(self) -> list[str]:
        """What the console has reported since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> list[str]:
        """Addresses of all requests of pages since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Start Chromium; the test is skipped where it or its driver is not installed."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Chromium(started)
    finally:
        started.quit()
