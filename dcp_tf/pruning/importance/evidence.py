"""What one-shot criteria may look at."""

import dataclasses
from typing import Any

import numpy as np

from dcp_tf.data import DataSplit
from dcp_tf.graph import ChannelGraph
from dcp_tf.training import Objective

Scores = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a criterion may look at.

    Attributes:
        graph: of the trained model.
        data: the training images.
        objective: of the model.
        method: the settings.
        seed: of everything that is drawn.
    """

    graph: ChannelGraph
    data: DataSplit
    objective: Objective
    method: Any
    seed: int
