"""Portable bundles: model, example and licence in a folder or zip."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from pathlib import Path

from ..core.errors import ExportError, UsageError
from ..core.runs import METRICS, Run
from ..inference.onnx_model import FILE, open_network

FORMS = {"int8": "model.int8.onnx", "fp16": "model.fp16.onnx"}
EXAMPLE = """import json, sys
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
photo = sys.argv[1] if len(sys.argv) > 1 else sys.exit("usage: python example.py photo.jpg")
image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
(probabilities,) = session.run(None, {"images": np.asarray(image)[None]})
for probability, name in sorted(zip(probabilities[0].tolist(), classes), reverse=True)[:5]:
    print(f"{probability:7.2%}  {name}")
"""


# The bundle


def write_bundle(run: Run, target: Path) -> Path:
    """Write `model.onnx`, the smaller forms that there are, a README, an example that needs no tlfast, and their SHA-256; return where."""
    files = {name: (run.folder / name).read_bytes() for name in (FILE, *FORMS.values()) if (run.folder / name).is_file()}
    files |= {"README.md": _write_readme(run).encode(), "example.py": EXAMPLE.encode()}
    files["SHA256SUMS"] = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()).encode()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            filled = Path(scratch) / target.name
            (_write_zip if target.suffix.lower() == ".zip" else _write_folder)(filled, files)
            os.replace(filled, target)  # whole or absent
    except OSError as error:
        raise ExportError(f"--to {target}: {error.strerror or error}", "Name a place that can be written and has room") from None
    return target


def check_free(target: Path) -> None:
    taken = target.exists() and (target.suffix.lower() == ".zip" or not target.is_dir() or any(target.iterdir()))
    if taken:
        raise UsageError(f"--to {target}: it exists already", "Name a new folder or .zip; nothing is overwritten")


def _write_folder(path: Path, files: dict[str, bytes]) -> None:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)


def _write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _write_readme(run: Run) -> str:
    info = open_network(run.folder / FILE).info
    metrics = json.loads((run.folder / METRICS).read_text(encoding="utf-8"))
    classes = run.manifest["classes"]
    return f"""# {info["task"]}: {len(classes)} classes

`{FILE}` classifies images: {", ".join(classes)}.

It takes a batch of RGB images, uint8 `[b, h, w, 3]` of any height and width, as input `images`, and gives `probabilities`, float32
`[b, {len(classes)}]`, in the order of the classes. Resizing ({info["resize"]}, to {info["size"]} px) and normalisation are inside the graph.

    pip install onnxruntime pillow
    python example.py photo.jpg

Accuracy {metrics["accuracy"]:.4f}, macro F1 {metrics["macro"]["f1"]:.4f} on the {metrics["split"]} part of the data it was trained on
({info["strategy"]} fine-tuning of {info["arch"]}, run {info["run"]}, tlfast {info["tlfast"]}).

Pretrained weights: {info["weights"]}; licence: {info["licence"]}. `SHA256SUMS` proves the files whole: `sha256sum -c SHA256SUMS`.
"""
