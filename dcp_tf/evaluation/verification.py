"""Face verification: do two images show the same person? Measured by cosine, in folds, as the benchmarks do."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.evaluation.metrics import predict_function, single_output

FALSE_ACCEPT_RATES = (1e-2, 1e-3)


class PairList(Protocol):
    """The pairs to verify; `dcp_tf.data.Pairs` is one.

    Attributes:
        left: (P,) of int, the first image of each pair, by its position in the embeddings.
        right: (P,) of int, the second.
        same: (P,) of bool, whether both show one person.
        fold: (P,) of int.
    """

    left: np.ndarray
    right: np.ndarray
    same: np.ndarray
    fold: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Verification:
    """The verification result; all rates are fractions of 1.

    Attributes:
        accuracy: mean over the folds.
        std: standard deviation over the folds (of these folds, not of a sample: divided by their number).
        folds: the numbers of the folds.
        fold_accuracies: the accuracy in each fold, at the threshold that is best on all other folds.
        thresholds: of each fold; pairs with a larger cosine count as one person.
        tar_at_far: the true accept rate at each false accept rate, over the pairs of all folds together.
        auc: area under the ROC curve, over the pairs of all folds together.
        false_accepts: (T,), the ROC curve: fraction of different-person pairs that are accepted,
        true_accepts: (T,), fraction of same-person pairs that are accepted.
    """

    accuracy: float
    std: float
    folds: tuple[int, ...]
    fold_accuracies: tuple[float, ...]
    thresholds: tuple[float, ...]
    tar_at_far: dict[float, float]
    auc: float
    false_accepts: np.ndarray = dataclasses.field(repr=False)
    true_accepts: np.ndarray = dataclasses.field(repr=False)

    def summary(self) -> dict[str, Any]:
        """The metrics for JSON and tables."""
        return {
            "verification_accuracy": self.accuracy,
            "verification_std": self.std,
            "tar_at_far": {f"{rate:g}": value for rate, value in self.tar_at_far.items()},
            "auc": self.auc,
            "folds": list(self.folds),
            "fold_accuracies": list(self.fold_accuracies),
            "thresholds": list(self.thresholds),
        }


def verify(
    model_or_predict: keras.Model | Callable,
    batches: Iterable,
    pairs: PairList,
    *,
    folds: Iterable[int] | None = None,
    mirror: bool = True,
    false_accept_rates: Sequence[float] = FALSE_ACCEPT_RATES,
) -> Verification:
    """Verifies pairs of faces with an embedding network; see `embed` and `verify_embeddings`.

    Example:
        pairs = data.read_pairs("pairs.txt", "lfw", "lfw")
        images = data.pairs_split(pairs, input_shape=model.input_shape[1:])
        verify(model, images.batches(64), pairs).accuracy
    """
    embeddings = embed(model_or_predict, batches, mirror=mirror)
    return verify_embeddings(embeddings, pairs, folds=folds, false_accept_rates=false_accept_rates)


def embed(model_or_predict: keras.Model | Callable, batches: Iterable, *, mirror: bool = True) -> np.ndarray:
    """Computes the embeddings of images.

    Args:
        model_or_predict: a Keras model, or anything that maps images (B, H, W, C) to embeddings (B, D), such as the
            `predict` of a TFLite runner.
        batches: images, or pairs of images and labels, as `ImageSplit.batches` gives.
        mirror: whether each embedding is concatenated with that of the mirror image.

    Returns:
        (N, D) of float32, or (N, 2 D) with `mirror`; not normalized.

    Raises:
        UsageError: there are no images, or the network gives no embeddings.
        RunError: an embedding is NaN or infinite.
    """
    predict = predict_function(model_or_predict)
    parts = []
    for batch in progress.bar(batches, what="embedding faces", unit="batch"):
        images = batch[0] if isinstance(batch, tuple | list) else batch
        views = [images, images[:, :, ::-1]] if mirror else [images]
        parts.append(np.concatenate([_embeddings(predict(view), len(images)) for view in views], axis=1))
    if not parts:
        raise UsageError("there are no images to embed")
    embeddings = np.concatenate(parts)
    if not np.isfinite(embeddings).all():
        raise RunError("the network gives embeddings that are not finite; check its weights and the normalization")
    return embeddings


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The cosine between the rows of two arrays (P, D), float64 (P,); 0 where a row is all zeros."""
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(axis=1) / np.where(norms > 0, norms, 1.0)


