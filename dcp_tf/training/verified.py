"""Embeddings that are measured by face verification: the objective of a margin loss with other metrics."""

import dataclasses
import operator
from collections.abc import Callable, Iterable

import keras

from dcp_tf.evaluation import Verification, verify
from dcp_tf.evaluation.verification import PairList
from dcp_tf.training.objectives import Objective


def _delegated(name: str) -> property:
    return property(operator.attrgetter(f"of.{name}"))


@dataclasses.dataclass(frozen=True, eq=False)
class Verified(Objective):
    """An objective of embeddings whose models are measured on pairs of faces.

    `evaluate` expects the images of the pairs, all of them in their order.

    Attributes:
        of: the objective of the training, such as `Embedding`; everything but the metrics is from it.
        pairs: to verify; see `dcp_tf.data.Pairs`.
        mirror: whether to concatenate each embedding with that of the mirror image.
    """

    of: Objective
    pairs: PairList
    mirror: bool = True
    primary = "verification_accuracy"
    fidelity, output_type = "cosine", "embeddings"

    def bind(self, shape, data, model=None, what="the data"):
        """See `Objective`."""
        return dataclasses.replace(self, of=self.of.bind(shape, data, model, what))

    name, loss, head_loss, check, head, loss_head, as_labels, targets = map(
        _delegated, ("name", "loss", "head_loss", "check", "head", "loss_head", "as_labels", "targets")
    )

    def verify(self, model_or_predict: keras.Model | Callable, batches: Iterable) -> Verification:
        """All results on the pairs, fold by fold."""
        return verify(model_or_predict, batches, self.pairs, mirror=self.mirror)

    def evaluate(self, model_or_predict, batches):
        """See `Objective`: the verification accuracy and its spread, AUC, and TAR at FAR."""
        return figures(self.verify(model_or_predict, batches))

    def describe(self):
        """See `Objective`."""
        return f"{self.of.describe()}, verified on {len(self.pairs.same)} pairs"

    def __repr__(self) -> str:
        return f"Verified({self.of!r}, {len(self.pairs.same)} pairs, mirror={self.mirror})"


def figures(verification: Verification) -> dict[str, float]:
    """The results by name."""
    return {
        "verification_accuracy": verification.accuracy,
        "verification_std": verification.std,
        "auc": verification.auc,
        **{f"tar_at_far_{rate:g}": value for rate, value in verification.tar_at_far.items()},
    }
