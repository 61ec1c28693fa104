"""A person at ADK's page, in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect, sync_playwright

from tests.servers.servers import APP

_BROWSER = "chromium"
_HOW_TO_INSTALL = f"there is no {_BROWSER} on the PATH: apt-get install --no-install-recommends {_BROWSER}"

# A machine that is busy with other tests takes its time.
expect.set_options(timeout=60_000)

_ARGUMENTS = (
    "--no-sandbox",  # it does not work for root, and the pages are this test's own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def browser(folder: Path) -> Iterator[BrowserContext]:
    """Starts a browser with a profile of its own below ``folder``; without one the test is skipped, in CI it fails."""
    executable = shutil.which(_BROWSER)
    if executable is None:
        if os.environ.get("CI"):
            pytest.fail(_HOW_TO_INSTALL)
        pytest.skip(_HOW_TO_INSTALL)
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder / "profile",
            executable_path=executable,
            headless=True,
            args=_ARGUMENTS,
            viewport={"width": 1280, "height": 720},
        )
        try:
            # Fonts come from elsewhere: the page does without, and nothing leaves the machine.
            context.route(lambda url: not url.startswith("http://127.0.0.1:"), lambda route: route.abort())
            yield context
        finally:
            context.close()


class Visit:
    """Somebody who looks at the page of the server at ``url``, and keeps pictures of what there is to see."""

    def __init__(self, context: BrowserContext, url: str, pictures: Path) -> None:
        self._page: Page = context.new_page()
        self._pictures = pictures
        # ADK asks for leave to collect data, whenever it has loaded that far.
        self._page.add_locator_handler(self._page.get_by_role("button", name="No Thanks"), lambda no: no.click())
        self._page.goto(f"{url}/dev-ui/?app={APP}")

    def say(self, text: str, reply: str) -> None:
        """Sends a message, and waits for the reply."""
        box = self._page.get_by_placeholder("Type a message...")
        box.fill(text)
        box.press("Enter")
        expect(self._page.get_by_role("paragraph").last).to_have_text(reply)

    def open_conversation(self, name: str) -> None:
        """Looks the conversation up in the list of sessions."""
        self._page.get_by_role("button", name="NEW SESSION").click()
        expect(self._page.get_by_text("Select a Session", exact=True)).to_be_visible()
        self._page.get_by_text(name, exact=True).click()

    def sees_events(self, *texts: str) -> None:
        """Looks for numbered events with these texts, in this order, and no others."""
        expect(self._page.get_by_text(f"#{len(texts)}", exact=True)).to_be_visible()
        expect(self._page.get_by_text(f"#{len(texts) + 1}", exact=True)).to_have_count(0)
        # A button shows the name of its icon too, which is text to those without the font.
        expect(self._events()).to_contain_text(texts)

    def sees_state(self, **values: str) -> None:
        """Looks for keys and their values, as JSON, in the tab of the state."""
        self._page.get_by_role("tab", name="State").click()
        panel = self._page.get_by_role("tabpanel", name="State")
        for key, value in values.items():
            expect(panel).to_contain_text(f"{key}: {value}")

    def picture(self, name: str) -> None:
        """Keeps what there is to see."""
        self._page.screenshot(path=self._pictures / f"{name}.png")

    def _events(self) -> Locator:
        return self._page.get_by_role("paragraph").or_(self._page.get_by_role("button", name="remember_city"))
