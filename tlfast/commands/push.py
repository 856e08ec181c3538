"""`tlfast push` and `tlfast pull`: a run to the Hugging Face hub, and from it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core import OnEvent, Progress, RunError, RunRecord, UsageError, ignore_event, runs
from ..core.files import convert_os_errors, convert_write_errors, format_json
from ..core.local_paths import hide_paths
from ..core.run_files import HEAD_FILE, HISTORY_FILE, LEARNER_FILE, MANIFEST, METRICS_FILE, ONNX_FILE, WEIGHTS_FILE
from ..core.setting_checks import check_run_name
from ..data import Preprocessing
from ..data.download import TIMEOUT
from ..data.hub_client import SIGN_IN, check_reachable, explain_failures, open_api, parse_repository
from ..evaluation.report import render_card
from ..export.metadata import hide_folder_in
from ..inference import hub, open_network

CARD, CONFIG = "README.md", "config.json"
COPIED = (METRICS_FILE, HISTORY_FILE, WEIGHTS_FILE)
LICENCE = ("license", "license_name", "license_link")  # fields of a card
TASK_NAME = re.compile(r"[\w+][\w.+-]*")  # those of folders of images have no other characters


@dataclass(frozen=True)
class PushResult:
    """Result of `tlfast push`.

    Attributes:
        run: id of the run.
        repository: name of the repository, `user/name`.
        url: address of its page.
        commit: revision that was written.
        private: whether the repository is private.
        timm: whether `timm.create_model("hf-hub:user/name", pretrained=True)` gives the network of the run.
        files: names of the files.
    """

    run: str
    repository: str
    url: str
    commit: str
    private: bool
    timm: bool
    files: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class PullResult:
    """Result of `tlfast pull`.

    Attributes:
        run: id of the new run.
        repository: where it came from, `hf://user/name[@revision]`.
        folder: its folder.
    """

    run: str
    repository: str
    folder: str

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return asdict(self)


def push_run(run: RunRecord, repository: str, private: bool = False, pickle: bool = False, on_event: OnEvent = ignore_event) -> PushResult:
    """Upload a run to a repository of the hub, which is created if it does not exist. Files of a run that was pushed there before are replaced.

    Local paths are left out. With `pickle` the fastai learner is uploaded too, a file that executes code when it is loaded. Raises UsageError for an
    invalid name, a repository with other content, and with `private` for a public one, RunError if the run has no network or the hub refuses.
    """
    name, revision = parse_repository(repository)
    if revision:
        raise UsageError(f"'{repository}': a push makes a new revision", f"Give the repository alone: {name}")
    if not (run.folder / ONNX_FILE).is_file():
        raise RunError(f"{run.folder} has no {ONNX_FILE}", "It was trained with --no-onnx, or by an older version: train again")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        is_timm = fill_folder(run, folder, name, pickle)
        with explain_failures(name, RunError):
            return _upload(run, folder, name, private, is_timm, on_event)


def fill_folder(run: RunRecord, folder: Path, repository: str, pickle: bool = False) -> bool:
    """Write the files of a repository to an empty folder. Returns whether timm can load the network from it."""
    networks = [path.name for path in run.folder.glob("model*.onnx")]
    copied = [name for name in (*COPIED, *networks, *([LEARNER_FILE] if pickle else [])) if (run.folder / name).is_file()]
    with convert_os_errors(run.folder), convert_write_errors(folder):
        config = _write_timm_weights(run, folder) if WEIGHTS_FILE in copied else None
        is_timm = config is not None
        for name in copied:
            if name in networks:
                (folder / name).write_bytes(hide_folder_in((run.folder / name).read_bytes()))
            elif not (folder / name).exists():  # the weights may be those of a timm model
                shutil.copyfile(run.folder / name, folder / name)
        (folder / CONFIG).write_text(format_json(config or _describe_network(run)), encoding="utf-8")
        shown = RunRecord(run.folder, _hide_names(run.manifest))
        metrics = runs.read_metrics(run.folder)
        of_hub = {"repository": repository, "is_timm": is_timm, "base_model": _find_base_model(run), "licence": _find_licence(run)}
        (folder / CARD).write_text(render_card(shown, metrics, **of_hub), encoding="utf-8")
        runs.seal(folder, shown.manifest)
    return is_timm


def _hide_names(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a manifest without local paths, and without notes on the images and the names of unreadable ones."""
    shown = hide_paths(manifest)
    unreadable = [{**image, "path": ""} for image in shown["data"].get("unreadable", [])]
    return {**shown, "data": {**shown["data"], "unreadable": unreadable, "notes": []}}


def _find_base_model(run: RunRecord) -> str:
    """Return the repository of the pretrained weights of a run's backbone on the hub; "" for random weights and for backbones without one."""
    import timm

    settings = run.settings
    cfg = timm.get_pretrained_cfg(settings.arch)
    return cfg.hf_hub_id if cfg and cfg.hf_hub_id and settings.weights != "none" else ""


def _find_licence(run: RunRecord) -> str:
    """Return the licence of the pretrained weights of a run; "" if it is unknown, or the weights were random."""
    known = open_network(run.folder / ONNX_FILE).info.get("licence", "")
    return "" if run.settings.weights == "none" else known


