"""One small rule per kind of layer or operation. Importing this package fills the table of rules."""

from dcp_tf.graph.rules import activation, convolution, dense, elementwise, merging, normalization, pooling, shape

__all__ = ["activation", "convolution", "dense", "elementwise", "merging", "normalization", "pooling", "shape"]
