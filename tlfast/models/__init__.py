"""Backbones as PyTorch modules: pretrained weights, classifiers built from timm networks, their stages, and the choice of a device.

May import `tasks`, `data` and `core`, besides torch and timm. Read `build` and `head`, then `weights` and `stages`. Shapes in docstrings: b images of a batch,
c classes, h and w pixels, d features.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_exports

if TYPE_CHECKING:
    from .build import build_body, build_model, check_arch, to_network_input
    from .catalogue import Backbone, describe_backbones, list_at_hand, list_names, match_names
    from .device import (
        choose_algorithms,
        collect_garbage,
        copy_state,
        copy_to_device,
        fits_on_gpu,
        is_out_of_memory,
        move_network,
        pick_device,
        release_device_memory,
        run_by_halves,
        synchronize,
    )
    from .head import build_head, count_features
    from .pretrained import Weights, find_weights
    from .stages import SplitBody, list_stages, split_at
    from .threads import share_cores
    from .weights import hash_weights, load_weights, normalization_stats, read_licence, read_weights

__all__ = [
    "Backbone",
    "SplitBody",
    "Weights",
    "build_body",
    "build_head",
    "build_model",
    "check_arch",
    "choose_algorithms",
    "collect_garbage",
    "copy_state",
    "copy_to_device",
    "count_features",
    "describe_backbones",
    "find_weights",
    "fits_on_gpu",
    "hash_weights",
    "is_out_of_memory",
    "list_at_hand",
    "list_names",
    "list_stages",
    "load_weights",
    "match_names",
    "move_network",
    "normalization_stats",
    "pick_device",
    "read_licence",
    "read_weights",
    "release_device_memory",
    "run_by_halves",
    "share_cores",
    "split_at",
    "synchronize",
    "to_network_input",
]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(
        __name__,
        {
            "build": ["build_body", "build_model", "check_arch", "to_network_input"],
            "catalogue": ["Backbone", "describe_backbones", "list_at_hand", "list_names", "match_names"],
            "device": [
                "choose_algorithms",
                "collect_garbage",
                "copy_state",
                "copy_to_device",
                "fits_on_gpu",
                "is_out_of_memory",
                "move_network",
                "pick_device",
                "release_device_memory",
                "run_by_halves",
                "synchronize",
            ],
            "head": ["build_head", "count_features"],
            "pretrained": ["Weights", "find_weights"],
            "stages": ["SplitBody", "list_stages", "split_at"],
            "threads": ["share_cores"],
            "weights": ["hash_weights", "load_weights", "normalization_stats", "read_licence", "read_weights"],
        },
    )
