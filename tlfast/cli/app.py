"""The commands. Each parses, makes one library call and renders; whatever is heavy is imported inside."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from .. import tasks as registry
from ..core.errors import UsageError
from ..core.signals import raise_interrupt
from .arguments import parse_arguments, parse_shares, split_list
from .options import Commands, Config, Full, Moved, OptionalTask, OutOption, RunArgument, Split, TaskArgument, Verify, command, task_names

if TYPE_CHECKING:
    from ..core.runs import Run
    from .console import Screen
else:
    Screen = Any  # annotations are evaluated, and rich is not imported for that

app = typer.Typer(name="tlfast", cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})
data_app = typer.Typer(no_args_is_help=True, help="Get, import and check a task's images.")
app.add_typer(data_app, name="data")
cache_app = typer.Typer(no_args_is_help=True, help="See and remove what is kept for later runs.")
app.add_typer(cache_app, name="cache")


def _search() -> Any:
    from ..commands.check_labels import search_labels

    return search_labels


def _found(run: str, split: str, out: str, verify: bool) -> Run:
    from ..core.runs import find

    if split not in ("valid", "test"):
        raise UsageError(f"--split '{split}' is not one of: valid, test")
    return find(run, out, verify)


@command(app, "train")
def train(
    task: OptionalTask = "",
    *,
    screen: Screen,
    flags: dict,
    full: Full = None,
    config: Config = "",
    resume: Annotated[
        str, typer.Option(help="Go on with an interrupted training: the newest of the task, or the run named.", metavar="[RUN]", show_default=False)
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show settings, data and model size; train nothing.")] = False,
) -> None:
    """Train a pretrained network on labelled images, judge it and export it."""
    given = parse_arguments(task, flags, config)
    settings = given.resumed(resume, full) if resume else given.settings(full)
    with screen.progress() as on_event:
        from ..commands import train

        result = train.plan_run(given.task, settings, on_event) if dry_run else train.train_run(given.task, settings, on_event, resume, given.like)
    (screen.plan if dry_run else screen.train_result)(result)


@command(app, "lr-find")
def lr_find(task: TaskArgument, screen: Screen, flags: dict, full: Full = None, config: Config = "") -> None:
    """Run the learning-rate finder and draw its curve, without training."""
    given = parse_arguments(task, flags, config)
    settings = given.settings(full)
    with screen.progress() as on_event:
        from ..commands import train

        found = train.find_rates(given.task, settings, on_event)
    screen.rates({phase: {"suggestion": curve.suggestion, "picture": str(picture)} for phase, (curve, picture) in found.items()})


@command(app, "interpret")
def interpret(
    run: RunArgument,
    screen: Screen,
    split: Split = "valid",
    k: Annotated[int, typer.Option(help="How many top losses to show.", min=1, max=100)] = 12,
    data: Moved = "",
    open: Annotated[bool, typer.Option("--open", help="Open the pictures.")] = False,
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Show where a classifier errs: per-class scores, confusion matrix, top losses."""
    found = _found(run, split, out, verify)
    with screen.progress() as on_event:
        from ..commands import interpret

        result = interpret.interpret_run(found, split, k, data, on_event)
    screen.interpret_result(result)
    for picture in result.pictures if open else ():
        typer.launch(picture)


