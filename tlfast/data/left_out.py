"""What a search for images leaves out: files that are no images, links to folders, hidden folders and output of tlfast."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePath

from ..core.errors import list_some, make_printable
from .images import is_image_name

SHOWN = 5  # suffixes and folders in a note
LINK = "links to folders are not followed"
HIDDEN = "folders whose names begin with a dot are left out, with their images"
OUTPUT = "folders with runs of tlfast are left out"


@dataclass
class LeftOut:
    """Files and folders that a search for images leaves out.

    Attributes:
        files: number of files that are no images, by suffix.
        hidden: number of files with the suffix of an image and a name that begins with a dot, except those that macOS writes beside a file (`._1.jpg`).
        folders: paths of folders, by reason: `LINK`, `HIDDEN` or `OUTPUT`.
    """

    files: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    folders: dict[str, list[str]] = field(default_factory=lambda: {LINK: [], HIDDEN: [], OUTPUT: []})

    def add_file(self, name: str) -> None:
        """Count a file that is no image. Of the hidden files only images are counted."""
        if name.startswith("."):
            self.hidden += not name.startswith("._") and is_image_name(name[1:])
        else:
            self.files[os.path.splitext(name)[1].lower() or "no suffix"] += 1

    def add_folder(self, reason: str, path: str) -> None:
        """Add a folder, once."""
        if path not in self.folders[reason]:
            self.folders[reason].append(path)

    def describe(self, prefix: str = "") -> list[str]:
        """Return notes on the files and the folders; none if nothing was left out. `prefix` is removed from the beginning of the paths.

        >>> left_out = LeftOut()
        >>> left_out.add_file("notes.txt")
        >>> left_out.add_folder(OUTPUT, "photos/exports")
        >>> left_out.describe("photos/")
        ['1 file is not an image and is left out: 1 .txt', 'folders with runs of tlfast are left out: exports']
        """
        notes = []
        if total := self.files.total():
            suffixes = [f"{count:,} {suffix}" for suffix, count in self.files.most_common()]
            subject = "1 file is not an image and is" if total == 1 else f"{total:,} files are not images and are"
            notes.append(f"{subject} left out: {list_some(suffixes, SHOWN, 'other suffixes')}")
        if self.hidden:
            notes.append(f"images whose names begin with a dot are left out: {self.hidden:,}")
        return notes + [
            f"{reason}: {list_some([make_printable(path.removeprefix(prefix)) for path in paths], SHOWN)}" for reason, paths in self.folders.items() if paths
        ]


def find_hidden(path: PurePath) -> str:
    """Return the outermost folder in the path of a file whose name begins with a dot, "" if there is none.

    >>> find_hidden(PurePath("photos/.old/cat/1.jpg"))
    'photos/.old'
    """
    parts = path.parts[:-1]
    return next(("/".join(parts[: number + 1]) for number, part in enumerate(parts) if part.startswith(".") and part != ".."), "")
