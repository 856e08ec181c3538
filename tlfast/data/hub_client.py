"""The client of the Hugging Face hub: names of repositories, and its failures as errors of ours. Shared by data sets, weights and runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..core import TlfastError, UsageError
from ..core.runs import HUB_SCHEME
from .download import describe_failure

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DATASETS = f"{HUB_SCHEME}datasets/"  # begins the address of a data set
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
SIGN_IN = "Set HF_TOKEN to a token of the hub, or sign in with: hf auth login"


def open_api() -> HfApi:
    """Return the client, without progress bars of its own."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return HfApi()


def parse_repository(address: str, scheme: str = HUB_SCHEME) -> tuple[str, str]:
    """Return name and revision of `user/name[@revision]`, which may begin with the scheme; "" for no revision. Raises UsageError.

    >>> parse_repository("hf://me/weeds@v2"), parse_repository("me/weeds")
    (('me/weeds', 'v2'), ('me/weeds', ''))
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, but not marked as exported

    name, mark, revision = address.removeprefix(scheme).partition("@")
    try:
        validate_repo_id(name)
        is_valid = REPOSITORY.fullmatch(name) is not None and ".." not in address and bool(revision or not mark)
    except HFValidationError:
        is_valid = False
    if not is_valid:
        raise UsageError(f"'{address}' is not a repository of the hub", f"Give {scheme}user/name, or {scheme}user/name@REVISION")
    return name, revision


def check_reachable(timeout: float | tuple[float, float]) -> None:
    """Send one request to the hub; its client would retry for half a minute. `timeout` is in seconds.

    Raises the exceptions of requests, and OSError if the client is told to work offline.
    """
    import requests
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    requests.head(constants.ENDPOINT, timeout=timeout)


@contextmanager
def explain_failures(address: str, kind: type[TlfastError]) -> Iterator[None]:
    """Convert the exceptions of the client to errors of a kind, whose messages begin with the address, unless it is empty."""
    from huggingface_hub import errors

    start = f"{address}: " if address else ""
    try:
        yield
    except TlfastError:
        raise
    except errors.RevisionNotFoundError:
        raise kind(f"{start}no such revision", "Give a branch, a tag or a commit after @, or leave it out") from None
    except errors.RepositoryNotFoundError:
        raise kind(f"{start}the hub has no such repository, or it is private", f"Check the name. {SIGN_IN}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = SIGN_IN if status in (401, 403) else "Repeat the command later"
        raise kind(f"{start}the hub answered {status} ({describe_failure(error)})", hint) from None
    except Exception as error:  # of httpx, requests or the client, depending on its version
        hint = "Check the connection, and repeat the command; complete files are not transferred again"
        raise kind(f"{start}the transfer failed ({describe_failure(error)})", hint) from None
