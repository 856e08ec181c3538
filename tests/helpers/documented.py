"""Commands of the documentation, run as they are printed, in a folder with all that they name.

Trainings are made small by flags at the end of the command: the network, the size and the number of images and epochs. The last flag counts.
"""

from __future__ import annotations

import shlex
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.command_line import TINY, Outcome, invoke
from tests.helpers.runs import copy_run

SMALL = [*TINY, "--epochs", "1", "--freeze-epochs", "1", "--limit", "40"]
NO_RATE = [flag for flag in SMALL if flag not in ("--lr", "3e-3")]
TRAINING = {"train": SMALL, "compare": SMALL, "lr-find": NO_RATE}
FER_CSV = "emotion,pixels,Usage\n" + "".join(f"{n % 7},{' '.join([str(9 * n)] * 2304)},Training\n" for n in range(14))


def train_digits(root: Path) -> Path:
    """Train a small network on the digits in `root`, as run "first"; return `root`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLFAST_CACHE", str(root / "cache"))
        patch.delenv("TLFAST_WEIGHTS", raising=False)
        patch.chdir(root)
        outcome = invoke("train", "digits", *SMALL, "--name", "first", "--quiet")
    assert outcome.code == 0, outcome.err
    return root


def fill_workspace(folder: Path, digits_root: Path, pictures: Path) -> Path:
    """Copy a run of digits and images to a folder: `exports/digits`, `data/digits`, `photos/<class>/`, `photos.csv`, `photo.png`, `inbox/` and more."""
    copy_run(digits_root / "exports" / "digits" / "first", folder)
    (folder / "data").mkdir()
    (folder / "data" / "digits").symlink_to(digits_root / "data" / "digits")
    shutil.copytree(pictures, folder / "photos")
    shutil.copytree(pictures / "red", folder / "inbox")
    shutil.copyfile(pictures / "red" / "0.png", folder / "photo.png")
    (folder / "mine.toml").write_text('depth = "2"\n')
    lines = [f"{path.relative_to(folder)},{path.parent.name},{'valid' if n % 4 == 0 else 'train'}" for n, path in enumerate(sorted(folder.glob("photos/*/*")))]
    (folder / "photos.csv").write_text("\n".join(["path,label,split", *lines, ""]))
    (folder / "fer2013.csv").write_text(FER_CSV)
    with zipfile.ZipFile(folder / "fer2013.zip", "w") as file:
        file.write(folder / "fer2013.csv", "fer2013.csv")
    return folder


def replace_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the downloads of `data get` and the server of `serve`, whose other steps run, and the network of `doctor --bench`."""
    from tests.helpers.speeds import use_tiny_workload
    from tlfast.data import sources
    from tlfast.inference import server

    use_tiny_workload(monkeypatch)

    def get_data(task: Any, **options: Any) -> Path:
        return Path("data") / task.name

    def serve(service: Any, host: str, port: int, started: Any) -> None:
        started(f"http://{host}:{port}")

    monkeypatch.setattr(sources, "get_data", get_data)
    monkeypatch.setattr(server, "serve", serve)


def split_command(line: str) -> list[str]:
    """Return the arguments of a line `tlfast ...`, without a comment at its end."""
    return shlex.split(line, comments=True)[1:]


def run_command(line: str) -> Outcome:
    """Run a line `tlfast ...` in this process, with a small network where it trains."""
    arguments = split_command(line)
    small = [] if {"--resume", "--help"} & set(arguments) else TRAINING.get(arguments[0] if arguments else "", [])
    return invoke(*arguments, *small)
