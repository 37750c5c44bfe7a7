"""Compares the outputs of a file with those of its Keras model."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.conversion.keras_inference import compiled_infer
from dcp_tf.tflite.types import LIMITS, Limit, Parity, Quantization, TFLiteFile
from dcp_tf.tflite.verify.output_difference import OutputDifference
from dcp_tf.tflite.verify.runner import Runner
from dcp_tf.tflite.verify.samples import BATCH, samples_of

_WRONG_RANGES = "; calibrate on images like those the model was trained on"
_RIGHT_RANGES = (
    "; it is as far off on the images that it was calibrated on, so more of them do not help: export {better}"
)
_BETTER = {"int8": "int16x8 or float16, or train for it (qat)", "int16x8": "float16"}
_ADVICE = dict.fromkeys(
    ("weight_only_int4", "dynamic_int4"), "; 4 bits are too few for this model, export weight_only_int8"
)

_OUTPUTS = ("logits", "probabilities", "embeddings")


def check_parity(
    file: TFLiteFile,
    model: Any,
    images: Any,
    labels: np.ndarray | None = None,
    *,
    outputs: str = "logits",
    independent: bool = False,
    runner: Any = None,
) -> Parity:
    """Runs a file and its Keras model on all samples and compares the outputs.

    Args:
        file: the converted model, or the path of its file.
        model: the Keras model that it was converted from.
        images: inputs (N, ...) as the model takes them, or one such array for each input, or `Samples`.
        labels: class numbers (N,), for the accuracies, where `images` are arrays. They belong to the first output.
        outputs: kind of the outputs. "logits" and "embeddings": errors are relative to the standard deviation of the
            Keras outputs; "probabilities": they are absolute, since the spread of a probability is 1.
            Embeddings have cosines in place of an agreement.
        independent: whether each output is a separate yes / no decision, as in multi-label classification. Labels
            must be left out then.
        runner: what runs the file, by default `Runner(file)`, which runs it on this machine.

    Returns:
        The comparison. Of several outputs the largest error counts, and the agreement is that of the first.

    Raises:
        UsageError: the images or labels do not fit.
    """
    from dcp_tf.evaluation import cosines  # here: this package imports no TensorFlow before it is needed

    if outputs not in _OUTPUTS:
        raise UsageError(f"outputs must be one of {', '.join(_OUTPUTS)}. Received: {outputs!r}")
    samples = samples_of(images, len(model.inputs), labels)
    runner, keras_outputs = runner or Runner(file), compiled_infer(model)
    differences = [OutputDifference(outputs == "probabilities") for _ in model.outputs]
    decided, similarities = _Decisions(outputs, independent), []
    batches = -(-samples.count // BATCH)
    for arrays, classes in progress.bar(samples, what="Parity", unit=" batches", total=batches):
        of_file, of_model = _run_both(runner, keras_outputs, model, arrays)
        for difference, actual, expected in zip(differences, of_file, of_model, strict=True):
            difference.add(actual, expected)
        decided.add(of_file[0], of_model[0], classes)
        if outputs == "embeddings" and of_file[0].ndim == 2 and of_file[0].shape[1] > 1:
            similarities.append(cosines(of_file[0], of_model[0]))
    similarity = np.concatenate(similarities) if similarities else None
    return Parity(
        max_error=float(np.max([difference.largest for difference in differences])),
        mean_error=float(np.max([difference.mean for difference in differences])),
        **decided.rates(),
        samples=samples.count,
        snr_db=min(difference.snr_db for difference in differences),
        cosine_min=None if similarity is None else float(similarity.min()),
        cosine_mean=None if similarity is None else float(similarity.mean()),
    )


def check_tolerance(parity: Parity, quantization: str | Quantization, on_calibration: Parity | None = None) -> None:
    """Raises RunError if a file differs from its model by more than its mode's entry in `LIMITS`.

    Args:
        parity: the comparison.
        quantization: mode of the file.
        on_calibration: the comparison on the calibration images; the advice in the error depends on it.

    Raises:
        RunError: the file is beyond the limits of its mode, or its outputs hold NaN.
    """
    mode = Quantization.parse(quantization).value
    limit = LIMITS[mode]
    if not np.isfinite(parity.max_error):
        raise RunError(f"the {mode} file or its Keras model gives NaN or infinite outputs")
    if limit.max_error is not None and parity.max_error > limit.max_error:
        raise RunError(
            f"the {mode} file does not equal its Keras model: the largest error is {parity.max_error:.2g} of the "
            f"outputs' spread over {parity.samples} samples (limit {limit.max_error:g})"
        )
    allowed = _allowed(parity, limit)
    if parity.mean_error > allowed:
        agreement = "" if parity.top1_agreement is None else f"decides alike on {parity.top1_agreement:.1%} and "
        raise RunError(
            f"the {mode} file is too far from its Keras model: it {agreement}has a mean error of "
            f"{parity.mean_error:.2g} of the outputs' spread over {parity.samples} samples (limit "
            f"{allowed:g}){_advice(mode, on_calibration)}"
        )


def _allowed(parity: Parity, limit: Limit) -> float:
    """The largest mean error that is accepted."""
    agrees = parity.top1_agreement is not None and parity.top1_agreement >= limit.agreement
    return limit.far if agrees else limit.near


def _advice(mode: str, on_calibration: Parity | None) -> str:
    """What to do about a file that is too far from its model; only an error on other images blames the ranges."""
    if mode not in _BETTER:
        return _ADVICE.get(mode, "")
    if on_calibration is None or on_calibration.mean_error <= _allowed(on_calibration, LIMITS[mode]):
        return _WRONG_RANGES
    return _RIGHT_RANGES.format(better=_BETTER[mode])


def _run_both(runner: Any, keras_outputs: Callable, model: Any, batch: Sequence[np.ndarray]) -> tuple[list, list]:
    """The outputs of the file and of the model, each a list with one array per output."""
    outputs = runner.predict(batch[0] if len(batch) == 1 else batch)
    inputs = [array.astype(tensor.dtype) for tensor, array in zip(model.inputs, batch, strict=True)]
    expected = [np.asarray(output, np.float32) for output in keras_outputs(*inputs)]
    return (outputs if isinstance(outputs, list) else [outputs]), expected


class _Decisions:
    """Counts how often a file and its model decide alike, and how often each is right."""

    def __init__(self, outputs: str, independent: bool):
        self._outputs, self._independent = outputs, independent
        self._alike = self._decided = self._labels = 0
        self._right = np.zeros(2)

    def add(self, of_file: np.ndarray, of_model: np.ndarray, labels: np.ndarray | None) -> None:
        """Takes the first output of a batch by both, and its class numbers."""
        if self._outputs == "embeddings":
            return
        both = [self._decide(of_file), self._decide(of_model)]
        self._decided += both[0].size
        self._alike += int(np.sum(both[0] == both[1]))
        if labels is None:
            return
        if np.size(labels) != both[0].size:
            raise UsageError(
                f"labels must be class numbers of shape {both[0].shape}. Received labels of shape {np.shape(labels)}"
            )
        self._labels += np.size(labels)
        self._right += [np.sum(decisions == np.reshape(labels, decisions.shape)) for decisions in both]

    def _decide(self, values: np.ndarray) -> np.ndarray:
        """The predicted classes; a single or independent output is a yes / no decision at probability 1/2."""
        if values.shape[-1] > 1 and not self._independent:
            return np.argmax(values, axis=-1)
        decisions = (values > (0.5 if self._outputs == "probabilities" else 0.0)).astype(int)
        return decisions if self._independent else decisions[..., 0]

    def rates(self) -> dict[str, float | None]:
        """The fields of `Parity`."""
        of_file, of_model = (self._right / self._labels).tolist() if self._labels else (None, None)
        agreement = self._alike / self._decided if self._decided else None
        return {"top1_agreement": agreement, "top1": of_file, "keras_top1": of_model}
