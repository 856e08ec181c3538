"""Download of data sets of the Hugging Face hub, from the Parquet conversion that the hub provides for each public data set."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..core import DataError, OnEvent, Progress, UsageError
from .download import TIMEOUT, describe_failure
from .parquet_images import find_columns, get_bytes, read_rows
from .split import SPLIT_NAMES
from .task import Task, normalise_name
from .unpacking import name_file

PARQUET = "refs/convert/parquet"  # branch with the Parquet conversion
DATASETS = "hf://datasets/"  # scheme of their addresses
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_dataset(address: str) -> bool:
    """Return whether an address is that of a data set of the hub.

    >>> is_hub_dataset("hf://datasets/me/plants@v2")
    True
    """
    return address.startswith(DATASETS)


def fetch_dataset(address: str, on_event: OnEvent) -> Path:
    """Download the Parquet files of `hf://datasets/user/name[@revision]` to the cache of the hub's client, and return their folder.

    Without a revision they are those of the hub's conversion, or of the data set itself where there is none. Raises UsageError for an invalid address,
    DataError for a failed download.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    name, _, revision = address.removeprefix(DATASETS).partition("@")
    if not REPOSITORY.fullmatch(name) or ".." in name:
        raise UsageError(f"'{address}' is not a data set of the hub", "Give hf://datasets/user/name, or hf://datasets/user/name@REVISION")
    disable_progress_bars()
    api, hint = HfApi(), "Check the name and the connection; for a private data set set HF_TOKEN, or sign in with: hf auth login"
    revisions = [revision] if revision else [PARQUET, "main"]
    for number, each in enumerate(revisions, start=1):
        try:
            check_reachable(TIMEOUT)
            shards = _choose_configuration(api.list_repo_files(name, repo_type="dataset", revision=each))
            if shards:
                return _download_shards(api, name, each, shards, on_event)
        except DataError:
            raise
        except Exception as error:  # of requests, httpx or the client, depending on its version
            if number == len(revisions):
                raise DataError(f"{address}: {describe_failure(error)}", hint) from None
    raise DataError(f"{address} has no Parquet files", "Download it, and give the folder of images")


def _choose_configuration(names: Sequence[str]) -> list[str]:
    """Return the Parquet files of one configuration: of "default" or else the first, if they are in folders `<configuration>/<split>/`; else all."""
    files = sorted(name for name in names if name.endswith(".parquet") and ".." not in PurePosixPath(name).parts)
    configurations = sorted({name.split("/")[0] for name in files if name.count("/") == 2})
    chosen = "default" if "default" in configurations else next(iter(configurations), "")
    return [name for name in files if not configurations or name.startswith(f"{chosen}/")]


def _download_shards(api: Any, name: str, revision: str, shards: Sequence[str], on_event: OnEvent) -> Path:
    """Download files, and return the folder of the snapshot, or of the configuration in it."""
    for done, shard in enumerate(shards):
        on_event(Progress(f"downloading {name}", done, len(shards)))
        path = Path(api.hf_hub_download(name, shard, repo_type="dataset", revision=revision))
    on_event(Progress(f"downloading {name}", len(shards), len(shards)))
    inner = PurePosixPath(shards[-1])
    snapshot = path.parents[len(inner.parts) - 1]
    return snapshot / inner.parts[0] if len(inner.parts) == 3 else snapshot


def download_hub_dataset(task: Task, dataset: str, downloads: Path, staging: Path, on_event: OnEvent) -> None:
    """Write the images of a hub data set to `staging/<split>/<class>/<number>.<suffix>`.

    The Parquet files are saved in `downloads` for a later attempt. Raises DataError for a failed download and for unknown columns or labels.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    api = HfApi()
    _call_hub(check_reachable, TIMEOUT)
    shards = _list_shards(_call_hub(api.list_repo_files, dataset, repo_type="dataset", revision=PARQUET), dataset)
    paths = []
    for done, (_, name) in enumerate(shards, start=1):
        on_event(Progress(f"downloading {dataset}", done - 1, len(shards)))
        paths.append(_call_hub(api.hf_hub_download, dataset, name, repo_type="dataset", revision=PARQUET, local_dir=downloads))
    numbers = itertools.count()
    for done, ((split, _), path) in enumerate(zip(shards, paths, strict=True), start=1):
        _write_images(task, Path(path), staging / split, numbers)
        on_event(Progress(f"unpacking {dataset}", done, len(shards)))


def check_reachable(timeout: float | tuple[float, float]) -> None:
    """Send one request to the hub; its client would retry for half a minute. `timeout` is in seconds. Raises the exceptions of requests."""
    import requests
    from huggingface_hub import constants

    requests.head(constants.ENDPOINT, timeout=timeout)


def _call_hub(call: Any, *args: Any, **options: Any) -> Any:
    """Call a function of the hub's client. Raises DataError for any exception."""
    try:
        return call(*args, **options)
    except Exception as error:  # of requests, httpx or the client, depending on its version
        raise DataError(describe_failure(error)) from None


def _list_shards(names: list[str], dataset: str) -> list[tuple[str, str]]:
    """Return (split, file) for each `<configuration>/<split>/<number>.parquet` of one configuration. Raises DataError."""
    paths = [PurePosixPath(name).parts for name in sorted(names) if name.endswith(".parquet")]
    paths = [path for path in paths if len(path) == 3 and ".." not in path]
    if not paths:
        raise DataError(f"{dataset} has no Parquet conversion")
    chosen = "default" if any(path[0] == "default" for path in paths) else paths[0][0]
    for path in paths:
        if path[0] == chosen and path[1] not in SPLIT_NAMES:  # such as partial-train, if a data set is too large for a full conversion
            raise DataError(f"'{path[1]}' of {dataset} is not a split: train, valid or test")
    return [(SPLIT_NAMES[path[1]], "/".join(path)) for path in paths if path[0] == chosen]


def _write_images(task: Task, path: Path, target: Path, numbers: Iterator[int]) -> None:
    """Write the images of one Parquet file. Raises DataError for unknown columns or labels."""
    import pyarrow
    from pyarrow import parquet

    classes = _spellings(task)
    try:
        schema = parquet.read_schema(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it to download it again") from None
    columns = find_columns(schema)
    if columns is None:
        raise DataError(f"{path.name} has no image column with a label column; it has: {', '.join(schema.names)}")
    for record in read_rows(path, [columns.image, columns.label]):
        label = columns.name_class(record[columns.label])
        if normalise_name(label) not in classes:
            raise DataError(f"label '{label or record[columns.label]}' is not one of: {', '.join(dict.fromkeys(classes.values()))}")
        folder = target / classes[normalise_name(label)]
        folder.mkdir(parents=True, exist_ok=True)
        data = get_bytes(record[columns.image])
        (folder / name_file(data, next(numbers))).write_bytes(data)


def _spellings(task: Task) -> dict[str, str]:
    """Return the class for each normalised class name and alias."""
    classes = {normalise_name(name): name for name in task.classes}
    return {normalise_name(alias): name for alias, name in task.aliases.items()} | classes