def verify_embeddings(
    embeddings: np.ndarray,
    pairs: PairList,
    *,
    folds: Iterable[int] | None = None,
    false_accept_rates: Sequence[float] = FALSE_ACCEPT_RATES,
) -> Verification:
    """Measures how well the cosine of two embeddings distinguishes same and different people.

    Args:
        embeddings: (N, D), of the images in the pairs.
        pairs: with at least two folds.
        folds: to measure; None for all. The threshold of each fold is the best one on all *other* folds of
            `pairs`, whether these are measured or not.
        false_accept_rates: points of the ROC curve for `tar_at_far`.

    Raises:
        UsageError: pairs and embeddings do not fit each other, or a fold does not exist.
    """
    same, fold = np.asarray(pairs.same, bool), np.asarray(pairs.fold)
    _check(embeddings, pairs, same, fold)
    existing = np.unique(fold).tolist()
    measured = existing if folds is None else sorted(set(folds))
    if not measured or set(measured) - set(existing) or len(existing) < 2:
        raise UsageError(
            f"verification needs pairs in two folds or more; the pairs have the folds "
            f"{existing}, to be measured are {measured}"
        )
    scores = cosines(embeddings[pairs.left], embeddings[pairs.right])
    thresholds = [best_threshold(scores[fold != number], same[fold != number]) for number in measured]
    accuracies = [
        float(((scores > threshold) == same)[fold == number].mean())
        for number, threshold in zip(measured, thresholds, strict=True)
    ]
    chosen = np.isin(fold, measured)
    false_accepts, true_accepts, auc = _roc(scores[chosen], same[chosen])
    return Verification(
        accuracy=float(np.mean(accuracies)),
        std=float(np.std(accuracies)),
        folds=tuple(measured),
        fold_accuracies=tuple(accuracies),
        thresholds=tuple(thresholds),
        tar_at_far={rate: float(true_accepts[false_accepts <= rate].max()) for rate in false_accept_rates},
        auc=auc,
        false_accepts=false_accepts,
        true_accepts=true_accepts,
    )


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """The threshold that classifies most pairs correctly, `same` above it; of several the middle one.

    Thresholds are halfway between neighboring scores, or beyond the ends.

    Args:
        scores: (P,).
        same: (P,) of bool.
    """
    order = np.argsort(scores, kind="stable")
    scores, same = scores[order], same[order]
    # With i pairs rejected, the correct ones are the different ones among them and the same ones among the rest.
    right = np.concatenate([[0], np.cumsum(~same)]) + same.sum() - np.concatenate([[0], np.cumsum(same)])
    cuts = np.concatenate([[scores[0] - 1.0], (scores[1:] + scores[:-1]) / 2, [scores[-1] + 1.0]])
    parts = np.concatenate([[True], scores[1:] > scores[:-1], [True]])  # equal scores cannot be distinguished
    best = np.flatnonzero(parts & (right == right[parts].max()))
    return float(cuts[best[len(best) // 2]])


def _roc(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    from sklearn.metrics import auc, roc_curve

    if same.all() or not same.any():
        raise UsageError("a ROC curve needs same-person and different-person pairs; the folds hold only one kind")
    false_accepts, true_accepts, _ = roc_curve(same, scores, drop_intermediate=False)
    return false_accepts, true_accepts, float(auc(false_accepts, true_accepts))


def _check(embeddings: np.ndarray, pairs: PairList, same: np.ndarray, fold: np.ndarray) -> None:
    if np.ndim(embeddings) != 2 or not len(same):
        raise UsageError(f"expected embeddings of shape (N, D) and some pairs, received {np.shape(embeddings)}")
    if not len(pairs.left) == len(pairs.right) == len(same) == len(fold):
        raise UsageError("left, right, same and fold of the pairs differ in length")
    largest = int(max(np.max(pairs.left), np.max(pairs.right)))
    if largest >= len(embeddings):
        raise UsageError(f"the pairs use image {largest}, but there are {len(embeddings)} embeddings")


def _embeddings(outputs: Any, count: int) -> np.ndarray:
    outputs = single_output(outputs)
    if outputs.ndim < 2 or len(outputs) != count:
        raise UsageError(f"expected embeddings of shape ({count}, D), received {outputs.shape}")
    return outputs.reshape(count, -1)
