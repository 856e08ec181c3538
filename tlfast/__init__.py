"""Rapid prototyping of transfer learning in image classification, on fastai and timm."""
