"""A page in a browser: opened at two sizes, watched for errors and requests, checked for accessibility."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")


@dataclass
class Opened:
    """A page, the messages and the errors in its console, and the addresses that it requested."""

    page: Any
    messages: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened_page(browser: Any, size: str) -> Iterator[Opened]:
    """Open an empty page at one of `SIZES`."""
    width, height = SIZES[size]
    opened = Opened(browser.new_page(viewport={"width": width, "height": height}))

    def note(text: str, kind: str) -> None:
        opened.messages.append(text)
        if kind == "error":
            opened.errors.append(text)

    opened.page.on("console", lambda message: note(message.text, message.type))
    opened.page.on("pageerror", lambda error: note(str(error), "error"))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    yield opened
    opened.page.close()


def accessibility_faults(page: Any) -> list[tuple[str, str]]:
    """Return the serious and critical faults that axe finds: (rule, impact)."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [(fault["id"], fault["impact"]) for fault in found if fault["impact"] in ("serious", "critical")]
