"""The entries of `run.json` are declared."""

from __future__ import annotations

import json

import pytest

from tests.helpers.paths import ROOT
from tlfast.core import runs
from tlfast.core.manifest import ENTRIES, check_manifest


def test_a_run_has_the_declared_entries(run, tmp_path):
    added = tmp_path / "added.bin"
    added.write_bytes(b"1")
    changed = runs.record_test_use(runs.add_files(runs.read_run(run.folder), [added], {"megabytes": 1e-6}), "evaluate", {"images": 1, "accuracy": 1.0})
    written = json.loads((changed.folder / "run.json").read_text())
    always = {name for name, entry in ENTRIES.items() if not entry.when}
    assert always <= written.keys() <= ENTRIES.keys()
    assert {"exports", "test_looks", "plan"} <= written.keys() - always


def test_a_run_of_an_earlier_version_passes():
    earlier = json.loads((ROOT / "tests" / "fixtures" / "run-0.1.json").read_text())
    check_manifest(earlier)
    assert earlier.keys() <= ENTRIES.keys()


@pytest.mark.parametrize("name", ENTRIES)
def test_a_wrong_type_of_an_entry_is_named(name):
    manifest = {"settings": {"task": "t"}, "classes": ["a", "b"]}
    check_manifest(manifest)
    with pytest.raises((ValueError, TypeError)):
        check_manifest({**manifest, name: ...})
