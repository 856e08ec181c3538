"""Pictures inside a page: thumbnails as text, and examples of what is wrong with a data set's images."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...core.errors import ImageError
from ...data import images
from ...data.types import FINDING_KINDS, Finding

SIDE = 96  # pixels of a thumbnail
RANKED = ("label issue", "outlier")  # kinds whose findings come worst first; of the others examples are taken from all over


@dataclass(frozen=True)
class Example:
    """One finding to be shown: the image and, where there is one, the other that it concerns; pictures are data addresses, "" for none."""

    finding: Finding
    picture: str
    other: str

    @property
    def name(self) -> str:
        return Path(self.finding.path).name

    @property
    def other_name(self) -> str:
        return Path(self.finding.other).name


@dataclass(frozen=True)
class Fault:
    """One kind of finding: what it means, how many images it is true of, and some of them."""

    kind: str
    meaning: str
    images: int
    examples: list[Example]


def make_thumbnail(path: str) -> str:
    """Return a small JPEG of an image as a data address; "" where it cannot be read."""
    try:
        image = images.open_image(path)
    except ImageError:
        return ""
    image.thumbnail((SIDE, SIDE))
    return to_data_url(image)


def to_data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def list_faults(findings: Sequence[Finding], most: int) -> list[Fault]:
    """Return the kinds that were found, in the order of KINDS, each with `most` examples at most."""
    by_kind: dict[str, dict[str, Finding]] = defaultdict(dict)
    for each in findings:
        by_kind[each.kind].setdefault(each.path, each)
    return [
        Fault(kind, meaning, len(by_kind[kind]), _pick_examples(kind, list(by_kind[kind].values()), most))
        for kind, meaning in FINDING_KINDS.items()
        if kind in by_kind
    ]


def _pick_examples(kind: str, findings: Sequence[Finding], most: int) -> list[Example]:
    step = 1 if kind in RANKED else max(1, -(-len(findings) // most))
    return [Example(each, make_thumbnail(each.path), make_thumbnail(each.other) if each.other else "") for each in findings[::step][:most]]
