"""Runs on the Hugging Face hub, `hf://user/name[@revision]`. Only files of a run are downloaded, and nothing in them is executed."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..core import OnEvent, Progress, RunError, RunRecord, ignore_event, runs, seals
from ..core.run_files import HEAD_FILE, HISTORY_FILE, MANIFEST, METRICS_FILE, SEAL, WEIGHTS_FILE
from ..data.download import TIMEOUT, describe_failure
from ..data.hub_client import check_reachable, explain_failures, open_api, parse_repository

RECORD = (MANIFEST, SEAL, METRICS_FILE)  # files that every use needs
ALL_FILES = (*RECORD, "README.md", "config.json", HISTORY_FILE, WEIGHTS_FILE, HEAD_FILE, "model*.onnx")  # a pickle is never downloaded


def is_hub_reference(reference: str) -> bool:
    """Return whether a reference names a repository of the hub."""
    return reference.startswith(runs.HUB_SCHEME)


def find_run(reference: str, out: str, verify: bool, on_event: OnEvent = ignore_event) -> RunRecord:
    """Find a run as `runs.find` does, or on the hub, with its ONNX files. Raises RunError or UsageError."""
    if is_hub_reference(reference):
        return fetch_run(reference, (*RECORD, "model*.onnx"), verify, on_event)
    return runs.find(reference, out, verify)


def fetch_run(reference: str, patterns: Sequence[str], verify: bool = True, on_event: OnEvent = ignore_event) -> RunRecord:
    """Download the files of a run that match `patterns` to the cache of the hub's client, and return the run, whose folder must not be changed.

    The entry `hub` of its manifest, which is not in the file, names the repository and the revision.
    Without a connection the files of an earlier download are used. With `verify` each file is compared with its SHA-256 in `run.json`. Raises
    UsageError for an invalid reference, RunError for a failed download or a changed file.
    """
    repository, revision = parse_repository(reference)
    try:
        check_reachable(TIMEOUT)
    except Exception as error:  # of requests, or of the client
        folder = _find_downloaded(repository, revision, patterns)
        if not folder:
            raise RunError(
                f"{reference}: the hub cannot be reached ({describe_failure(error)})", "Connect to the internet, or copy the folder of the run"
            ) from None
    else:
        with explain_failures(reference, RunError):
            folder = _download(reference, repository, revision, patterns, on_event)
    run = runs.read_run(folder)
    if verify:
        if not run.manifest.get("files"):
            raise RunError(f"{reference}: {MANIFEST} has no checksums", seals.UNVERIFIED)
        try:
            runs.verify(run, patterns)
        except RunError as error:
            hint = f"Do not use it; ask its owner, or give an earlier revision: {runs.HUB_SCHEME}{repository}@REVISION"
            raise RunError(f"{reference}: {error.message}", hint) from None
    return runs.RunRecord(folder, {**run.manifest, "hub": {"repository": repository, "revision": folder.name}})


def _find_downloaded(repository: str, revision: str, patterns: Sequence[str]) -> Path | None:
    """Return the folder of an earlier download in the cache of the hub's client, if it has all files of the run that match `patterns`."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, MANIFEST, revision=revision or None)
    if not isinstance(path, str):
        return None
    folder = Path(path).parent
    wanted = select_files(runs.read_run(folder).manifest.get("files", {}), patterns)
    return folder if all((folder / name).is_file() for name in wanted) else None


def _download(reference: str, repository: str, revision: str, patterns: Sequence[str], on_event: OnEvent) -> Path:
    api = open_api()
    info = api.model_info(repository, revision=revision or None, files_metadata=True)
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or []}
    if MANIFEST not in sizes:
        raise RunError(f"{reference} is not a run: it has no {MANIFEST}", f"Write one with: tlfast push RUN {repository}")
    listed = runs.read_run(Path(api.hf_hub_download(repository, MANIFEST, revision=info.sha)).parent).manifest.get("files")
    names = [name for name in select_files(sizes, patterns) if not (listed and name.endswith(".onnx") and name not in listed)]  # of another run
    done = 0
    total = sum(sizes[name] for name in names)
    for name in names:
        on_event(Progress(f"downloading {repository}", done, total))
        path = Path(api.hf_hub_download(repository, name, revision=info.sha))
        done += sizes[name]
    api.hf_hub_download(repository, MANIFEST, revision=revision or None)  # so that the cache knows the commit of a branch
    on_event(Progress(f"downloading {repository}", total, total))
    return path.parent


def select_files(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Return the names of files, not in folders, that match one of the patterns."""
    return [name for name in names if "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
