"""Keras 2 models, converted to Keras 3."""
