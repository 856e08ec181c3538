"""The commands that use a run: `tlfast predict`, `export`, `serve`, `push` and `pull`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..core import UsageError
from .arguments import split_list
from .options import Address, Cpus, EngineOption, OutOption, RunArgument, RunOrHub, Tta, Verify, task_names
from .registration import USE, command

if TYPE_CHECKING:
    from .console import Screen
else:
    Screen = Any  # typer evaluates annotations, and rich must not be imported for that

use_app = typer.Typer()

PredictRun = Annotated[
    str,
    typer.Argument(help="Name of a task (its latest run), run id, run folder, bundle folder, model.onnx file, or hf://user/name.", autocompletion=task_names),
]

Sources = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(help="Image files, folders, zips, tars, patterns, CSV or parquet files, http(s) URLs, or - for a list on stdin.", show_default=False),
]

OutDir = Annotated[str | None, typer.Option(help="Write the predictions to this folder in parts; repeat the command to continue.", show_default=False)]
Shards = Annotated[int, typer.Option(help="Number of parts. Default: one for each 10,000 images.", min=0, max=99_999, show_default=False)]
Shard = Annotated[str, typer.Option(help="Write only part K of N, counted from 0, as a job of an array does.", metavar="K/N", show_default=False)]


@command(use_app, "predict", USE)
def predict(
    run: PredictRun,
    screen: Screen,
    sources: Sources = None,
    top: Annotated[int | None, typer.Option(help="Number of classes to show. Default: 1, with --json all.", min=1)] = None,
    min_prob: Annotated[float, typer.Option(help='Below this probability the label is "unsure".', min=0, max=1)] = 0.0,
    tta: Tta = "",
    column: Annotated[str, typer.Option(help="Column with image paths in CSV and parquet files, relative to the file.")] = "path",
    csv: Annotated[str, typer.Option(help="Also write the predictions to this CSV file.", show_default=False)] = "",
    jsonl: Annotated[str, typer.Option(help="Also write the predictions to this file, one line of JSON per image.", show_default=False)] = "",
    parquet: Annotated[str, typer.Option(help="Also write the predictions to this parquet file.", show_default=False)] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the output files of an interrupted command.")] = False,
    out_dir: OutDir = None,
    shards: Shards = 0,
    shard: Shard = "",
    engine: EngineOption = "local",
    address: Address = "",
    cpus: Cpus = 1,
    watch: Annotated[str, typer.Option(help="Classify each new image in this folder, until interrupted.", show_default=False)] = "",
    network: Annotated[bool, typer.Option("--network/--no-network", help="Read images from URLs, and runs from the hub.")] = True,
    allow_private: Annotated[bool, typer.Option("--allow-private", help="Also download from private networks.")] = False,
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Classify images with an exported classifier. Exit code 1 if an image could not be read."""
    if bool(sources) == bool(watch):
        raise UsageError("--watch and images are both given" if watch else "no images are given", "Give either images or --watch FOLDER")
    if not network:
        _refuse_hub(run)
    files = {"csv": csv, "jsonl": jsonl, "parquet": parquet}
    of_parts = {"shards": shards, "shard": shard, "engine": engine != "local", "address": address, "cpus": cpus != 1}
    _check_outputs(out_dir, of_parts, {**files, "watch": watch, "resume": resume, "top": top})
    if out_dir is not None:
        from ..commands import predict_shards
        from ..inference import find_model

        request = predict_shards.ShardsRequest(sources or [], out_dir, column, shards, shard, min_prob, network, allow_private, engine, address, cpus)
        with screen.progress() as on_event:
            result = predict_shards.predict_shards(*find_model(run, out, verify, tta, on_event), request, on_event)
        screen.sharded(result)
        raise typer.Exit(1 if result.failed else 0)
    from ..commands import predict  # not before: one prediction must start fast
    from ..inference import load

    plain = predict.PredictRequest(sources or [], column, files, resume, min_prob, watch, network, allow_private)
    with screen.progress() as on_event:
        rows = predict.predict_sources(load(run, out, verify, tta, on_event), plain, on_event)
        tally = screen.predictions(rows, top, min_prob, at_once=bool(watch))
    raise typer.Exit(1 if tally.failed else 0)


def _refuse_hub(run: str) -> None:
    """Raise UsageError for a run on the hub, with --no-network."""
    from ..core.runs import HUB_SCHEME
    from ..inference.hub import is_hub_reference

    if is_hub_reference(run):
        raise UsageError(f"--no-network is set, and {run} is on the hub", f"Download it first: tlfast pull {run.removeprefix(HUB_SCHEME)}")


