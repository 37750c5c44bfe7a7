"""By how much the model's own loss rises as whole residual blocks go, and in which order they are offered."""

from collections.abc import Mapping

import numpy as np

from dcp_tf import progress
from dcp_tf.graph.blocks import ResidualBlock, branch_weights
from dcp_tf.pruning.activations.memory import free_compiled
from dcp_tf.pruning.allocation.sensitivity import MeasuredLosses, parted_images
from dcp_tf.pruning.allocation.stream_readers import fitted_readers
from dcp_tf.pruning.context import Context


class WholeBlocks:
    """Residual blocks that may go as a whole, those first whose loss rises least for what they save.

    Args:
        context: of the trained model.
        saved: what each block saves, by name; others stay.

    Attributes:
        names: of the blocks, in that order.
    """

    def __init__(self, context: Context, saved: Mapping[str, float]):
        trace = self._trace = context.graph.trace
        blocks = [block for block in context.graph.blocks if saved.get(block.name, 0) > 0]
        modelled, count, measured, apart_from = parted_images(context)
        fitted = fitted_readers(modelled, count, [[block] for block in blocks])
        layers = {call.path: call.operation for call in trace.calls}
        self._values = {
            block.name: [
                *((weight, np.zeros(weight.shape, np.float32)) for weight in branch_weights(trace, block)),
                *((layers[path].kernel, value) for path, value in kernels.items()),
            ]
            for block, kernels in zip(blocks, fitted, strict=True)
        }
        self._arguments = measured, apart_from
        measure, alone = MeasuredLosses(*self._arguments), {}
        for block in progress.bar(blocks, what="comparing blocks", unit="block"):
            alone[block.name] = self._measured(measure, block.calls[0], [block])
        measure.close()
        free_compiled()
        ordered = sorted(blocks, key=lambda block: max(alone[block.name], 0.0) / saved[block.name])
        self._blocks, self._rises = ordered, [0.0]
        self.names = [block.name for block in ordered]
        self._together: MeasuredLosses | None = None

    def rise(self, count: int) -> float:
        """The rise of the loss without the first `count` blocks, measured together."""
        first = min((block.calls[0] for block in self._blocks), default=0)
        self._together = self._together or MeasuredLosses(*self._arguments)
        while len(self._rises) <= count:
            rise = self._measured(self._together, first, self._blocks[: len(self._rises)])
            self._rises.append(max(rise, self._rises[-1]))
        return self._rises[count]

    def close(self) -> None:
        """Frees the memory."""
        if self._together is not None:
            self._together.close()
        free_compiled()

    def _measured(self, measure: MeasuredLosses, cut: int, blocks: list[ResidualBlock]) -> float:
        values = {id(weight): (weight, value) for block in blocks for weight, value in self._values[block.name]}
        # Where a branch is one layer, what ends it may read the stream behind another block: it stays zero.
        ends = {id(w): w for block in blocks for w in branch_weights(self._trace, block)}
        values |= {key: (weight, np.zeros(weight.shape, np.float32)) for key, weight in ends.items()}
        weights, chosen = zip(*values.values(), strict=True)
        return measure(cut, weights, [chosen])[0]