@command(app, "evaluate")
def evaluate(
    run: RunArgument,
    screen: Screen,
    split: Split = "valid",
    data: Moved = "",
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Judge a run: every figure with its interval, calibration, and what it may answer at which confidence."""
    found = _found(run, split, out, verify)
    with screen.progress() as on_event:
        from ..commands import evaluate

        result = evaluate.evaluate_run(found, split, data, on_event)
    screen.evaluate_result(result)


@command(app, "report")
def report(
    run: Annotated[str, typer.Argument(help="A task's name (its latest run), a run id, a run folder, or a comparison's folder.", autocompletion=task_names)],
    screen: Screen,
    split: Split = "valid",
    data: Moved = "",
    open: Annotated[bool, typer.Option("--open", help="Open the page.")] = False,
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Write one page on a run: its figures, the images behind its errors, how to repeat it; and its model card. Or on a comparison."""
    from ..core.runs import COMPARISON

    compared = (Path(run) / COMPARISON).is_file()
    found = None if compared else _found(run, split, out, verify)
    with screen.progress() as on_event:
        from ..commands import report

        result = report.report_run(found, split, data, on_event) if found else report.report_comparison(Path(run))
    screen.report_result(result)
    if open:
        typer.launch(result.files[0])


@command(app, "predict")
def predict(
    run: Annotated[str, typer.Argument(help="A task's name (its latest run), a run id, a run folder, or a model.onnx.", autocompletion=task_names)],
    screen: Screen,
    sources: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Image files, folders or zips of them, patterns, CSV files, http(s) addresses, or - for a list on stdin.", show_default=False),
    ] = None,
    top: Annotated[int | None, typer.Option(help="How many classes to show; by default one, and all with --json.", min=1)] = None,
    min_prob: Annotated[float, typer.Option(help='Below this probability the label is "unsure".', min=0, max=1)] = 0.0,
    column: Annotated[str, typer.Option(help="Column of a CSV file that names the images, relative to the file.")] = "path",
    csv: Annotated[str, typer.Option(help="Also write the predictions to this CSV file.", show_default=False)] = "",
    jsonl: Annotated[str, typer.Option(help="Also write them to this file, a line of JSON an image.", show_default=False)] = "",
    parquet: Annotated[str, typer.Option(help="Also write them to this parquet file.", show_default=False)] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the files of a command that was interrupted.")] = False,
    watch: Annotated[str, typer.Option(help="Go on for ever: classify each image that is put into this folder.", show_default=False)] = "",
    network: Annotated[bool, typer.Option("--network/--no-network", help="Fetch http(s) addresses.")] = True,
    allow_private: Annotated[bool, typer.Option("--allow-private", help="Fetch from addresses inside private networks too.")] = False,
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Classify images with an exported classifier. Exit code 1 where an image could not be read."""
    from ..commands import predict
    from ..inference.classifier import load

    if bool(sources) == bool(watch):
        raise UsageError("no image is named" if not watch else "--watch and images are both given", "Give images, or --watch FOLDER")
    files = {"csv": csv, "jsonl": jsonl, "parquet": parquet}
    request = predict.Request(sources or [], column, files, resume, min_prob, watch, network, allow_private)
    with screen.progress() as on_event:
        classifier = load(run, out, verify)
        tally = screen.predictions(predict.predict(classifier, request, on_event), top, min_prob, at_once=bool(watch))
    raise typer.Exit(1 if tally.failed else 0)


@command(app, "compare")
def compare(
    task: TaskArgument,
    screen: Screen,
    flags: dict,
    arms: Annotated[str, typer.Option(help="What to compare: partial, full, depths such as 3, or TOML files of settings.")] = "partial,full",
    depths: Annotated[bool, typer.Option("--depths", help="Compare partial, full and up to four depths between them.")] = False,
    archs: Annotated[str, typer.Option(help="Backbones to compare, such as mobilenetv2_100,resnet50.", show_default=False)] = "",
    folds: Annotated[int, typer.Option(help="Judge every image once, by K trainings; 0: on the valid part.", min=0, max=100)] = 0,
    seeds: Annotated[int, typer.Option(help="Train each arm with N seeds.", min=1, max=100)] = 1,
    learning_curve: Annotated[str, typer.Option(help="Also train on these percentages of the training images: 5,10,25,50,100.", show_default=False)] = "",
    config: Config = "",
) -> None:
    """Train strategies, backbones or settings on the same images, and say what can be said of their differences."""
    given, parts = parse_arguments(task, flags, config), parse_shares(learning_curve)
    if folds == 1:
        raise UsageError("--folds 1 leaves nothing to train on", "Use 2 folds or more, or 0 for the valid part")
    with screen.progress() as on_event:
        from ..commands import compare
        from ..evaluation import comparison

        kinds = compare.list_depths(given.task, given.flags, given.values) if depths else split_list(arms)
        built = compare.build_arms(given.task, kinds, split_list(archs), given.flags, given.values)
        result = compare.compare_arms(given.task, built, comparison.Design(folds, seeds, parts), on_event)
    screen.compare_result(result)


@command(app, "export")
def export(
    run: RunArgument,
    screen: Screen,
    quantize: Annotated[str, typer.Option(help="Write a smaller model.onnx: int8.", show_default=False)] = "",
    half: Annotated[bool, typer.Option("--half", help="Write model.fp16.onnx, for processors that compute in 16-bit floats.")] = False,
    allow_drop: Annotated[bool, typer.Option("--allow-drop", help="Keep a form that loses more than a point of accuracy.")] = False,
    to: Annotated[str, typer.Option(help="Make a bundle that needs no tlfast: a new folder, or a file that ends in .zip.", show_default=False)] = "",
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Make smaller forms of a run's network, judged before they are kept, or a bundle to give away."""
    if quantize not in ("", "int8"):
        raise UsageError(f"--quantize '{quantize}' is not int8", "Use --quantize int8, or --half for 16-bit floats")
    forms = [form for form, wanted in (("int8", quantize), ("fp16", half)) if wanted]
    if not forms and not to:
        raise UsageError("nothing is asked for", "Use --quantize int8, --half, --to FOLDER or --to FILE.zip")
    from ..commands import export
    from ..core.runs import find

    found = find(run, out, verify)
    with screen.progress() as on_event:
        result = export.export_run(found, forms, to, allow_drop, on_event)
    screen.export_result(result)


@command(app, "serve")
def serve(
    run: RunArgument,
    screen: Screen,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes one that is free.", min=0, max=65_535)] = 8000,
    token: Annotated[str, typer.Option(help="Answer only who sends this word.", envvar="TLFAST_TOKEN", show_default=False)] = "",
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Serve a classifier: a web page to drop images on, and a REST API."""
    from ..inference import server
    from ..inference.classifier import load

    classifier = load(run, out, verify)
    server.serve(classifier, host, port, token, lambda address: screen.said("serving at", address))


@command(app, "tasks")
def tasks(screen: Screen) -> None:
    """List the tasks that tlfast knows by name."""
    screen.tasks(list(registry.registered_tasks().values()))


@command(app, "runs")
def runs(
    screen: Screen,
    task: Annotated[str, typer.Argument(help="Only this task's.", show_default=False, autocompletion=task_names)] = "",
    out: OutOption = "exports",
) -> None:
    """List the finished runs, newest last."""
    from ..core.runs import list_runs

    screen.runs(list_runs(out, task))


@command(app, "doctor")
def doctor(screen: Screen, out: OutOption = "exports") -> None:
    """Show versions, devices and weight sources, and what would make a training slow or fail."""
    from ..commands.doctor import inspect_machine

    screen.facts("doctor", inspect_machine(out))


@command(data_app, "import")
def data_import(
    task: Annotated[str, typer.Argument(help="A task's name.", autocompletion=task_names)],
    source: Annotated[str, typer.Argument(help="The downloaded file, zip or folder.")],
    screen: Screen,
) -> None:
    """Bring downloaded images into data/<task>/; the source is left as it is."""
    from ..data.sources import import_data

    with screen.progress() as on_event:
        folder = import_data(registry.get_task(task), source, on_event=on_event)
    screen.said("imported to", str(folder))


@command(data_app, "get")
def data_get(task: Annotated[str, typer.Argument(help="A task's name.", autocompletion=task_names)], screen: Screen) -> None:
    """Download a task's images from their public source into data/<task>/."""
    from ..data.sources import get_data

    chosen = registry.get_task(task)
    with screen.progress() as on_event:
        folder = get_data(chosen, on_event=on_event)
    screen.said("downloaded to", f"{folder} (licence: {chosen.licence}; {chosen.homepage})")


@command(data_app, "check")
def data_check(
    task: TaskArgument,
    screen: Screen,
    flags: dict,
    drop: Annotated[
        str, typer.Option(help="Also write a table without these: duplicates,conflicts,unreadable,leaks; nothing else changes.", show_default=False)
    ] = "",
    labels: Annotated[bool, typer.Option("--labels", help="Also look for wrong labels and outliers: trains on five folds, which takes minutes.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where anything at all is wrong.")] = False,
) -> None:
    """Count images; name those that are unreadable, empty, dark, pale, there twice, in two parts or under two labels. Exit code 1 where one is unreadable."""
    given = parse_arguments(task, flags)
    settings = given.settings(full=None)
    from ..commands import check

    with screen.progress() as on_event:
        report = check.check_data(given.task, settings, split_list(drop), on_event, _search() if labels else None)
    screen.data_report(report)
    raise typer.Exit(1 if report.summary.unreadable or (strict and report.counts) else 0)


@command(cache_app, "list")
def cache_list(screen: Screen) -> None:
    """List what is kept for later runs, the longest unused first."""
    from ..core import cache

    screen.kept(cache.list_entries())


@command(cache_app, "clear")
def cache_clear(
    screen: Screen,
    kind: Annotated[str, typer.Option(help="Only this kind, as the list names it.", show_default=False)] = "",
    days: Annotated[float, typer.Option(help="Only what was not used for so many days.", min=0)] = 0.0,
) -> None:
    """Remove what is kept for later runs; they will make it again."""
    from ..core import cache

    screen.kept(cache.clear(kind, days), "removed")


@app.callback(invoke_without_command=True)
def main_options(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    """Images in, a trained, explained and exported classifier out."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"tlfast {installed('tlfast')}")


def main() -> None:
    signal.signal(signal.SIGTERM, raise_interrupt)
    app()


if __name__ == "__main__":
    main()
