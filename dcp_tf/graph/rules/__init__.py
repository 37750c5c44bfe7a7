"""One small rule per kind of layer or operation. Importing this package fills the table of rules."""

from dcp_tf.graph.rules import (
    activation,
    applications,
    attention,
    convolution,
    dense,
    elementwise,
    indexing,
    merging,
    normalization,
    pooling,
    recurrent,
    shape,
)

__all__ = [
    "activation",
    "applications",
    "attention",
    "convolution",
    "dense",
    "elementwise",
    "indexing",
    "merging",
    "normalization",
    "pooling",
    "recurrent",
    "shape",
]
