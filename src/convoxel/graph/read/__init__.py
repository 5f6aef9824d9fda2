"""Readers: networks from PyTorch and ONNX become graphs of the same operators."""
