"""Predictions of an exported classifier with ONNX Runtime: from Python, into files, and over HTTP.

May import `data` and `core`; no torch. Read `classifier`, then `onnx_model`; `server` is the web service. Shapes in docstrings: b images of a
batch, c classes, h and w pixels.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_exports

if TYPE_CHECKING:
    from .classifier import Classifier, find_model, load
    from .onnx_model import Network, open_network, predict_stream
    from .server import Service, build_app, serve
    from .types import Prediction, PredictRow, Tally
    from .uploads import Limits
    from .writers import open_writer

__all__ = [
    "Classifier",
    "Limits",
    "Network",
    "PredictRow",
    "Prediction",
    "Service",
    "Tally",
    "build_app",
    "find_model",
    "load",
    "open_network",
    "open_writer",
    "predict_stream",
    "serve",
]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(
        __name__,
        {
            "classifier": ["Classifier", "find_model", "load"],
            "onnx_model": ["Network", "open_network", "predict_stream"],
            "server": ["Service", "build_app", "serve"],
            "types": ["Prediction", "PredictRow", "Tally"],
            "uploads": ["Limits"],
            "writers": ["open_writer"],
        },
    )
