"""The description of a data set: classes, presets, and where its images come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .types import Row


@dataclass(frozen=True)
class Source:
    """One public place of a task's data: files to download and what is known of them."""

    title: str
    files: tuple[tuple[str, str], ...] = ()  # (address, file name to keep it under)
    hub_dataset: str = ""  # a Hugging Face data set read from its parquet conversion
    size: int | None = None  # bytes of the first file, roughly; a download more than 5 % off is refused


@dataclass(frozen=True)
class Task:
    """What is known of a data set: its classes, its best settings and where its images come from.

    `classes` empty means: the data's own. `rows` reads a layout of the task's own from a folder, or returns None where the
    folder is not laid out so; `arrange(source, target, beside)` turns a download (folder or file) and what lies beside it into a folder that
    can be read; `make` draws the images from something that is installed already.
    """

    name: str
    title: str
    classes: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    partial: Mapping[str, Any] = field(default_factory=dict)
    depth: Mapping[str, Any] = field(default_factory=dict)  # in addition to `full`
    full: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)  # other spellings of a class -> the class
    licence: str = ""
    homepage: str = ""
    sources: tuple[Source, ...] = ()
    by_hand: str = ""
    rows: Callable[[Path, int | None], list[Row] | None] | None = None
    arrange: Callable[[Path, Path, Path], None] | None = None
    make: Callable[[Path], None] | None = None

    def presets(self, strategy: str) -> dict[str, Any]:
        """Return the task's settings for a strategy: partial, depth or full."""
        return dict({"partial": self.partial, "depth": {**self.full, **self.depth}, "full": self.full}[strategy])
