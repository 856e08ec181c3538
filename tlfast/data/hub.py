"""A data set of the Hugging Face hub, read from the parquet files that the hub keeps of every public one."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ..core.errors import DataError
from ..core.events import OnEvent, Progress
from .download import TIMEOUT, describe_failure
from .split import SPLIT_NAMES
from .task import Task

PARQUET = "refs/convert/parquet"  # the branch where the hub keeps its own conversion of a data set
LABEL_COLUMNS = ("label", "labels", "class", "emotion")  # tried where no column declares its classes
SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp", b"II*\0": ".tif", b"MM\0*": ".tif"}


def download_hub_dataset(task: Task, dataset: str, kept: Path, staging: Path, on_event: OnEvent) -> None:
    """Write a hub data set as `staging/<part>/<class>/<number>.<suffix>`. Raises DataError."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi()
    _ask(check_reachable, TIMEOUT)
    shards = _list_shards(_ask(api.list_repo_files, dataset, repo_type="dataset", revision=PARQUET), dataset)
    paths = []
    for done, (_, name) in enumerate(shards, start=1):
        on_event(Progress(f"downloading {dataset}", done - 1, len(shards)))
        paths.append(_ask(api.hf_hub_download, dataset, name, repo_type="dataset", revision=PARQUET, local_dir=kept))
    numbers = itertools.count()
    for done, ((part, _), path) in enumerate(zip(shards, paths, strict=True), start=1):
        _write_images(task, Path(path), staging / part, numbers)
        on_event(Progress(f"unpacking {dataset}", done, len(shards)))


def check_reachable(timeout: float | tuple[float, float]) -> None:
    """Ask the hub once, with a short limit, whether it answers: its own client would try for half a minute. Raises what requests raises."""
    import requests
    from huggingface_hub import constants

    requests.head(constants.ENDPOINT, timeout=timeout)


def _ask(call: Any, *args: Any, **options: Any) -> Any:
    try:
        return call(*args, **options)
    except Exception as error:  # by version of the client: those of requests, of httpx, or its own
        raise DataError(describe_failure(error)) from None


def _list_shards(names: list[str], dataset: str) -> list[tuple[str, str]]:
    """Return (part, file) of each `<configuration>/<split>/<number>.parquet` of one configuration. Raises DataError."""
    paths = [PurePosixPath(name).parts for name in sorted(names) if name.endswith(".parquet")]
    paths = [path for path in paths if len(path) == 3 and ".." not in path]
    if not paths:
        raise DataError(f"{dataset} has no parquet conversion")
    chosen = "default" if any(path[0] == "default" for path in paths) else paths[0][0]
    for path in paths:
        if path[0] == chosen and path[1] not in SPLIT_NAMES:  # such as partial-train, of a data set too large to be converted whole
            raise DataError(f"'{path[1]}' of {dataset} is not a part: train, valid or test")
    return [(SPLIT_NAMES[path[1]], "/".join(path)) for path in paths if path[0] == chosen]


def _write_images(task: Task, path: Path, target: Path, numbers: Iterator[int]) -> None:
    """Write the images of one parquet file. Raises DataError where its columns or labels are not understood."""
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
        raise DataError(f"{path} cannot be read ({error}); delete it to have it fetched again") from None


def _find_columns(schema: Any, path: Path) -> tuple[str, str, list[str]]:
    """Return the columns of images and of labels, and the classes by number where the labels are numbers."""
    import pyarrow

    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    structs = [field.name for field in schema if pyarrow.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0]
    images = structs + [field.name for field in schema if field.type == pyarrow.binary()]
    named = [name for name in schema.names if "names" in features.get(name, {})]
    spelled = [name for name in LABEL_COLUMNS if name in schema.names and schema.field(name).type in (pyarrow.string(), pyarrow.large_string())]
    if not images or not named + spelled:
        raise DataError(f"{path.name} has no column of images with a column of named classes; it has: {', '.join(schema.names)}")
    label = (named + spelled)[0]
    return images[0], label, features[label]["names"] if named else []


def _spellings(task: Task) -> dict[str, str]:
    """Return the task's classes by every spelling: without case, spaces, "-" and "_", and by their aliases."""
    own = {_normalise_name(name): name for name in task.classes}
    return {_normalise_name(alias): name for alias, name in task.aliases.items()} | own


def _normalise_name(label: str) -> str:
    return re.sub(r"[\s_-]", "", label).lower()


def _find_class(value: int | str | None, names: list[str], classes: dict[str, str]) -> str:
    label = names[value] if isinstance(value, int) and 0 <= value < len(names) else value
    if not isinstance(label, str) or _normalise_name(label) not in classes:
        raise DataError(f"label '{label}' is not one of: {', '.join(dict.fromkeys(classes.values()))}")
    return classes[_normalise_name(label)]


def _write_image(value: bytes | dict[str, Any] | None, label: str, target: Path, number: int) -> None:
    data = (value.get("bytes") if isinstance(value, dict) else value) or b""
    # What is no image is written too, to be named and skipped with the other unreadable ones.
    suffix = next((suffix for signature, suffix in SIGNATURES.items() if data.startswith(signature)), ".jpg")
    (target / label).mkdir(parents=True, exist_ok=True)
    (target / label / f"{number:05d}{suffix}").write_bytes(data)