def _write_timm_weights(run: RunRecord, folder: Path) -> dict[str, Any] | None:
    """Write the weights of an equal timm model, if there is one, and the head of the run. Returns the configuration of the timm model, or None."""
    from safetensors import safe_open
    from torch import nn

    from ..export import load_model, timm_format
    from ..export.weights import write_tensors

    settings, classes = run.settings, run.manifest["classes"]
    model = load_model(run)
    assert isinstance(model, nn.Sequential)  # body and head
    network = timm_format.build_timm_model(model, settings.arch, len(classes), settings.size, run.temperature)
    if network is None:
        return None
    with safe_open(run.folder / WEIGHTS_FILE, "pt") as file:
        header = file.metadata() or {}
    write_tensors(folder / HEAD_FILE, model[1].state_dict(), {"format": "pt"})
    write_tensors(folder / WEIGHTS_FILE, network.state_dict(), {**header, timm_format.CLASSIFIER: timm_format.name_classifier(network)})
    return timm_format.describe_timm_model(network, settings.arch, classes, Preprocessing.of_run(run))


def _describe_network(run: RunRecord) -> dict[str, Any]:
    """Return the content of `config.json` for a network that timm cannot load."""
    settings = run.settings
    return {
        "library_name": "tlfast",
        "backbone": settings.arch,
        "head": settings.head,
        "label_names": run.manifest["classes"],
        "input_size": [3, settings.size, settings.size],
        "mean": run.manifest["mean"],
        "std": run.manifest["std"],
    }


def _upload(run: RunRecord, folder: Path, repository: str, private: bool, is_timm: bool, on_event: OnEvent) -> PushResult:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, get_token

    if not get_token():
        raise RunError("no token of the hub is set", SIGN_IN)
    check_reachable(TIMEOUT)
    api = open_api()
    created = api.create_repo(repository, private=private, exist_ok=True)
    info = api.model_info(repository)
    present = {each.rfilename for each in info.siblings or []} - {".gitattributes"}
    if present and MANIFEST not in present:
        raise UsageError(f"{repository} holds something else ({', '.join(sorted(present)[:3])})", "Give a new name; other repositories are not changed")
    if private and not info.private:
        raise UsageError(f"{repository} exists already, and is public", "Leave out --private, make it private on the hub, or give a new name")
    if CARD in present:
        _keep_licence(Path(api.hf_hub_download(repository, CARD)), folder)
    files = sorted(path.name for path in folder.iterdir())
    former = sorted({*hub.select_files(present, hub.ALL_FILES), *({LEARNER_FILE} & present)} - set(files))  # of a run with more networks
    operations: list[CommitOperationAdd | CommitOperationDelete] = [CommitOperationAdd(name, folder / name) for name in files]
    operations += [CommitOperationDelete(name) for name in former]
    on_event(Progress(f"uploading to {repository}", 0, 1))
    commit = api.create_commit(repository, operations, commit_message=f"Run {run.id} of task {run.task}")
    on_event(Progress(f"uploading to {repository}", 1, 1))
    return PushResult(run.id, repository, str(created), commit.oid, bool(info.private), is_timm, files)


def _keep_licence(former: Path, folder: Path) -> None:
    """Copy the licence from the card in the repository, where its owner may have added it, if the new card has none."""
    from huggingface_hub import metadata_load, metadata_save

    card = folder / CARD
    try:
        given = metadata_load(former) or {}
    except Exception:  # a card that was edited to something else; the client raises errors of several packages
        given = {}
    present = metadata_load(card) or {}
    licence = {name: value for name, value in given.items() if name in LICENCE and "license" not in present}
    if licence:
        metadata_save(card, {**present, **licence})
        runs.seal(folder, runs.read_run(folder).manifest)


def pull_run(reference: str, out: str = "exports", on_event: OnEvent = ignore_event) -> PullResult:
    """Download a run from the hub into the folder `out`, with its weights, and verify it. It does not become the latest run of its task.

    Raises UsageError for an invalid reference, RunError for a failed download, a changed file or a folder that cannot be written.
    """
    found = hub.fetch_run(reference, hub.ALL_FILES, on_event=on_event)
    repository = found.manifest["hub"]["repository"]
    recorded = open_network(found.folder / ONNX_FILE).info.get("run", "")
    source = f"{runs.HUB_SCHEME}{reference.removeprefix(runs.HUB_SCHEME)}"
    if not TASK_NAME.fullmatch(found.task):
        raise RunError(f"{source} names the task '{found.task}', which is no name of a folder", f"Use it in place: tlfast predict {source} IMAGE")
    name = repository.replace("/", "--") if check_run_name(recorded) else recorded
    with runs.create_run(out, found.task, name, latest=False) as (temporary, published):
        for name in hub.select_files(found.manifest["files"], hub.ALL_FILES):  # no other name that the manifest may hold
            shutil.copyfile(found.folder / name, temporary / name)
        runs.seal(temporary, found.manifest)
    return PullResult(published[0].name, source, str(published[0]))
