"""The runs in a folder, and those of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import fields

import pandas as pd

from ..commands.interrupted import InterruptedTraining, list_interrupted
from ..core import runs as records
from ..tasks import find_task_name
from .keywords import check_path, check_text, with_keywords_in_messages
from .progress import show_progress
from .run import Run


@with_keywords_in_messages
def runs(task: str = "", *, interrupted: bool = False, out: str = "exports") -> pd.DataFrame:
    """Return the finished runs, oldest first: run, task, strategy, arch, accuracy, macro F1, time, folder.

    With `interrupted`, return the trainings that `train(..., resume=run)` continues, with their progress and the seconds they have taken.

    >>> tlfast.runs("digits")[["run", "accuracy"]]  # doctest: +SKIP
    """
    task, out = find_task_name(check_text("task", task, 'tlfast.runs("fer")')), check_path("out", out, 'out="exports"')
    if interrupted:
        names = [field.name for field in fields(InterruptedTraining)]
        with show_progress() as on_event:
            return pd.DataFrame([each.to_dict() for each in list_interrupted(out, task, on_event)], columns=names)
    columns = ["run", "task", "strategy", "arch", "accuracy", "macro_f1", "created", "folder"]
    with show_progress(quiet=False) as on_event:
        return pd.DataFrame(records.list_runs(out, task, on_event), columns=columns)


@with_keywords_in_messages
def pull(repository: str, *, out: str = "exports", quiet: bool = False) -> Run:
    """Download a run from a repository of the Hugging Face hub, `user/name` or `user/name@revision`, into the folder `out`, and open it.

    Each file is compared with its SHA-256, and no pickle is downloaded. `tlfast.load("hf://user/name")` needs no run folder. Raises TlfastError.

    >>> tlfast.pull("me/weeds").evaluate(data="photos/")  # doctest: +SKIP
    """
    from ..commands.push import pull_run

    with show_progress(quiet) as on_event:
        folder = check_path("out", out, 'out="exports"')
        return Run(pull_run(check_text("repository", repository, 'tlfast.pull("me/weeds")'), folder, on_event).folder)
