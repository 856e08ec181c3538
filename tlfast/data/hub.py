"""Download of a Hugging Face data set from the Parquet conversion that the hub provides for each public data set."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ..core import DataError, OnEvent, Progress
from .download import TIMEOUT, describe_failure
from .split import SPLIT_NAMES
from .task import Task, normalise_name

PARQUET = "refs/convert/parquet"  # branch with the Parquet conversion
LABEL_COLUMNS = ("label", "labels", "class", "emotion")  # names of label columns, for data sets that do not declare their classes
SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp", b"II*\0": ".tif", b"MM\0*": ".tif"}


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
        file = parquet.ParquetFile(path)
        image, label, names = _find_columns(file.schema_arrow, path)
        for batch in file.iter_batches(256, columns=[image, label]):
            for record in batch.to_pylist():
                _write_image(record[image], _find_class(record[label], names, classes), target, next(numbers))
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} cannot be read ({error}); delete it to download it again") from None


def _find_columns(schema: Any, path: Path) -> tuple[str, str, list[str]]:
    """Return the image column, the label column, and the class names if the labels are numbers, else []. Raises DataError."""
    import pyarrow

    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    structs = [field.name for field in schema if pyarrow.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0]
    images = structs + [field.name for field in schema if field.type == pyarrow.binary()]
    numbered = [name for name in schema.names if "names" in features.get(name, {})]
    spelled = [name for name in LABEL_COLUMNS if name in schema.names and schema.field(name).type in (pyarrow.string(), pyarrow.large_string())]
    if not images or not numbered + spelled:
        raise DataError(f"{path.name} has no image column with a label column; it has: {', '.join(schema.names)}")
    label = (numbered + spelled)[0]
    return images[0], label, features[label]["names"] if numbered else []


def _spellings(task: Task) -> dict[str, str]:
    """Return the class for each normalised class name and alias."""
    classes = {normalise_name(name): name for name in task.classes}
    return {normalise_name(alias): name for alias, name in task.aliases.items()} | classes


def _find_class(value: int | str | None, names: list[str], classes: dict[str, str]) -> str:
    label = names[value] if isinstance(value, int) and 0 <= value < len(names) else value
    if not isinstance(label, str) or normalise_name(label) not in classes:
        raise DataError(f"label '{label}' is not one of: {', '.join(dict.fromkeys(classes.values()))}")
    return classes[normalise_name(label)]


def _write_image(value: bytes | dict[str, Any] | None, label: str, target: Path, number: int) -> None:
    data = (value.get("bytes") if isinstance(value, dict) else value) or b""
    # Data of unknown types is written too: it is reported with the other unreadable images.
    suffix = next((suffix for signature, suffix in SIGNATURES.items() if data.startswith(signature)), ".jpg")
    (target / label).mkdir(parents=True, exist_ok=True)
    (target / label / f"{number:05d}{suffix}").write_bytes(data)
