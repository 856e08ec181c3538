"""Portable bundles: model, example and licence in a folder or zip."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ..core import ExportError, RunRecord, UsageError
from ..core.run_files import EXAMPLE_FILE, ONNX_FILE
from ..core.runs import read_metrics
from ..inference import open_network
from .formats import FORMATS
from .metadata import hide_folder, hide_folder_in

OTHER_ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")

EXAMPLE = """import json, pathlib, sys
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(str(pathlib.Path(__file__).with_name("model.onnx")))
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
photo = sys.argv[1] if len(sys.argv) > 1 else sys.exit("usage: python example.py photo.jpg")
image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
(probabilities,) = session.run(None, {"images": np.asarray(image)[None]})
for probability, name in sorted(zip(probabilities[0].tolist(), classes), reverse=True)[:5]:
    print(f"{probability:7.2%}  {name}")
"""

# tlfast needs torch to train only; the index has it without CUDA. TLFAST is a wheel in the folder of the bundle, or the address of a git repository.
DOCKERFILE = """FROM python:3.11-slim
ARG TLFAST=tlfast*.whl
COPY . /model
RUN cd /model && pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu $TLFAST
USER nobody
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
CMD ["tlfast", "serve", "/model", "--host", "0.0.0.0"]
"""


def write_bundle(run: RunRecord, target: Path) -> Path:
    """Write a bundle of a run, a folder or a zip, atomically; return `target`.

    It contains `model.onnx`, the files that `tlfast export` has added to the run, a README, an example without tlfast, a Dockerfile, and SHA-256 sums.
    Raises ExportError.
    """
    added = [name for name in run.manifest.get("exports", {}) if Path(name).name == name]  # a manifest from the hub may hold other paths
    names = dict.fromkeys((ONNX_FILE, *(each.file for each in FORMATS.values()), *added))
    files = {name: (run.folder / name).read_bytes() for name in names if (run.folder / name).is_file()}
    readme = _format_readme(run, [name for name in files if name.endswith(".py")])
    files |= {name: hide_folder_in(content) for name, content in files.items() if name.endswith(".onnx")}
    files |= {"README.md": readme.encode(), EXAMPLE_FILE: EXAMPLE.encode(), "Dockerfile": DOCKERFILE.encode()}
    files["SHA256SUMS"] = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()).encode()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            filled = Path(scratch) / target.name
            (_write_zip if target.suffix.lower() == ".zip" else _write_folder)(filled, files)
            if target.is_dir():  # an empty one, which Windows does not replace
                target.rmdir()
            os.replace(filled, target)
    except OSError as error:
        raise ExportError(f"--to {target}: {error.strerror or error}", "Give --to a path in a writable folder with free disk space") from None
    return target


def check_target(target: Path) -> None:
    """Raise UsageError if `target` exists, or is named like an archive other than .zip. An empty folder counts as free, unless the name ends in .zip."""
    if target.name in ("", ".."):
        raise UsageError(f"--to {target}: this names no new folder or file", "Name the bundle: --to bundle, or --to bundle.zip")
    if target.suffix.lower() in OTHER_ARCHIVES:
        raise UsageError(f"--to {target}: a bundle is a folder or a .zip file, not {target.suffix}", f"Use --to {target.name.split('.')[0]}.zip")
    taken = target.exists() and (target.suffix.lower() == ".zip" or not target.is_dir() or any(target.iterdir()))
    if taken:
        raise UsageError(f"--to {target}: it exists already", "Give --to a new folder or .zip file; nothing is overwritten")


def _write_folder(path: Path, files: dict[str, bytes]) -> None:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)


def _write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _format_readme(run: RunRecord, programs: Sequence[str]) -> str:
    """Return the text of the README. `programs` are the examples of the files for other runtimes."""
    others = f"Files for other runtimes have programs of their own: {', '.join(programs)}.\n\n" if programs else ""
    info = open_network(run.folder / ONNX_FILE).info
    metrics = read_metrics(run.folder)
    classes = run.manifest["classes"]
    return f"""# {info["task"]}: {len(classes)} classes

`{ONNX_FILE}` classifies images: {", ".join(classes)}.

Input `images`: a batch of upright RGB images, uint8 `[b, h, w, 3]`, of any height and width. tlfast blends transparent pixels with white and scales values
of 16 bits to 8; `example.py` does not. Output `probabilities`: float32 `[b, {len(classes)}]`, in the order of
the classes. Resizing ({info["resize"]}, to {info["size"]} px) and normalization are part of the graph.

    pip install onnxruntime pillow
    python example.py photo.jpg

{others}A server with a web page and a REST API, in a container. In a folder with the source code of tlfast, write its wheel to this folder first:

    pip wheel --no-deps --wheel-dir FOLDER_OF_THE_BUNDLE .
    docker build -t classifier .
    docker run -p 8000:8000 classifier

Accuracy {metrics["accuracy"]:.4f}, macro F1 {metrics["macro"]["f1"]:.4f} on the {metrics["split"]} split of the data
(strategy {run.strategy}, backbone {info["arch"]}, run {info["run"]}, tlfast {info["tlfast"]}).

Pretrained weights: {hide_folder(info["weights"])}; licence: {info["licence"]}. Verify the files with `sha256sum -c SHA256SUMS`.
"""
