"""Quantized models."""

from __future__ import annotations


def test_weights_are_eight_bits_wide(run, cli):
    assert cli("export", "r", "--quantize", "int8", "--allow-drop", "--quiet").code == 0
    import onnx

    graph = onnx.load(run.folder / "model.int8.onnx").graph
    large = {constant.name: constant.data_type for constant in graph.initializer if len(constant.dims) >= 2 and not constant.name.startswith("tlfast")}
    narrow = [name for name, kind in large.items() if kind in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)]
    assert len(narrow) > len(large) / 2
