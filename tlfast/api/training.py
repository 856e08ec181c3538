"""Train, plan, find learning rates, and build a Learner: the calls that take images and settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..cli.arguments import Arguments, check_repeatable, check_task, read_values
from ..cli.worker import WORKER
from ..core import DataSettings, Interrupted, Settings, UsageError, config_files, torchrun
from ..core.journal import NEWEST
from ..core.setting_checks import BY_SIZE
from .datasets import Dataset, open_source
from .display import format_table, wrap_html
from .keywords import Keywords, check_names, check_text, with_settings
from .progress import show_progress
from .run import Run
from .serial import keep_random_states, one_at_a_time

if TYPE_CHECKING:
    from fastai.callback.core import Callback
    from fastai.learner import Learner
    from typing_extensions import Unpack

    from ..commands.train import DryRun
    from ..data import Task
    from ..distributed import Engine
    from ..training import RateCurve
    from .datasets import DataSource

HEAD_ONLY = "0"  # value of `depth`
CBS_HINT = "Start this script by torchrun, without gpus"
INTERRUPTED_HINT = "Continue with: tlfast.train(..., resume=True)"


@with_settings
def train(
    data: Dataset | DataSource,
    *,
    full: bool | None = None,
    like: Run | str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] = "",
    resume: bool | str = False,
    cbs: Sequence[Callback] = (),
    engine: str = "local",
    address: str = "",
    cpus: int = 1,
    quiet: bool = False,
    **settings: Unpack[Keywords],
) -> Run:
    """Train a pretrained network on labelled images, evaluate it and export it. Returns the finished run.

    Args:
        data: a dataset, or what `tlfast.dataset` accepts.
        full: True trains all layers, False only the head; the same as `depth="all"` and `depth=0`.
        like: a run, or its reference, whose settings are used, except those of its images; keywords have priority.
        config: a TOML file of settings, or the `run.json` of a run to repeat.
        resume: True continues the newest interrupted training of these images, a run id a certain one.
        cbs: fastai callbacks for every phase. With a frozen backbone they see batches of features instead of images.
        engine: where frozen layers run: "local", or "ray" for one task of a Ray cluster for each view, with `pip install "tlfast[scale]"`.
        address: address of a Ray cluster; without it that of RAY_ADDRESS, else one on this machine.
        cpus: cores of each task of Ray.
        quiet: hide progress.
        settings: all settings of `tlfast train --help`, such as `depth=3`, `epochs=8`, `minutes=10`, `seed=0`.

    An interrupted cell leaves a training that `resume=True` continues. Raises TlfastError.

    >>> run = tlfast.train("digits", depth=2, epochs=3)  # doctest: +SKIP
    """
    from ..distributed import open_engine

    dataset, given = open_source(data, settings)
    arguments = merge_settings(dataset, given, Run(like) if isinstance(like, str | os.PathLike) else like, config)
    which = NEWEST if resume is True else resume or ""
    resolved, which = arguments.resumed(which, full) if which else (arguments.settings(full), "")
    placed = open_engine(engine, address, cpus, devices=[resolved.device])
    if not placed.in_process:
        _compute_features(dataset.task, resolved, placed, which, quiet)
    return train_resolved(dataset.task, resolved, which, arguments.like, cbs, quiet)


@one_at_a_time
@keep_random_states
def _compute_features(task: Task, settings: Settings, engine: Engine, resume: str, quiet: bool) -> None:
    from ..commands.train_features import compute_features

    with show_progress(quiet) as on_event:
        compute_features(task, settings, engine, on_event, resume)


@one_at_a_time
@keep_random_states
def train_resolved(
    task: Task, settings: Settings, resume: str = "", like: Mapping[str, Any] = MappingProxyType({}), cbs: Sequence[Callback] = (), quiet: bool = False
) -> Run:
    """Train with resolved settings. The other arguments are those of `commands.train.train_run`. Raises TlfastError."""
    from ..commands.train import train_run
    from ..commands.train_processes import Training, train_in_processes

    _check_callbacks(cbs)
    try:
        with show_progress(quiet) as on_event:
            if torchrun.must_start_processes(settings.gpus):
                if cbs:
                    raise UsageError(f"cbs are given with gpus={settings.gpus}: other processes cannot receive them", CBS_HINT)
                request = Training(task, settings, resume, like, quiet, show=False)  # these processes print their progress themselves
                return Run(train_in_processes(request, WORKER, on_event), verify=False)
            result = train_run(task, settings, on_event, resume, like, cbs)
    except Interrupted as error:
        raise Interrupted(error.message, INTERRUPTED_HINT) from None
    return Run(result.folder, verify=False)


def _check_callbacks(cbs: Any) -> None:
    """Raise UsageError unless `cbs` is a list of fastai callbacks that have what they need."""
    from fastai.callback.core import Callback
    from fastai.callback.progress import ProgressCallback, ShowGraphCallback

    if not isinstance(cbs, Sequence) or not all(isinstance(cb, Callback) or (isinstance(cb, type) and issubclass(cb, Callback)) for cb in cbs):
        raise UsageError(f"cbs={cbs!r} is not a list of fastai callbacks", "Give a list, such as cbs=[GradientClip(1.0)]")
    kinds = {cb if isinstance(cb, type) else type(cb) for cb in cbs}
    if ShowGraphCallback in kinds and ProgressCallback not in kinds:
        found = "ShowGraphCallback draws into the bar of fastai's ProgressCallback, which trainings of tlfast do not have"
        raise UsageError(found, "Give both: cbs=[ProgressCallback(), ShowGraphCallback()]")


def merge_settings(dataset: Dataset, settings: Mapping[str, Any], like: Run | None = None, config: str | os.PathLike[str] = "") -> Arguments:
    """Return the arguments of a command: keywords before the settings of the dataset, these before those of `like` and of a config file."""
    if like is not None and not isinstance(like, Run):
        raise UsageError(f"like={like!r} is neither a run nor the reference of one", 'Give a run, or such as like="fer"')
    if like is not None and config:
        raise UsageError("like and config are both given", "Give only one of them")
    flags = {**dataset.settings, **check_names(settings)}
    if like is not None:
        return Arguments(dataset.task, flags, _settings_like(like), {})
    file = check_text("config", config, 'config="run.json"')
    arguments = Arguments(dataset.task, flags, *read_values(file))
    check_task(arguments, file)
    return arguments


def _settings_like(run: Run) -> dict[str, Any]:
    """Return the settings of a run without those of its images and of its name. Raises UsageError for a run that was fitted by hand."""
    check_repeatable(run.manifest, f"the run {run.id}")
    left_out = {*(f.name for f in fields(DataSettings)), "task", BY_SIZE}
    values = config_files.settings_to_repeat(run.manifest)
    return {name: value for name, value in values.items() if name not in left_out}


class TrainingPlan:
    """What a training would do: `tlfast.plan` returns it.

    Attributes:
        settings: the settings of the training, such as `plan.settings.depth`.
        parameters: number of parameters of the network.
        trained_parameters: number of parameters that would be trained.
        weights: description of the pretrained weights.
        device: name of the device.
        depths: DataFrame of the depths to choose from, with predicted seconds; empty if the depth is given.

    >>> tlfast.plan("photos").depths.query("seconds < 600")  # doctest: +SKIP
    """

    def __init__(self, plan: DryRun) -> None:
        self.settings, self.weights, self.device = Settings.from_dict(plan.settings), plan.weights, plan.device
        self.parameters, self.trained_parameters = plan.parameters, plan.trained_parameters
        self.depths = pd.DataFrame([asdict(depth) for depth in plan.depths])

    def __repr__(self) -> str:
        depths = f"\n{self.depths.to_string(index=False)}" if len(self.depths) else ""
        return f"TrainingPlan: {self.trained_parameters:,} of {self.parameters:,} parameters of {self.settings.arch} on {self.device}{depths}"

    def _repr_html_(self) -> str:
        facts = [("backbone", self.settings.arch), ("weights", self.weights), ("device", self.device)]
        facts += [("parameters", f"{self.parameters:,}"), ("trained", f"{self.trained_parameters:,}")]
        depths = format_table(list(self.depths.columns), self.depths.to_numpy().tolist(), 2) if len(self.depths) else ""
        return wrap_html(format_table(("plan", ""), facts), depths)


@with_settings
@one_at_a_time
@keep_random_states
def plan(
    data: Dataset | DataSource,
    *,
    full: bool | None = None,
    config: str | os.PathLike[str] = "",
    quiet: bool = False,
    **settings: Unpack[Keywords],
) -> TrainingPlan:
    """Predict the cost of a training without training. Without a depth or a preset, of all depths: as with `depth="auto"`. Writes no run.

    Keywords are those of `train`. Raises TlfastError.

    >>> tlfast.plan("digits", minutes=1).depths  # doctest: +SKIP
    """
    from ..commands.train import plan_run

    dataset, given = open_source(data, settings)
    arguments = merge_settings(dataset, given, config=config)
    named = {**arguments.values, **arguments.flags}
    if full is None and all(named.get(name) in (None, "", "none") for name in ("depth", "minutes", "preset", "strategy", "full")):
        arguments = arguments.with_flags({"depth": "auto"})
    resolved = arguments.settings(full)
    with show_progress(quiet) as on_event:
        return TrainingPlan(plan_run(dataset.task, resolved, on_event))


@with_settings
@one_at_a_time
@keep_random_states
def lr_find(
    data: Dataset | DataSource,
    *,
    full: bool | None = None,
    config: str | os.PathLike[str] = "",
    quiet: bool = False,
    **settings: Unpack[Keywords],
) -> dict[str, RateCurve]:
    """Run the learning-rate finder for each phase of a training. Returns the curve of each phase.

    A curve has the finder's `suggestion`, and the `rate` that `train` uses with the same keywords. Plots
    are written to `exports/<task>`. Keywords are those of `train`. Raises TlfastError.

    >>> tlfast.lr_find("digits")["head"].suggestion  # doctest: +SKIP
    """
    from ..commands.lr_find import find_rates

    dataset, given = open_source(data, settings)
    resolved = merge_settings(dataset, given, config=config).settings(full)
    with show_progress(quiet) as on_event:
        return find_rates(dataset.task, resolved, on_event).curves


@with_settings
@one_at_a_time
def learner(
    data: Dataset | DataSource,
    *,
    full: bool | None = None,
    config: str | os.PathLike[str] = "",
    quiet: bool = False,
    **settings: Unpack[Keywords],
) -> Learner:
    """Return the fastai Learner that `train` starts from, untrained: images, augmentation, pretrained backbone, head, metrics.

    All its methods work: `fine_tune`, `lr_find`, `freeze`, `show_results`, `get_preds`, callbacks. The backbone is frozen unless `full=True` or a `depth`
    is given; then all layers are trainable. `Run.from_learner` evaluates and exports the result. Keywords are those of `train`; a note names those that only
    a training has, such as `epochs` and `mixup`: give `fine_tune` its epochs, and callbacks of fastai. Raises TlfastError.

    >>> learn = tlfast.learner("digits")  # doctest: +SKIP
    >>> learn.fine_tune(1); run = tlfast.Run.from_learner(learn)  # doctest: +SKIP
    """
    from ..commands.learner import open_learner

    dataset, given = open_source(data, settings)
    resolved = merge_settings(dataset, given, config=config).settings(full)
    with show_progress(quiet) as on_event:
        learn = open_learner(dataset.task, resolved, on_event)
    if resolved.depth == HEAD_ONLY:
        learn.freeze()
    return learn
