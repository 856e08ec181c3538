"""Files made from a trained network: ONNX, smaller formats of it, safetensors weights, a fastai learner, and bundles.

May import `inference`, `models`, `data` and `core`. Read `onnx`, then `formats` and `weights`. Shapes in docstrings: b images of a
batch, c classes, h and w pixels.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_exports

if TYPE_CHECKING:
    from .bundle import write_bundle
    from .fastai_learner import export_learner, open_learner
    from .formats import FORMATS, Format
    from .metadata import describe_model
    from .onnx import build_onnx, check_onnx, export_onnx
    from .types import Agreement, Export, PortableExport
    from .weights import load_model, save_model

__all__ = [
    "FORMATS",
    "Agreement",
    "Export",
    "Format",
    "PortableExport",
    "build_onnx",
    "check_onnx",
    "describe_model",
    "export_learner",
    "export_onnx",
    "load_model",
    "open_learner",
    "save_model",
    "write_bundle",
]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(
        __name__,
        {
            "bundle": ["write_bundle"],
            "fastai_learner": ["export_learner", "open_learner"],
            "formats": ["FORMATS", "Format"],
            "metadata": ["describe_model"],
            "onnx": ["build_onnx", "check_onnx", "export_onnx"],
            "types": ["Agreement", "Export", "PortableExport"],
            "weights": ["load_model", "save_model"],
        },
    )
