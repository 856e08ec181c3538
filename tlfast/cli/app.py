"""The commands. Each parses its arguments, calls one function of `commands` and renders the result. Heavy imports are inside the functions."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import tasks as registry
from ..core import Note, Settings, UsageError, torchrun
from ..core.signals import raise_interrupt
from .arguments import find_resumed, parse_arguments, parse_shares, split_list
from .data_and_cache import cache_app, data_app
from .options import (
    Address,
    Config,
    Cpus,
    Device,
    EngineOption,
    Full,
    LabelColumn,
    Log,
    Moved,
    MovedOrOther,
    OptionalTask,
    OutOption,
    PathColumn,
    RunArgument,
    Split,
    SplitOrAll,
    TaskArgument,
    Tta,
    Verify,
    task_names,
)
from .registration import DATA, TRAIN, UNDERSTAND, UPKEEP, Commands, command
from .use import use_app
from .worker import WORKER

if TYPE_CHECKING:
    from ..core import RunRecord
    from .console import Screen
else:
    Screen = Any  # typer evaluates annotations, and rich must not be imported for that

app = typer.Typer(name="tlfast", cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})
app.add_typer(use_app)  # without a name: its commands are commands of tlfast
app.add_typer(data_app, name="data", rich_help_panel=DATA)
app.add_typer(cache_app, name="cache", rich_help_panel=UPKEEP)


def _find_run(run: str, split: str, out: str, verify: bool, allow_all: bool = False) -> RunRecord:
    """Find a run by reference, after a check of `--split`. Raises UsageError or RunError."""
    from ..core.runs import ALL, EVALUATED, check_split, find

    check_split(split, (*EVALUATED, ALL) if allow_all else EVALUATED)
    return find(run, out, verify)


@command(app, "train", TRAIN)
def train(
    task: OptionalTask = "",
    *,
    screen: Screen,
    flags: dict[str, Any],
    full: Full = None,
    config: Config = "",
    resume: Annotated[
        str,
        typer.Option(help="Resume an interrupted training: the newest (of the task, if one is given), or the given run.", metavar="[RUN]", show_default=False),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show settings, data and model size, without training.")] = False,
    engine: Annotated[str, typer.Option(help="Where frozen layers run: local (this process), or ray (one task for each view of the images).")] = "local",
    address: Address = "",
    cpus: Cpus = 1,
) -> None:
    """Train a pretrained network on labelled images, evaluate it and export it."""
    from ..distributed import open_engine

    if resume and not (task or config or "data" in flags):
        task, resume = find_resumed(resume, flags.get("out", Settings.out))
    arguments = parse_arguments(task, flags, config)
    settings, resume = arguments.resumed(resume, full) if resume else (arguments.settings(full), "")
    placed = open_engine(engine, address, cpus, devices=[settings.device])
    if not placed.in_process and not dry_run:
        with screen.progress() as on_event:
            from ..commands.train_features import compute_features

            compute_features(arguments.task, settings, placed, on_event, resume)
    if torchrun.must_start_processes(settings.gpus) and not dry_run:
        from ..commands.train_processes import Training, train_in_processes
        from .progress import Lines

        request = Training(arguments.task, settings, resume, arguments.like, screen.quiet, screen.as_json)
        train_in_processes(request, WORKER, Lines(screen))
        return
    first = torchrun.rank() == 0
    with screen.progress() as on_event:
        from ..commands import train

        plan = train.plan_run(arguments.task, settings, on_event, resume) if dry_run else None
        result = None if plan else train.train_run(arguments.task, settings, on_event, resume, arguments.like)
    if plan:
        screen.plan(plan)
    if result and first:
        screen.train_result(result)


@command(app, "lr-find", TRAIN)
def lr_find(task: TaskArgument, screen: Screen, flags: dict[str, Any], full: Full = None, config: Config = "") -> None:
    """Run the learning-rate finder and plot its curve, without training."""
    arguments = parse_arguments(task, flags, config)
    settings = arguments.settings(full)
    with screen.progress() as on_event:
        from ..commands.lr_find import find_rates

        result = find_rates(arguments.task, settings, on_event)
    screen.rates(result.to_dict())


@command(app, "archs", TRAIN)
def archs(
    screen: Screen,
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern such as 'resnet*'. Default: all whose weights need no download.")] = "",
) -> None:
    """Search for a backbone: parameters, stages, where the pretrained weights are, and their licence."""
    with screen.progress() as on_event:
        from ..commands.archs import search_archs

        result = search_archs(pattern, on_event)
    screen.archs(result)


@command(app, "interpret", UNDERSTAND)
def interpret(
    run: RunArgument,
    screen: Screen,
    split: Split = "valid",
    k: Annotated[int, typer.Option(help="Number of top losses to show.", min=1, max=100)] = 12,
    data: Moved = "",
    device: Device = "auto",
    open: Annotated[bool, typer.Option("--open", help="Open the plots.")] = False,
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Show the errors of a classifier: per-class scores, confusion matrix, top losses."""
    found_run = _find_run(run, split, out, verify)
    with screen.progress() as on_event:
        from ..commands import interpret

        result = interpret.interpret_run(found_run, split, k, data, device, on_event)
    screen.interpret_result(result)
    for picture in result.pictures if open else ():
        typer.launch(picture)


