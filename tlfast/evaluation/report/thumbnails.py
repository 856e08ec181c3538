"""Thumbnails as data URLs, and examples of findings of the data check."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...core import ImageError
from ...data import Finding, images
from ...data.types import FINDING_KINDS, RANKED

SIDE = 96  # pixels of a thumbnail
DECODED_SIDE = 4 * SIDE  # least side at which a photo is decoded for one


@dataclass(frozen=True)
class Example:
    """One finding with thumbnails.

    Attributes:
        finding: the finding.
        picture: data URL of its image; "" if the image cannot be read.
        other: data URL of the other image that it concerns; "" if there is none.
    """

    finding: Finding
    picture: str
    other: str

    @property
    def name(self) -> str:
        """File name of the image."""
        return Path(self.finding.path).name

    @property
    def other_name(self) -> str:
        """File name of the other image."""
        return Path(self.finding.other).name


@dataclass(frozen=True)
class FindingGroup:
    """All findings of one kind.

    Attributes:
        kind: one of `FINDING_KINDS`.
        meaning: description of the kind.
        images: number of images with such a finding.
        examples: some of them.
    """

    kind: str
    meaning: str
    images: int
    examples: list[Example]


def make_thumbnail(path: str) -> str:
    """Return an image of at most 96 x 96 pixels as data URL; "" if it cannot be read."""
    try:
        image = images.open_image(path, DECODED_SIDE)
    except ImageError:
        return ""
    image.thumbnail((SIDE, SIDE))
    return to_data_url(image)


def to_data_url(image: Image.Image) -> str:
    """Return an image as JPEG in a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def group_findings(findings: Sequence[Finding], most: int, most_ranked: int) -> list[FindingGroup]:
    """Return the findings by kind, in the order of `FINDING_KINDS`, each kind with at most `most` examples; those in `RANKED` with `most_ranked`."""
    by_kind: dict[str, dict[str, Finding]] = defaultdict(dict)
    for finding in findings:
        by_kind[finding.kind].setdefault(finding.path, finding)
    return [
        FindingGroup(kind, meaning, len(by_kind[kind]), _pick_examples(kind, list(by_kind[kind].values()), most_ranked if kind in RANKED else most))
        for kind, meaning in FINDING_KINDS.items()
        if kind in by_kind
    ]


def _pick_examples(kind: str, findings: Sequence[Finding], most: int) -> list[Example]:
    step = 1 if kind in RANKED else max(1, -(-len(findings) // most))
    return [Example(f, make_thumbnail(f.path), make_thumbnail(f.other) if f.other else "") for f in findings[::step][:most]]
