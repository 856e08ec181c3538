"""Runs on the Hugging Face hub, `hf://user/name[@revision]`. Only files of a run are downloaded, and nothing in them is executed."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..core import OnEvent, Progress, Run, RunError, TlfastError, UsageError, ignore_event, runs
from ..data.download import TIMEOUT, describe_failure
from ..data.hub import check_reachable

SCHEME = "hf://"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
RECORD = (runs.MANIFEST, runs.SEAL, runs.METRICS)  # files that every use needs
ALL_FILES = (*RECORD, "README.md", "config.json", "history.csv", "model.safetensors", "head.safetensors", "model*.onnx")  # a pickle is never downloaded
SIGN_IN = "Set HF_TOKEN to a token of the hub, or sign in with: hf auth login"


def is_hub_reference(reference: str) -> bool:
    """Return whether a reference names a repository of the hub."""
    return reference.startswith(SCHEME)


def parse_reference(reference: str) -> tuple[str, str]:
    """Return repository and revision of `hf://user/name[@revision]`, which may be given without the scheme; "" for no revision. Raises UsageError.

    >>> parse_reference("hf://me/weeds@v2")
    ('me/weeds', 'v2')
    """
    name, mark, revision = reference.removeprefix(SCHEME).partition("@")
    if not REPOSITORY.fullmatch(name) or ".." in reference or (mark and not revision):
        raise UsageError(f"'{reference}' is not a repository of the hub", "Give user/name, such as me/weeds, or me/weeds@REVISION")
    return name, revision


def find_run(reference: str, out: str, verify: bool, on_event: OnEvent = ignore_event) -> Run:
    """Find a run as `runs.find` does, or on the hub, with its ONNX files. Raises RunError or UsageError."""
    if is_hub_reference(reference):
        return fetch_run(reference, (*RECORD, "model*.onnx"), verify, on_event)
    return runs.find(reference, out, verify)


def fetch_run(reference: str, patterns: Sequence[str], verify: bool = True, on_event: OnEvent = ignore_event) -> Run:
    """Download the files of a run that match `patterns` to the cache of the hub's client, and return the run, whose folder must not be changed.

    Without a connection the files of an earlier download are used. With `verify` each file is compared with its SHA-256 in `run.json`. Raises
    UsageError for an invalid reference, RunError for a failed download or a changed file.
    """
    repository, revision = parse_reference(reference)
    try:
        check_reachable(TIMEOUT)
    except Exception as error:  # of requests, or of the client
        folder = _find_downloaded(repository, revision, patterns)
        if not folder:
            raise RunError(
                f"{reference}: the hub cannot be reached ({describe_failure(error)})", "Connect to the internet, or copy the folder of the run"
            ) from None
    else:
        with explain_failures(reference):
            folder = _download(reference, repository, revision, patterns, on_event)
    run = runs.read(folder)
    if verify:
        if not isinstance(run.manifest.get("files"), dict) or not run.manifest["files"]:
            raise RunError(f"{reference}: {runs.MANIFEST} has no checksums", runs.UNVERIFIED)
        try:
            runs.verify(run, patterns)
        except RunError as error:
            raise RunError(
                f"{reference}: {error.message}", f"Do not use it; ask its owner, or give an earlier revision: {SCHEME}{repository}@REVISION"
            ) from None
    return run


@contextmanager
def explain_failures(reference: str) -> Iterator[None]:
    """Convert exceptions of the hub's client to RunError."""
    from huggingface_hub import errors

    try:
        yield
    except TlfastError:
        raise
    except errors.RevisionNotFoundError:
        raise RunError(f"{reference}: no such revision", "Give a branch, a tag or a commit after @, or leave it out") from None
    except errors.RepositoryNotFoundError:
        raise RunError(f"{reference}: the hub has no such repository, or it is private", f"Check the name. {SIGN_IN}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = SIGN_IN if status in (401, 403) else "Repeat the command later"
        raise RunError(f"{reference}: the hub answered {status} ({describe_failure(error)})", hint) from None
    except Exception as error:  # of httpx, requests or the client, depending on its version
        raise RunError(
            f"{reference}: the transfer failed ({describe_failure(error)})", "Repeat the command; complete files are not transferred again"
        ) from None


def _find_downloaded(repository: str, revision: str, patterns: Sequence[str]) -> Path | None:
    """Return the folder of an earlier download in the cache of the hub's client, if it has all files of the run that match `patterns`."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, runs.MANIFEST, revision=revision or None)
    if not isinstance(path, str):
        return None
    folder = Path(path).parent
    wanted = _select(runs.read(folder).manifest.get("files", {}), patterns)
    return folder if all((folder / name).is_file() for name in wanted) else None


def _download(reference: str, repository: str, revision: str, patterns: Sequence[str], on_event: OnEvent) -> Path:
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    api = HfApi()
    info = api.model_info(repository, revision=revision or None, files_metadata=True)
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or []}
    if runs.MANIFEST not in sizes:
        raise RunError(f"{reference} is not a run: it has no {runs.MANIFEST}", f"Write one with: tlfast push RUN {repository}")
    names, done = _select(sizes, patterns), 0
    total = sum(sizes[name] for name in names)
    for name in names:
        on_event(Progress(f"downloading {repository}", done, total))
        path = Path(api.hf_hub_download(repository, name, revision=info.sha))
        done += sizes[name]
    api.hf_hub_download(repository, runs.MANIFEST, revision=revision or None)  # so that the cache knows the commit of a branch
    on_event(Progress(f"downloading {repository}", total, total))
    return path.parent


def _select(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Return the names of files, not in folders, that match one of the patterns."""
    return [name for name in names if "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
