"""A network with a linear head as a plain timm model, which `timm.create_model("hf-hub:...")` and `"local-dir:..."` load, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import nn

from ..data import Preprocessing

CONFIG = "config.json"
CROP_MODES = {"squish": "squash", "crop": "center", "pad": "border"}  # timm resizes before it crops, and pads with the mean colour: not as tlfast does
CLASSIFIER = "classifier"  # in the header of the weights: name of the last layer of a timm model
TOLERANCE = 1e-3  # largest difference of a logit, relative to the largest logit


def build_timm_model(model: nn.Module, arch: str, classes: int, size: int, temperature: float) -> nn.Module | None:
    """Return a timm model with the logits of `model` divided by the temperature; None if the head or the network does not allow it.

    The head must be linear: its BatchNorm and its temperature become part of the classifier of the timm model.
    """
    assert isinstance(model, nn.Sequential)
    body, head = model
    classifier = _merge_head(head, temperature)
    if classifier is None:
        return None
    network: Any = timm.create_model(arch, pretrained=False, num_classes=classes, **_model_arguments(body, size))
    last = network.get_classifier()
    if not isinstance(last, nn.Linear) or last.weight.shape != classifier.weight.shape:
        return None
    missing, unexpected = network.load_state_dict(body.state_dict(), strict=False)
    with torch.no_grad():
        last.weight.copy_(classifier.weight)
        last.bias.copy_(classifier.bias)
    same_names = not unexpected and {name.rpartition(".")[0] for name in missing} == {name_classifier(network)}
    return network.eval() if same_names and _is_equal(network, model, size, temperature) else None


def describe_timm_model(network: Any, arch: str, classes: Sequence[str], preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the content of `config.json` for timm: architecture, labels and the transform of the images."""
    size, full_size = preprocessing.size, preprocessing.full_size
    return {
        "architecture": arch.partition(".")[0],
        "num_classes": len(classes),
        "num_features": network.num_features,
        "label_names": list(classes),
        "model_args": _model_arguments(network, size),
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "fixed_input_size": bool(network.pretrained_cfg.get("fixed_input_size")),
            "interpolation": "bilinear",
            "crop_pct": 1.0 if full_size == size else size / (full_size + 0.5),  # timm rounds size / crop_pct down
            "crop_mode": CROP_MODES[preprocessing.resize],
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "first_conv": network.pretrained_cfg.get("first_conv"),
            "classifier": network.pretrained_cfg.get("classifier"),
        },
    }


def restore_state(state: Mapping[str, torch.Tensor], classifier: str, head: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the state of the network of a run: the body of a timm model, without its classifier, and the state of the head."""
    body = {f"0.{name}": tensor for name, tensor in state.items() if name.rpartition(".")[0] != classifier}
    return body | {f"1.{name}": tensor for name, tensor in head.items()}


def _merge_head(head: nn.Module, temperature: float) -> nn.Linear | None:
    """Return BatchNorm, linear layer and temperature of a head as one linear layer; None for a head with several linear layers."""
    linears = [module for module in head.modules() if isinstance(module, nn.Linear)]
    if len(linears) != 1:
        return None
    (linear,) = linears
    (norm,) = (module for module in head.modules() if isinstance(module, nn.BatchNorm1d))
    merged = nn.Linear(linear.in_features, linear.out_features)
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = norm.bias.double() - norm.running_mean.double() * scale
        weight = linear.weight.double()
        bias = weight @ shift + (linear.bias.double() if linear.bias is not None else 0.0)
        merged.weight.copy_(weight * scale / temperature)
        merged.bias.copy_(bias / temperature)
    return merged


def name_classifier(network: Any) -> str:
    """Return the name of the last layer of a timm model, such as "fc"."""
    last = network.get_classifier()
    return next(name for name, module in network.named_modules() if module is last)


def _model_arguments(network: Any, size: int) -> dict[str, Any]:
    """Return the arguments of `timm.create_model` besides the number of classes."""
    return {"img_size": size} if network.pretrained_cfg.get("fixed_input_size") and hasattr(network, "set_input_size") else {}


@torch.inference_mode()
def _is_equal(network: nn.Module, model: nn.Module, size: int, temperature: float) -> bool:
    """Compare the logits for random images."""
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected, actual = model.eval()(images) / temperature, network.eval()(images)
    return bool((expected - actual).abs().max() <= TOLERANCE * expected.abs().max())
