"""One small rule per kind of layer or operation. Importing this package fills the table of rules."""

from dcp_tf.graph.rules import (
    activation,
    applications,
    attention,
    constants,
    contraction,
    convolution,
    dense,
    elementwise,
    indexing,
    merging,
    normalization,
    pooling,
    recurrent,
    shape,
    sorting,
    wrappers,
)

__all__ = [
    "activation",
    "applications",
    "attention",
    "constants",
    "contraction",
    "convolution",
    "dense",
    "elementwise",
    "indexing",
    "merging",
    "normalization",
    "pooling",
    "recurrent",
    "shape",
    "sorting",
    "wrappers",
]