@command(app, "evaluate", UNDERSTAND)
def evaluate(
    run: RunArgument,
    screen: Screen,
    split: SplitOrAll = "valid",
    data: MovedOrOther = "",
    path_col: PathColumn = "",
    label_col: LabelColumn = "",
    device: Device = "auto",
    tta: Tta = "",
    log: Log = "",
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Evaluate a run: all metrics with confidence intervals, calibration, and coverage by confidence."""
    found_run = _find_run(run, split, out, verify, allow_all=True)
    with screen.progress() as on_event:
        from ..commands import evaluate

        result = evaluate.evaluate_run(found_run, evaluate.EvaluateRequest(split, data, device, tta, log, path_col, label_col), on_event)
    screen.evaluate_result(result)


@command(app, "report", UNDERSTAND)
def report(
    run: Annotated[str, typer.Argument(help="Name of a task (its latest run), run id, run folder, or folder of a comparison.", autocompletion=task_names)],
    screen: Screen,
    split: Split = "valid",
    data: Moved = "",
    device: Device = "auto",
    open: Annotated[bool, typer.Option("--open", help="Open the page.")] = False,
    paths: Annotated[bool, typer.Option("--paths/--no-paths", help="Show local paths, or only the names of files and folders.")] = True,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Show the findings of the data check.")] = True,
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Write an HTML page on a run, with metrics, misclassified images and the command to repeat it, and a model card. Or a page on a comparison."""
    from ..core.runs import COMPARISON

    is_comparison = (Path(run) / COMPARISON).is_file()
    if is_comparison and (split != "valid" or data or device != "auto" or not check):
        raise UsageError("--split, --data, --device and --no-check are for a run, and this is a comparison", "Leave them out")
    found_run = None if is_comparison else _find_run(run, split, out, verify)
    with screen.progress() as on_event:
        from ..commands import report

        contents = report.Contents(paths, check)
        result = report.report_run(found_run, split, data, device, contents, on_event) if found_run else report.report_comparison(Path(run), paths)
    screen.report_result(result)
    if open:
        typer.launch(result.files[0])


@command(app, "compare", TRAIN)
def compare(
    task: TaskArgument,
    screen: Screen,
    flags: dict[str, Any],
    arms: Annotated[
        str,
        typer.Option(
            help="What to compare: partial, full, depths such as 3, TOML files of settings; knn: nearest neighbours, without training.",
            show_default="partial,full",
        ),
    ] = "",
    depths: Annotated[bool, typer.Option("--depths", help="Compare partial, full and up to four depths in between.")] = False,
    archs: Annotated[
        str,
        typer.Option(
            help="Backbones to compare, such as mobilenetv2_100,resnet50; auto: of those that need no download, the two whose features suit the images best.",
            show_default=False,
        ),
    ] = "",
    folds: Annotated[int, typer.Option(help="Number of folds for cross-validation; 0: evaluate on the valid split.", min=0, max=100)] = 0,
    seeds: Annotated[int, typer.Option(help="Number of seeds to train each arm with.", min=1, max=100)] = 1,
    learning_curve: Annotated[
        str, typer.Option(help="Also train on these percentages of the training images, such as 5,10,25,50,100.", show_default=False)
    ] = "",
    baseline: Annotated[
        str, typer.Option(help="Compare each arm with this one only, instead of all pairs; the tests then correct for fewer.", show_default=False)
    ] = "",
    engine: EngineOption = "local",
    address: Address = "",
    cpus: Cpus = 1,
    config: Config = "",
) -> None:
    """Compare strategies, backbones or settings on the same images, with statistical tests of their differences."""
    if arms and depths:
        raise UsageError("--arms and --depths are both given", "Give only one of them; --arms takes depths too, such as --arms partial,2,4,full")
    arguments, shares = parse_arguments(task, flags, config), parse_shares(learning_curve)
    with screen.progress() as on_event:
        from ..commands import compare, comparison_trainings, rank_backbones
        from ..evaluation import comparison

        kinds = compare.DEPTHS if depths else arms or "partial,full"
        request = compare.ArmsRequest(split_list(kinds), split_list(archs), arguments.flags, arguments.values)
        request = rank_backbones.choose_archs(arguments.task, request, on_event)
        built = compare.build_arms(arguments.task, request.kinds, request.archs, request.flags, request.config)
        placed = comparison_trainings.open_arms_engine(built, engine, address, cpus)
        result = compare.compare_arms(arguments.task, built, comparison.Design(folds, seeds, shares, baseline), on_event, placed, request.ranking)
    screen.compare_result(result)


@command(app, "tasks", DATA)
def tasks(screen: Screen) -> None:
    """List the known tasks."""
    screen.tasks(list(registry.registered_tasks().values()))


@command(app, "runs", UPKEEP)
def runs(
    screen: Screen,
    task: Annotated[str, typer.Argument(help="Name of a task or path of images: list only its runs.", show_default=False, autocompletion=task_names)] = "",
    interrupted: Annotated[bool, typer.Option("--interrupted", help="List the interrupted trainings, with the commands that resume them.")] = False,
    out: OutOption = "exports",
) -> None:
    """List the finished runs, the newest last."""
    from ..commands.interrupted import list_interrupted
    from ..core.runs import list_runs

    name = registry.find_task_name(task)
    with screen.progress() as on_event:
        unfinished = list_interrupted(out, name, on_event)
    if interrupted:
        screen.interrupted(unfinished)
        return
    with screen.progress() as on_event:
        for training in unfinished:
            on_event(Note("interrupted", f"{training.describe()}; to resume: {training.command}"))
        found = list_runs(out, name, on_event)
    screen.runs(found)


@command(app, "doctor", UPKEEP)
def doctor(
    screen: Screen,
    out: OutOption = "exports",
    bench: Annotated[
        bool, typer.Option("--bench", help="Also measure the speed of this machine, in about a minute, and compare it with the usual one.")
    ] = False,
) -> None:
    """Show versions, devices and sources of weights, and problems that make a training slow or fail."""
    from ..commands.doctor import inspect_machine

    with screen.progress() as on_event:
        result = inspect_machine(out, bench, on_event)
    screen.doctor(result)


@app.callback(invoke_without_command=True)
def main_options(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    """Train, explain and export image classifiers by transfer learning."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"tlfast {installed('tlfast')}")


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, raise_interrupt)
    app()
