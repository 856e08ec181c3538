"""Runs that several tests share: trained once for each test process, read in place, copied for tests that write into them."""

from __future__ import annotations

import shutil
from collections.abc import MutableSequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.command_line import TINY, invoke
from tlfast.core import runs


@dataclass(frozen=True)
class TrainedRun:
    """A partial run "r" and a full run "f" on the same drawn images. Nothing here may be changed."""

    images: Path
    partial: Path
    full: Path


def train_in(root: Path, images: Path, name: str, *flags: object, printed: MutableSequence[str] | None = None) -> Path:
    """Train outside of any test, with the cache and the exports below `root`; return the run folder, and add the output to `printed`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLFAST_CACHE", str(root / "cache"))
        patch.delenv("TLFAST_WEIGHTS", raising=False)
        patch.chdir(root)
        outcome = invoke("train", images, *TINY, *flags, "--name", name, "--quiet")
    assert outcome.code == 0, outcome.err
    if printed is not None:
        printed.append(outcome.out)
    return root / "exports" / images.name / name


def copy_run(run: Path, root: Path) -> Path:
    """Copy a run to `root/exports/<task>/<name>` as the latest of its task; return the task's folder."""
    task = root / "exports" / run.parent.name
    shutil.copytree(run, task / run.name)
    (task / runs.LATEST).write_text(f"{run.name}\n")
    return task
