"""Pages of the documentation: the README and everything below docs/, their code blocks and commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NOT_TESTED = "# not tested here: "  # the first line of a block that needs what the tests do not have; the reader sees it too
COMMAND_LANGUAGES = ("console", "sh", "")
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of code: its page, line, language and text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def runnable(self) -> bool:
        """Whether the tests run the block."""
        return not self.text.startswith(NOT_TESTED)

    @property
    def commands(self) -> list[str]:
        """The lines `tlfast ...` of a block of commands: in a console those after a prompt."""
        if self.language not in COMMAND_LANGUAGES:
            return []
        prompt = "$ " if self.language == "console" else ""
        lines = [line for line in self.text.splitlines() if line.startswith(prompt)]
        return [line.removeprefix(prompt).split(" | ")[-1] for line in lines if re.match(r"tlfast\b", line.removeprefix(prompt).split(" | ")[-1])]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(page, text.count("\n", 0, found.start()) + 1, found[2], found[3]) for found in FENCE.finditer(text)]


def inline_commands(page: Path) -> Iterator[str]:
    """Yield the commands `tlfast ...` in the running text and in the tables of a page."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for found in re.findall(r"`(tlfast [^`\n]+)`", text):
        yield found.replace("\\|", "|")


def navigation(items: Any) -> Iterator[str]:
    """Yield the pages of the `nav` of zensical.toml."""
    for item in items:
        for value in item.values():
            if isinstance(value, str):
                yield value
            else:
                yield from navigation(value)