def _check_outputs(out_dir: str | None, of_parts: dict[str, Any], of_rows: dict[str, Any]) -> None:
    """Raise UsageError for options of parts without --out-dir, and for those of other outputs with it. The dicts hold their values by name."""
    if out_dir is None:
        for name in (name for name, value in of_parts.items() if value):
            raise UsageError(f"--{name} is given without --out-dir", "Name the folder for the parts: --out-dir answers")
        return
    for name in (name for name, value in of_rows.items() if value):
        hint = "Repeat the command without it: parts that are there are kept" if name == "resume" else "The parts are parquet files; leave it out"
        raise UsageError(f"--{name} and --out-dir exclude each other", hint)


@command(use_app, "export", USE)
def export(
    run: RunOrHub,
    screen: Screen,
    quantize: Annotated[str, typer.Option(help="Write a smaller network with 8-bit weights: int8.", show_default=False)] = "",
    half: Annotated[bool, typer.Option("--half", help="Write model.fp16.onnx, for hardware with 16-bit floats.")] = False,
    tta: Annotated[
        str, typer.Option(help="Write a network with test-time augmentation, the mean over views of an image: flip or crops.", show_default=False)
    ] = "",
    format: Annotated[
        str, typer.Option(help="Write a file for another runtime: torchscript, torch-export, onnx-resized or openvino.", show_default=False)
    ] = "",
    opset: Annotated[int, typer.Option(help="ONNX opset of --format onnx-resized or openvino; 0 for the default.", min=0, max=99)] = 0,
    allow_drop: Annotated[
        bool, typer.Option("--allow-drop", help="Also keep a smaller network that loses more than 1 point of accuracy, or --tta without a gain.")
    ] = False,
    to: Annotated[str, typer.Option(help="Write a bundle that works without tlfast: a new folder, or a .zip file.", show_default=False)] = "",
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Export a smaller or more accurate network, which is evaluated before it is kept, or a bundle for other machines."""
    from ..commands import export
    from ..inference.hub import find_run

    request = export.ExportRequest(quantize, half, tta, format, opset, to, allow_drop)
    request.list_formats()  # before the run is looked for
    with screen.progress() as on_event:
        found_run = find_run(run, out, verify, on_event)
        result = export.export_run(found_run, request, on_event)
    screen.export_result(result)


@command(use_app, "serve", USE)
def serve(
    run: PredictRun,
    screen: Screen,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 accepts remote connections.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 uses any free port.", min=0, max=65_535)] = 8000,
    token: Annotated[str | None, typer.Option(help="Require this bearer token.", envvar="TLFAST_TOKEN", show_default=False)] = None,
    tta: Tta = "",
    root_path: Annotated[str, typer.Option(help="Path of the service behind a reverse proxy, such as /plants.", show_default=False)] = "",
    allow_host: Annotated[str, typer.Option(help="Also accept requests for these host names, such as plants.example.org.", show_default=False)] = "",
    log_json: Annotated[bool, typer.Option("--log-json", help="Write a line of JSON to stderr for each request.")] = False,
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Serve a classifier: a web page for images and a REST API."""
    from ..inference import load, server
    from ..inference.host_check import allow_hosts
    from ..inference.request_log import print_line

    if token == "":
        raise UsageError("the token is empty", "Give a word to --token or TLFAST_TOKEN, or leave both out for a service without a token")
    hosts = allow_hosts(host, split_list(allow_host))
    with screen.progress() as on_event:
        classifier = load(run, out, verify, tta, on_event)
    service = server.Service(classifier, token or "", root_path, hosts, print_line if log_json else None)
    server.serve(service, host, port, lambda address: screen.message("serving at", address + root_path))


@command(use_app, "push", USE)
def push(
    run: RunArgument,
    repository: Annotated[str, typer.Argument(help="Repository on the Hugging Face hub: user/name.")],
    screen: Screen,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    pickle: Annotated[bool, typer.Option("--pickle", help="Also upload learner.pkl, which executes code when it is loaded.")] = False,
    verify: Verify = True,
    out: OutOption = "exports",
) -> None:
    """Upload a run to the Hugging Face hub: networks, metrics and a model card, without local paths."""
    from ..core.runs import find

    found_run = find(run, out, verify)
    with screen.progress() as on_event:
        from ..commands.push import push_run

        result = push_run(found_run, repository, private, pickle, on_event)
    screen.facts(result.to_dict())


@command(use_app, "pull", USE)
def pull(
    repository: Annotated[str, typer.Argument(help="Repository on the Hugging Face hub: user/name, or user/name@REVISION.")],
    screen: Screen,
    out: OutOption = "exports",
) -> None:
    """Download a run from the Hugging Face hub, to evaluate it on your images."""
    with screen.progress() as on_event:
        from ..commands.push import pull_run

        result = pull_run(repository, out, on_event)
    screen.facts(result.to_dict())
