"""Formats of other runtimes: TorchScript, torch.export, OpenVINO, and ONNX without resizing. Their input is an image that has been resized.

To add a format, write a function that writes its files and one that loads them, and add a `PortableFormat` to `PORTABLE`.
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core import ExportError, OnEvent, UsageError
from ..core.errors import first_line, suggest_name
from ..data import Preprocessing
from ..inference.onnx_model import OUTPUT
from .agreement import ResizedInput, compare_with_network, judge_agreement
from .onnx import OPSET, write_onnx
from .types import Agreement

PIXELS = "pixels"
OPSETS = range(7, 21)  # of the exporter of torch that traces the network
Predict = Callable[[np.ndarray], np.ndarray]  # uint8 [b, size, size, 3] -> probabilities [b, c]


@dataclass(frozen=True)
class PortableFormat:
    """A format of another runtime.

    Attributes:
        name: value of `--format`.
        files: names of its files, the main one first.
        write: writes the files to a folder, for a network, an example of its input and an ONNX opset.
        load: returns a function that predicts with the main file.
        example: lines of a program that predicts with the main file `file`, after `pixels` has been read.
        package: Python package that it needs besides torch.
        takes_opset: whether it is made from ONNX, so that an opset can be chosen.
    """

    name: str
    files: tuple[str, ...]
    write: Callable[[nn.Module, torch.Tensor, Path, int], None]
    load: Callable[[Path], Predict]
    example: str
    package: str = ""
    takes_opset: bool = False

    @property
    def example_file(self) -> str:
        """Name of the example program."""
        return f"example_{self.name.replace('-', '_')}.py"


def _write_torchscript(network: nn.Module, example: torch.Tensor, folder: Path, opset: int) -> None:
    traced: Any = torch.jit.trace(network, example)
    traced.save(str(folder / "model.torchscript.pt"))


def _load_torchscript(path: Path) -> Predict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against TorchScript, which many programs still load
        module = torch.jit.load(str(path))
    return lambda pixels: np.asarray(module(torch.from_numpy(pixels)).detach())


def _write_torch_export(network: nn.Module, example: torch.Tensor, folder: Path, opset: int) -> None:
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},))
    torch.export.save(program, folder / "model.pt2")


def _load_torch_export(path: Path) -> Predict:
    module = torch.export.load(path).module()
    return lambda pixels: np.asarray(module(torch.from_numpy(pixels)).detach())


def _write_resized_onnx(network: nn.Module, example: torch.Tensor, folder: Path, opset: int) -> None:
    write_onnx(network, example, str(folder / "model.resized.onnx"), (PIXELS, OUTPUT), opset)


def _load_resized_onnx(path: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run([OUTPUT], {PIXELS: pixels})[0])


def _write_openvino(network: nn.Module, example: torch.Tensor, folder: Path, opset: int) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as scratch:  # `openvino.convert_model` would send usage statistics, `read_model` does not
        _write_resized_onnx(network, example, Path(scratch), opset)
        model = openvino.Core().read_model(Path(scratch) / "model.resized.onnx")
        openvino.save_model(model, folder / "model.openvino.xml", compress_to_fp16=False)


def _load_openvino(path: Path) -> Predict:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pixels: np.asarray(compiled(pixels)[0])


PORTABLE = {
    each.name: each
    for each in (
        PortableFormat(
            "torchscript",
            ("model.torchscript.pt",),
            _write_torchscript,
            _load_torchscript,
            "import torch\n\nnetwork = torch.jit.load(file)\nprobabilities = network(torch.from_numpy(pixels))[0].tolist()",
        ),
        PortableFormat(
            "torch-export",
            ("model.pt2",),
            _write_torch_export,
            _load_torch_export,
            "import torch\n\nnetwork = torch.export.load(file).module()\nprobabilities = network(torch.from_numpy(pixels))[0].tolist()",
        ),
        PortableFormat(
            "onnx-resized",
            ("model.resized.onnx",),
            _write_resized_onnx,
            _load_resized_onnx,
            f'import onnxruntime\n\nsession = onnxruntime.InferenceSession(file)\nprobabilities = session.run(None, {{"{PIXELS}": pixels}})[0][0].tolist()',
            takes_opset=True,
        ),
        PortableFormat(
            "openvino",
            ("model.openvino.xml", "model.openvino.bin"),
            _write_openvino,
            _load_openvino,
            'import openvino\n\nexact = {"INFERENCE_PRECISION_HINT": "f32"}  # without it some CPUs compute in bf16\n'
            'network = openvino.Core().compile_model(file, "CPU", exact)\nprobabilities = network(pixels)[0][0].tolist()',
            package="openvino",
            takes_opset=True,
        ),
    )
}


def check_portable(name: str, opset: int = 0) -> PortableFormat:
    """Return a format. Raises UsageError for an unknown one, if its package is missing, and for an opset that it has no use for."""
    if name not in PORTABLE:
        raise UsageError(f"--format '{name}' is not one of: {', '.join(PORTABLE)}", suggest_name(name, list(PORTABLE)))
    chosen = PORTABLE[name]
    if chosen.package and not importlib.util.find_spec(chosen.package):
        raise UsageError(f"--format {name} needs the package {chosen.package}", f'Install it: pip install "tlfast[{name}]"')
    if opset and not chosen.takes_opset:
        raise UsageError(f"--opset {opset} is given for --format {name}, which is not made from ONNX", "Leave it out")
    if opset and opset not in OPSETS:
        raise UsageError(f"--opset {opset} must lie between {OPSETS[0]} and {OPSETS[-1]}", f"Give another one; the default is {OPSET}")
    return chosen


def write_portable(chosen: PortableFormat, network: ResizedInput, size: int, folder: Path, opset: int = OPSET) -> None:
    """Write a network for images of `size` pixels in a format to a folder. Raises ExportError."""
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # tracing warns of every Python number in a network
            chosen.write(network.eval(), example, folder, opset)
    except Exception as error:  # converters raise errors of many types for networks that they do not support
        hint = "Use model.onnx, or another --format" + (" or --opset" if opset != OPSET else "")
        raise ExportError(f"the network cannot be written as {chosen.name} ({first_line(error)})", hint) from error


def check_files(
    chosen: PortableFormat, folder: Path, network: ResizedInput, preprocessing: Preprocessing, sources: Sequence[str], on_event: OnEvent
) -> Agreement:
    """Compare the probabilities of the files with those of the network on image files. Raises ExportError if too many labels differ."""
    file = chosen.files[0]
    predict = chosen.load(folder / file)
    pairs = compare_with_network(file, lambda opened, prepared: predict(prepared), network, preprocessing, sources, on_event)
    return judge_agreement(file, pairs, "Use model.onnx, or another --format")


def format_example(chosen: PortableFormat, classes: Sequence[str], preprocessing: Preprocessing) -> str:
    """Return a program that classifies a photo with the file of a format, Pillow and NumPy."""
    size, full_size, offset = preprocessing.size, preprocessing.full_size, (preprocessing.full_size - preprocessing.size) // 2
    squares = {
        "squish": "",
        "crop": "side = min(image.size)\nleft, top = (image.width - side) // 2, (image.height - side) // 2\n"
        "image = image.crop((left, top, left + side, top + side))\n",
        "pad": 'square = Image.new("RGB", (max(image.size),) * 2)\n'
        "square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))\nimage = square\n",
    }
    crop = f".crop(({offset}, {offset}, {offset + size}, {offset + size}))" if size != full_size else ""
    return (
        "import sys\nfrom pathlib import Path\n\nimport numpy as np\nfrom PIL import Image, ImageOps\n\n"
        f'file = str(Path(__file__).with_name("{chosen.files[0]}"))\n'
        f'photo = sys.argv[1] if len(sys.argv) > 1 else sys.exit("usage: python {chosen.example_file} photo.jpg")\n'
        'image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")\n'
        f"{squares[preprocessing.resize]}image = image.resize(({full_size}, {full_size}), Image.Resampling.BILINEAR){crop}\n"
        f"pixels = np.array(image)[None]\n\n{chosen.example}\n"
        f"print(max(zip(probabilities, {list(classes)!r})))\n"
    )
