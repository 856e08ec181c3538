"""The pages as a whole: links, navigation, pictures, named modules, the length of the README."""

from __future__ import annotations

import re
import sys

import pytest

from tests.helpers.pages import DOCS, FENCE, PAGES, name, navigation
from tests.helpers.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES[1:]]
PICTURES = {".png", ".svg", ".jpg"}
MAX_PICTURE_BYTES, MAX_README_LINES = 200_000, 130
NAV = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_linked_file_and_heading_is_there(document):
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]+))?\)", text):
        linked = document if not target else document.parent / target
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), f"{target}#{anchor}"


def test_every_page_is_in_the_navigation():
    assert sorted(navigation(NAV)) == sorted(path.relative_to(DOCS).as_posix() for path in PAGES[1:])


def test_every_page_is_linked_from_the_overview():
    linked = {(DOCS / target).resolve() for target in re.findall(r"\]\((?!https?://)([^)#]+)", (DOCS / "index.md").read_text(encoding="utf-8"))}
    assert {path for path in PAGES[1:] if path.name != "index.md"} <= linked


def test_every_picture_is_small_and_shown():
    pictures = {path for path in DOCS.rglob("*") if path.suffix in PICTURES}
    shown = {(page.parent / target).resolve() for page in PAGES for target in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))}
    assert pictures == shown
    assert {path.name: path.stat().st_size for path in pictures if path.stat().st_size > MAX_PICTURE_BYTES} == {}


def test_pages_load_nothing_from_other_addresses():
    assert [name(page) for page in PAGES if re.search(r"!\[[^\]]*\]\(https?:|<(?:script|img|iframe|link)\b", page.read_text(encoding="utf-8"))] == []
    assert re.search(r"^font = false$", (ROOT / "zensical.toml").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


MODULES = re.compile(
    r"`((?:tlfast/|tests/|scripts/|cli/|commands/|training/|export/|evaluation/|inference/|models/|tasks/|data/|core/|strategies/)[\w./]+\.(?:py|html))`"
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_named_module_is_there(document):
    named = MODULES.findall(document.read_text(encoding="utf-8"))
    roots = (ROOT, ROOT / "tlfast", ROOT / "tlfast" / "training")
    assert [name for name in named if not any((root / name).is_file() for root in roots)] == []


def test_benchmarks_that_comments_refer_to_are_there():
    sections = set(re.findall(r"^## (.+)$", (DOCS / "benchmarks.md").read_text(encoding="utf-8"), re.MULTILINE))
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "tlfast").rglob("*.py"))]
    named = {name for source in sources for name in re.findall(r'docs/benchmarks\.md, "([^"]+)"', source)}
    assert named <= sections
