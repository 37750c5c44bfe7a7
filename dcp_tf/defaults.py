"""Defaults that the library and the programs share. Nothing here imports TensorFlow."""

# Widths are multiples of this. Arm's int8 kernels step at multiples of 16 channels, its float32 kernels at 8; an int8
# file is made by default (docs/measurements.md).
ROUND_TO = 16
