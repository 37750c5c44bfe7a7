"""What one-shot criteria may look at."""

import dataclasses
from typing import Any

import numpy as np

from dcp_tf.graph import ChannelGraph

Scores = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a criterion may look at.

    Attributes:
        graph: of the trained model.
        data: the training images; see `dcp_tf.data.Split`.
        outputs_kind: of the model, "logits", "softmax" or "sigmoid".
        method: the settings.
        seed: of everything that is drawn.
    """

    graph: ChannelGraph
    data: Any
    outputs_kind: str
    method: Any
    seed: int
