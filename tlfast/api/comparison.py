"""Compare strategies, backbones or settings on the same images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..core import Interrupted, OnEvent, UsageError
from ..core.files import to_cells
from ..evaluation import CompareResult
from .datasets import Dataset, open_source
from .display import Page, format_table, wrap_html
from .keywords import Keywords, check_names, check_text, with_keywords_in_messages, with_settings
from .progress import show_progress
from .run import Run
from .serial import keep_random_states, one_at_a_time
from .training import merge_settings, train_resolved

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..cli.arguments import Arguments
    from ..evaluation import Arm, RankedBackbone
    from .datasets import DataSource

SHOWN = ["name", "accuracy", "accuracy_interval_low", "accuracy_interval_high", "accuracy_sd", "macro_f1", "seconds", "parameters", "milliseconds"]


class Comparison:
    """Result of `tlfast.compare`.

    Attributes:
        table: DataFrame with one row for each arm: the columns of `arms.csv`, such as accuracy, its interval, seconds, parameters.
        differences: DataFrame with one row for each pair of arms: difference, interval, p-value.
        learning_curve: DataFrame of accuracies by share of the training images; empty without shares.
        ranking: DataFrame of the backbones that `archs="auto"` has chosen from, best first; empty without it.
        verdict: one sentence on the most accurate arm.
        folder: folder with tables, plots and a page.

    >>> result = tlfast.compare("photos", arms=["partial", 3, "full"], seeds=3)  # doctest: +SKIP
    >>> result.table, result.verdict, result.best.predict("new.jpg")  # doctest: +SKIP
    """

    def __init__(self, dataset: Dataset, arms: Sequence[Arm], result: CompareResult) -> None:
        self._dataset, self._arms, self._result = dataset, arms, result
        self.table = pd.DataFrame([to_cells(score) for score in result.arms])
        self.differences = pd.DataFrame([to_cells(difference) for difference in result.differences])
        self.learning_curve = pd.DataFrame([to_cells(point) for point in result.curve])
        self.ranking = pd.DataFrame([asdict(backbone) for backbone in result.ranking])
        self.verdict, self.folder = result.verdict, os.path.abspath(result.folder)  # stays the same in another working directory
        self._pages = [os.path.abspath(path) for path in result.files if path.endswith(".html")]

    @cached_property
    @with_keywords_in_messages
    def best(self) -> Run:
        """The run of the most accurate arm that trains. A comparison keeps predictions only, so the first access trains it, with the first seed.

        Raises UsageError if no arm trains.
        """
        accuracies = {score.name: score.accuracy for score in self._result.arms}
        trained = [arm for arm in self._arms if not arm.neighbours]
        if not trained:
            raise UsageError("no arm of the comparison is trained", 'Add one, such as arms=["knn", "partial"]')
        best = max(trained, key=lambda arm: accuracies[arm.name])
        return train_resolved(self._dataset.task, best.settings)

    def report(self) -> Page:
        """Return the HTML page of the comparison."""
        return Page(self._pages[0])

    def __repr__(self) -> str:
        return f"Comparison on {self._result.judged_on}\n{self.table[SHOWN].to_string(index=False)}\n{self.verdict}"

    def _repr_html_(self) -> str:
        parts = [
            f"<b>{escape(self.verdict)}</b>",
            f'<p class="note">{escape(self._result.judged_on)}</p>',
            format_table(SHOWN, self.table[SHOWN].to_numpy().tolist()),
        ]
        if len(self.differences):
            parts.append(format_table(list(self.differences.columns), self.differences.to_numpy().tolist(), 2))
        return wrap_html(*parts)


@with_settings
@one_at_a_time
@keep_random_states
def compare(
    data: Dataset | DataSource,
    *,
    arms: Sequence[str | int] | Mapping[str, Mapping[str, Any]] = ("partial", "full"),
    archs: Sequence[str] | str = (),
    folds: int = 0,
    seeds: int = 1,
    shares: Sequence[float] = (1.0,),
    baseline: str = "",
    engine: str = "local",
    address: str = "",
    cpus: int = 1,
    config: str | os.PathLike[str] = "",
    quiet: bool = False,
    **settings: Unpack[Keywords],
) -> Comparison:
    """Train several configurations on the same images and compare them, with statistical tests of their differences.

    Args:
        data: a dataset, or what `tlfast.dataset` accepts.
        arms: strategies: "partial", "full", depths such as 3, TOML files of settings, or "knn", the nearest neighbours in the features of the
            backbone; or a dict of names and settings.
        archs: backbones; each is combined with each arm. "auto": the two whose features suit the images best (LogME), of those whose weights need no download.
        folds: number of folds for cross-validation; 0 evaluates on the valid split.
        seeds: number of seeds for each arm.
        shares: shares of the training images for a learning curve, such as (0.1, 0.3, 1.0).
        baseline: name of the arm with which each other one is compared, in place of all pairs; the tests then correct for fewer.
        engine: "local" trains in this process, "ray" as tasks of a Ray cluster, with `pip install "tlfast[scale]"`.
        address: address of a Ray cluster; without it that of RAY_ADDRESS, else one on this machine.
        cpus: cores of each task of Ray.
        config: a TOML file of settings for all arms.
        quiet: hide progress.
        settings: settings of `train` for all arms.

    Finished trainings are cached, so that an interrupted comparison continues after them. Raises TlfastError.

    >>> tlfast.compare("digits", arms=["partial", 2], seeds=3).best  # doctest: +SKIP
    """
    from ..commands.compare import compare_arms
    from ..commands.comparison_trainings import open_arms_engine
    from ..evaluation import Design

    for name, value in (("folds", folds), ("seeds", seeds)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UsageError(f"{name}={value!r} is not a whole number of at least 0", f"Give a number, such as {name}=3")
    design = Design(folds, seeds, _check_shares(shares), check_text("baseline", baseline, 'baseline="partial"'))
    dataset, given = open_source(data, settings)
    arguments = merge_settings(dataset, given, config=config)
    try:
        with show_progress(quiet) as on_event:
            built, ranking = _build_arms(dataset, arguments, arms, archs, on_event)
            placed = open_arms_engine(built, engine, address, cpus)
            result = compare_arms(dataset.task, built, design, on_event, placed, ranking)
    except Interrupted as error:
        raise Interrupted(error.message, "Call tlfast.compare again to continue after them") from None
    return Comparison(dataset, built, result)


def _check_shares(shares: Any) -> tuple[float, ...]:
    """Return the shares of the training images in increasing order, with all of them. Raises UsageError for other types."""
    if not isinstance(shares, Iterable) or not all(isinstance(share, (int, float)) for share in shares):
        raise UsageError(f"shares={shares!r} is not a list of numbers", "Give shares of the training images, such as shares=(0.1, 0.3, 1.0)")
    return tuple(sorted({*shares, 1.0}))


def _build_arms(dataset: Dataset, arguments: Arguments, arms: Any, archs: Any, on_event: OnEvent) -> tuple[list[Arm], Sequence[RankedBackbone]]:
    """Return the arms of a comparison, and the ranking of backbones. Raises UsageError for wrong types, and for settings that do not fit."""
    from ..commands.compare import ArmsRequest, build_arms
    from ..commands.rank_backbones import choose_archs

    arms, archs = (arms,) if isinstance(arms, str | int) else arms, (archs,) if isinstance(archs, str) else archs
    if not isinstance(archs, Iterable) or not isinstance(arms, Iterable):
        raise UsageError(f"arms={arms!r}, archs={archs!r}: not lists", 'Give lists, such as arms=["partial", 3], archs=["resnet50"]')
    for name, values in arms.items() if isinstance(arms, Mapping) else ():
        if not isinstance(name, str) or not isinstance(values, Mapping):
            raise UsageError(f"the arm {name!r}: {values!r} is not a name with a dict of settings", 'Such as arms={"small": {"size": 96}}')
    request = choose_archs(dataset.task, ArmsRequest(list(map(str, arms)), list(archs), arguments.flags, arguments.values), on_event)
    if isinstance(arms, Mapping):
        return [arm for name, values in arms.items() for arm in _combine(name, values, request.archs, arguments)], request.ranking
    return build_arms(dataset.task, request.kinds, request.archs, request.flags, request.config), request.ranking


def _combine(name: str, values: Mapping[str, Any], archs: Sequence[str], arguments: Arguments) -> list[Arm]:
    """Return an arm of a dict with each backbone. Raises UsageError if it names a backbone itself."""
    from ..evaluation import Arm

    if archs and "arch" in values:
        raise UsageError(f"the arm {name!r} names a backbone, and archs are given", "Leave out archs, or the arch of the arm")
    given = dict(values)
    full = given.pop("full", None)  # a keyword of `train` that is no setting
    chosen = [check_names({**given, "arch": arch}) for arch in archs] or [check_names(given)]
    names = [f"{name} {arch}" for arch in archs] if len(archs) > 1 else [name]
    return [Arm(each, arguments.with_flags(flags).settings(full)) for each, flags in zip(names, chosen, strict=True)]
