"""`scripts/constraints.txt` can be installed with every Python that is supported, Debian's 3.11.2 included."""

from __future__ import annotations

from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.helpers.paths import ROOT

LINES = (ROOT / "scripts" / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if line and not line.startswith("#")]


def is_pinned(pin: Requirement, version: str) -> bool:
    environment = {"python_version": ".".join(version.split(".")[:2]), "python_full_version": version}
    return pin.marker is None or pin.marker.evaluate(environment)


@pytest.mark.parametrize("version", ["3.10.0", "3.11.2", "3.12.0", "3.13.0"])
def test_every_pinned_version_supports_the_interpreter(version):
    refused = []
    for pin in PINS:
        try:
            supported = metadata.metadata(pin.name).get("Requires-Python", "")
        except metadata.PackageNotFoundError:
            continue  # a package that this interpreter does not need
        if is_pinned(pin, version) and not SpecifierSet(supported).contains(version):
            refused.append(f"{pin}: Python {supported}")
    assert refused == [], "Add a marker such as ; python_version >= '3.12', or pin an earlier version"
