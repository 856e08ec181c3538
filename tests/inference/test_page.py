"""The page of `tlfast serve` in a browser, where there is Chromium: it works, asks nobody else, fits a phone, and can be used by everyone."""

from __future__ import annotations

import pytest

from tests.helpers.browser import SIZES, accessibility_faults, needs_browser, opened_page
from tests.helpers.serving import serving_at
from tlfast.testing import draw_image

pytestmark = needs_browser


@pytest.fixture(params=SIZES)
def opened(browser, classifier, request):
    """The page at one size; yields (page, errors in its console, addresses that it requested)."""
    with serving_at(classifier) as (port, _), opened_page(browser, request.param) as opened:
        opened.page.goto(f"http://127.0.0.1:{port}/", wait_until="networkidle")
        yield opened.page, opened.errors, opened.requests


def test_images_are_chosen_and_answered(opened, classifier, tmp_path):
    page, complaints, asked = opened
    image = draw_image(tmp_path / "<b>red.png", (230, 30, 30), 1)
    page.set_input_files("#files", [str(image)])
    page.wait_for_selector(".result ol li")
    answer = classifier.predict(image)
    assert page.inner_text(".result h2") == answer.label
    assert page.inner_text(".result .name") == "<b>red.png" and page.locator(".result b").count() == 0  # a name stays text
    assert page.locator(".result li").count() == 3 and f"{100 * answer.probability:.1f}%" in page.inner_text(".result li >> nth=0")
    page.set_input_files("#files", [{"name": "broken.png", "mimeType": "image/png", "buffer": b"no image"}])
    page.wait_for_selector(".result .error")
    assert "not an image" in page.inner_text(".result .error")
    assert [text for text in complaints if "422" not in text] == []  # Chromium's own remark on the refusal
    assert {address.split("/")[2] for address in asked if not address.startswith(("blob:", "data:"))} == {page.url.split("/")[2]}


def test_other_files_and_a_server_that_has_stopped_are_named(opened, tmp_path):
    page, _, _ = opened
    page.set_input_files("#files", [{"name": "note.txt", "mimeType": "text/plain", "buffer": b"words"}])
    assert page.inner_text(".result .name") == "note.txt" and page.inner_text(".result .error") == "not an image"
    page.route("**/predict", lambda route: route.abort())
    page.set_input_files("#files", [str(draw_image(tmp_path / "red.png", (230, 30, 30), 1))])
    page.wait_for_selector(".result:has-text('red.png') .error")
    assert page.inner_text(".result:has-text('red.png') .error") == "The server cannot be reached."


def test_a_token_of_any_characters(browser, classifier):
    with serving_at(classifier, token="wörd пароль") as (port, _), opened_page(browser, next(iter(SIZES))) as opened:
        opened.page.goto(f"http://127.0.0.1:{port}/", wait_until="networkidle")
        opened.page.fill("#bearer", "wörd пароль")
        opened.page.click("#token button")
        opened.page.wait_for_selector("#token:not(.shown)", state="attached")
        assert classifier.run in opened.page.inner_text("#run")


def test_it_fits_and_everyone_can_use_it(opened, tmp_path):
    page, _, _ = opened
    page.set_input_files("#files", [str(draw_image(tmp_path / ("a very long name " * 9 + ".png"), (20, 40, 230), 2))])
    page.wait_for_selector(".result ol li")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert accessibility_faults(page) == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
