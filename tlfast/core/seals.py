"""Checksums of the files of a run: the manifest lists those of all files, and the seal has that of the manifest."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import RunError
from .files import format_json, hash_file, write_text_atomic
from .run_files import MANIFEST, SEAL

UNVERIFIED = "Copy the run again from where it was trained, train again, or use it as it is with --no-verify"


def compute_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a run by its relative path, except the manifest and its seal."""
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: hash_file(path) for name, path in names.items() if not name.startswith(".") and name not in (MANIFEST, SEAL)}


def write_sealed(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `run.json` and its seal. Until both are written, the seal has one line for the former manifest and one for the new one."""
    text, path = format_json(manifest), folder / SEAL
    line, former = format_seal(text.encode()), path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    write_text_atomic(path, former + line)
    write_text_atomic(folder / MANIFEST, text)
    with suppress(OSError):  # the change is complete; the next one leaves a single line
        write_text_atomic(path, line)


def compare_checksums(folder: Path, manifest: dict[str, Any], patterns: Sequence[str]) -> None:
    """Compare the manifest with its seal, and each file that matches a pattern with the manifest. Raises RunError for the first that differs."""
    path = folder / SEAL
    try:
        # The manifest first: its checksums are valid only if it is unchanged itself.
        if format_seal((folder / MANIFEST).read_bytes()).encode() not in path.read_bytes().splitlines(keepends=True):
            raise RunError(f"{folder / MANIFEST} does not match {SEAL}: one of them was changed after the export", UNVERIFIED)
        for name, digest in manifest["files"].items():
            path = folder / name
            if name in manifest.get("exports", {}) and not path.exists():  # moved away, to write it again
                continue
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) and hash_file(path) != digest:
                raise RunError(f"{path} was changed after the export: its SHA-256 differs from that in {MANIFEST}", UNVERIFIED)
    except OSError as error:
        raise RunError(f"{path} belongs to the export and cannot be read ({error.strerror})", UNVERIFIED) from None


def format_seal(manifest: bytes) -> str:
    """Return the line of the seal for the bytes of a manifest."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n"
