"""Arguments and options that several commands share. An option of one command is a parameter of its function in `app.py`."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Annotated

import typer

from .. import tasks as registry
from ..core import DataError
from ..core.settings import declared_settings


def task_names(incomplete: str) -> list[str]:
    """Shell completion for the name of a task."""
    return [name for name in registry.registered_tasks() if name.startswith(incomplete)]


def arch_names(incomplete: str) -> list[str]:
    """Shell completion for the name of a backbone."""
    from ..models import list_names

    with suppress(DataError):  # the cache is not writable
        return [name for name in list_names() if name.startswith(incomplete)]
    return []


TaskArgument = Annotated[
    str,
    typer.Argument(
        help="Name of a task, path of labelled images (folder, zip, CSV, parquet, COCO or tar file) or of a .py file with a task, or hf://datasets/user/name.",
        autocompletion=task_names,
    ),
]
OptionalTask = Annotated[
    str,
    typer.Argument(
        help="Name of a task, path of images (folder, zip, CSV, parquet, COCO or tar file) or of a .py file with a task, or hf://datasets/user/name. "
        "Optional with --data, --resume or --config run.json.",
        autocompletion=task_names,
        show_default=False,
    ),
]
RunArgument = Annotated[str, typer.Argument(help="Name of a task (its latest run), run id, or run folder.", autocompletion=task_names)]
RunOrHub = Annotated[str, typer.Argument(help="Name of a task (its latest run), run id, run folder, or hf://user/name on the hub.", autocompletion=task_names)]
OutOption = Annotated[str, typer.Option(help="Folder for runs.", callback=os.path.expanduser)]
Verify = Annotated[bool, typer.Option("--verify/--no-verify", help="Refuse a run if a file was changed after the export.")]
Split = Annotated[str, typer.Option(help="Split to evaluate: valid or test. Each use of test is recorded in the run.")]
SplitOrAll = Annotated[str, typer.Option(help="Split to evaluate: valid or test, or all for all images of --data. Each use of test is recorded in the run.")]
Moved = Annotated[str, typer.Option("--data", help="Path of the images of the run, if they were moved.", show_default=False)]
MovedOrOther = Annotated[
    str, typer.Option("--data", help="Path of the images of the run, if they were moved; with --split all any images.", show_default=False)
]
PathColumn = Annotated[
    str, typer.Option("--path-col", help="With --split all: column of a table with image paths. Default: that of the training.", show_default=False)
]
LabelColumn = Annotated[
    str, typer.Option("--label-col", help="With --split all: column of a table with labels. Default: that of the training.", show_default=False)
]
Tta = Annotated[str, typer.Option(help="Test-time augmentation: flip or crops. Write the file first with tlfast export --tta.", show_default=False)]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps; auto uses a GPU if there is one.")]
Log = Annotated[str, typer.Option(help=declared_settings()["log"].help, show_default=False)]
Full = Annotated[bool | None, typer.Option("--full/--partial", help="Train all layers, or only the head.", show_default="partial")]
Config = Annotated[str, typer.Option(help="TOML file of settings, or the run.json of a run to repeat. Flags have priority.", show_default=False)]
EngineOption = Annotated[str, typer.Option("--engine", help="Where the work is done: local (this process), or ray.")]
Address = Annotated[str, typer.Option(help="Address of a Ray cluster. Default: RAY_ADDRESS, else a cluster on this machine.", show_default=False)]
Cpus = Annotated[int, typer.Option(help="Cores of each task of Ray.", min=1)]
