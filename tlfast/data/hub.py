"""Download of data sets of the Hugging Face hub, from the Parquet conversion that the hub provides for each public data set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..core import DataError, OnEvent, Progress
from .download import TIMEOUT
from .hub_client import DATASETS, check_reachable, explain_failures, open_api, parse_repository
from .parquet_images import find_columns, get_bytes, read_rows
from .split import SPLIT_NAMES
from .task import Task, normalise_name
from .unpacking import name_file

CONVERTED_BRANCH = "refs/convert/parquet"  # branch with the Parquet conversion


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
    name, revision = parse_repository(address, DATASETS)
    with explain_failures(address, DataError):
        revision, shards = _find_shards(name, [revision] if revision else [CONVERTED_BRANCH, "main"])
        if not shards:
            raise DataError(f"{address} has no Parquet files", "Download it, and give the folder of images")
        *_, path = _download_shards(name, revision, shards, on_event)
    inner = PurePosixPath(shards[-1])
    snapshot = path.parents[len(inner.parts) - 1]
    return snapshot / inner.parts[0] if len(inner.parts) == 3 else snapshot


def _find_shards(name: str, revisions: Sequence[str]) -> tuple[str, list[str]]:
    """Return the first revision that has Parquet files, and those of one configuration; ("", []) if none has any. Raises the exceptions of the client."""
    check_reachable(TIMEOUT)
    api = open_api()
    for revision in revisions:
        if shards := _choose_configuration(_list_files(api, name, revision)):
            return revision, shards
    return "", []


def _list_files(api: Any, name: str, revision: str) -> list[str]:
    """Return the files of a data set; none if it has no conversion."""
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        return list(api.list_repo_files(name, repo_type="dataset", revision=revision))
    except RevisionNotFoundError:
        if revision != CONVERTED_BRANCH:
            raise
        return []


def _choose_configuration(names: Sequence[str]) -> list[str]:
    """Return the Parquet files of one configuration: of "default" or else the first, if they are in folders `<configuration>/<split>/`; else all."""
    files = sorted(name for name in names if name.endswith(".parquet") and ".." not in PurePosixPath(name).parts)
    configurations = sorted({name.split("/")[0] for name in files if name.count("/") == 2})
    chosen = "default" if "default" in configurations else next(iter(configurations), "")
    return [name for name in files if name.count("/") == 2 and name.startswith(f"{chosen}/")] if chosen else files


def _download_shards(name: str, revision: str, shards: Sequence[str], on_event: OnEvent, folder: Path | None = None) -> list[Path]:
    """Download files to `folder`, or to the cache of the client; return their paths. Raises the exceptions of the client."""
    api, paths = open_api(), []
    for done, shard in enumerate(shards):
        on_event(Progress(f"downloading {name}", done, len(shards)))
        paths.append(Path(api.hf_hub_download(name, shard, repo_type="dataset", revision=revision, local_dir=folder)))
    on_event(Progress(f"downloading {name}", len(shards), len(shards)))
    return paths


def download_hub_dataset(task: Task, dataset: str, downloads: Path, staging: Path, on_event: OnEvent) -> None:
    """Write the images of a hub data set to `staging/<split>/<class>/<number>.<suffix>`.

    The Parquet files are saved in `downloads` for a later attempt. Raises DataError for a failed download and for unknown columns or labels; its message
    is the reason without the data set.
    """
    with explain_failures("", DataError):
        revision, shards = _find_shards(dataset, [CONVERTED_BRANCH])
        splits = _read_splits(shards, dataset)
        paths = _download_shards(dataset, revision, shards, on_event, downloads)
    numbers = itertools.count()
    for done, (split, path) in enumerate(zip(splits, paths, strict=True), start=1):
        _write_images(task, path, staging / split, numbers)
        on_event(Progress(f"unpacking {dataset}", done, len(shards)))


def _read_splits(shards: Sequence[str], dataset: str) -> list[str]:
    """Return the split of each `<configuration>/<split>/<number>.parquet`. Raises DataError, also for files in other folders."""
    if not shards or any(name.count("/") != 2 for name in shards):
        raise DataError(f"{dataset} has no Parquet conversion")
    splits = [name.split("/")[1] for name in shards]
    for split in splits:
        if split not in SPLIT_NAMES:  # such as partial-train, if a data set is too large for a full conversion
            raise DataError(f"'{split}' of {dataset} is not a split: train, valid or test")
    return [SPLIT_NAMES[split] for split in splits]


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
