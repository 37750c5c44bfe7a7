"""Quantization-aware training: fine-tunes a network with the rounding of an integer file."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.settings.deployment import IO, Deployment, QatSettings
from dcp_tf.settings.training import TrainConfig
from dcp_tf.tflite.conversion.keras_inference import check_model
from dcp_tf.tflite.types import Quantization, TFLiteFile

_RANGE_BATCHES = 8  # to average the initial ranges of activations over
_SHOWN = 5  # layers that a line names


def quantization_aware_training(
    model: Any,
    train: Any,
    losses: Sequence[Callable],
    *,
    epochs: int = QatSettings.epochs,
    learning_rate: float = QatSettings.learning_rate,
    batch_size: int = QatSettings.batch_size,
    weight_decay: float = TrainConfig.weight_decay,
    augment: bool = True,
    masks: Mapping[str | int, np.ndarray] | None = None,
    teacher: Callable | None = None,
    seed: int = 0,
    lower: str = "learning_rate",
) -> Any:
    """Fine-tunes a copy of `model` whose weights and activations are rounded as in an integer file.

    The ranges of activations are measured first, so one short epoch is enough for a trained model. The learning rate
    follows a cosine; the statistics of BatchNormalization stay fixed. Equal arguments give equal results.

    Args:
        model: a trained functional or Sequential Keras 3 model with fixed sizes; it stays unchanged.
        train: a data split with `batches(batch_size, shuffle=, augment=, seed=, epoch=)`, or a function from the epoch
            (from 0) to a finite `tf.data.Dataset` of (images, labels) or, with a teacher, of images.
        losses: one per output of the model, as `dcp_tf.training.fit` takes them.
        epochs: passes over the data; 0 only measures the ranges.
        learning_rate: the highest rate, of SGD with Nesterov momentum.
        batch_size: images per step.
        weight_decay: L2 coefficient, on kernels only.
        augment: passed to `train.batches`.
        masks: per weight of `model`, by its path or `id()`, an array of 0 and 1: where it is 0 the weight is and stays
            exactly 0, in the file too. `dcp_tf.graph.zero_kernel_masks` makes those of a kernel-pruned model.
        teacher: from images to probabilities, such as `soft_targets(model, kind)`: the labels of data without any, and
            what a `Distillation` loss learns from.
        seed: of the data's order and augmentation.
        lower: what the user should lower if the loss becomes NaN, such as the name of a flag.

    Returns:
        A tf_keras model with quantizers, for `convert_qat`. Its outputs are close to those of the file. `trained_copy`
        returns its weights as a Keras 3 model.

    Raises:
        UsageError: an argument, or a layer of the model, cannot be used.
        RunError: the loss or a weight became NaN.
    """
    check_model(model)
    _check_settings(epochs, learning_rate, batch_size)
    from dcp_tf.tflite.qat.bridge import pair_weights
    from dcp_tf.tflite.qat.training import QatStep, measure_ranges
    from dcp_tf.tflite.qat.training import train as run_epochs
    from dcp_tf.training.loop import batches_by_epoch

    batches = batches_by_epoch(train, batch_size, augment, seed)
    quantized = add_quantizers(model)
    measure_ranges(quantized, batches_by_epoch(train, batch_size, False, seed)(0), _RANGE_BATCHES)
    step = QatStep(
        quantized,
        pair_weights(quantized, model),
        losses,
        weight_decay=weight_decay,
        masks=masks or {},
        teacher=teacher,
    )
    run_epochs(step, batches, epochs, learning_rate, lower)
    return quantized


def convert_qat(
    quantized: Any, *, representative_data: Any, io: str = Deployment.io, allow_float: bool = False
) -> TFLiteFile:
    """Converts what `quantization_aware_training` returned to an integer file at batch size 1.

    Args:
        quantized: the tf_keras model with quantizers.
        representative_data: typical inputs, as for `tflite.convert`. They calibrate the ranges inside operations that
            TFLite computes in several steps, which training does not measure.
        io: "float" (floats go in and out, converted inside) or "int8".
        allow_float: whether an operation without an integer kernel may stay in float.

    Returns:
        The file, in memory; its inputs and outputs have the same names as those of `tflite.convert`.

    Raises:
        UsageError: an argument does not fit.
        RunError: the converter failed, or left an operation in float.
    """
    if io not in IO:
        raise UsageError(f"io must be one of {', '.join(IO)}. Received: {io!r}")
    from dcp_tf.tflite.conversion.convert import check_integer

    try:
        file, floats = _run_converter(quantized, "export", representative_data, io)
    except RunError:  # the converter cannot mix known ranges with ranges that it measures
        file, floats = None, []
    if file is None or floats:
        measured, left = _run_converter(quantized, "off", representative_data, io)
        if file is None or not left:
            progress.say("qat: ranges are measured on representative data, for layers that training cannot see inside")
            file, floats = measured, left
    if floats and not allow_float:
        check_integer(quantized, file)
    return file


def trained_copy(quantized: Any, model: Any) -> Any:
    """A copy of the Keras 3 model with the trained weights, which the file rounds.

    Args:
        quantized: what `quantization_aware_training(model, ...)` returned.
        model: the original model; it stays unchanged.
    """
    from dcp_tf.graph import ChannelGraph
    from dcp_tf.graph.surgery import copy_model
    from dcp_tf.tflite.qat.bridge import copy_back

    copy = copy_model(ChannelGraph(model))
    copy_back(quantized, copy)
    return copy


def _check_settings(epochs: int, learning_rate: float, batch_size: int) -> None:
    if epochs < 0 or batch_size < 1 or not 0 < learning_rate < float("inf"):
        raise UsageError(
            "Expected epochs of 0 or more, a batch size of 1 or more and a learning rate above 0. Received: "
            f"epochs={epochs}, batch_size={batch_size}, learning_rate={learning_rate}"
        )


def add_quantizers(model: Any) -> Any:
    """The tf_keras twin of `model` with TFMOT's wrappers around its layers.

    Raises:
        UsageError: a layer has no twin.
    """
    from dcp_tf.graph.trace import Trace
    from dcp_tf.tflite.qat import bridge, quantizers
    from dcp_tf.tflite.qat.placement import Placement

    # Two traces of a model have the same nodes, so this placement also applies to the calls of the builder's trace.
    placement = Placement(Trace(model))

    def wrap(call: Any, layer: Any, is_last: bool) -> Any:
        rounds = call is None or placement.quantizes(call, is_last)
        if call is not None and placement.is_stepped(call):
            layer = quantizers.stepped(call, layer)
        return quantizers.annotate(layer, quantize_output=rounds)

    quantized = quantizers.apply(bridge.build(model, wrap, freeze_batch_norm=True))
    unseen = placement.unseen()
    if unseen:
        shown = ", ".join(unseen[:_SHOWN]) + (f" and {len(unseen) - _SHOWN} more" if len(unseen) > _SHOWN else "")
        progress.say(f"qat: TFLite computes these layers in several steps, training sees the last one: {shown}")
    return quantized


def _run_converter(quantized: Any, mode: str, data: Any, io: str) -> tuple[TFLiteFile, list[str]]:
    """A file made with quantizers in `mode`, and its operations in float."""
    from dcp_tf.tflite.conversion.convert import run_converter
    from dcp_tf.tflite.schema.inspect import inspect

    content = run_converter(_Exportable(quantized, mode), Quantization.INT8, data, io, allow_float=True)
    file = TFLiteFile(content=content, quantization=Quantization.QAT)
    return file, inspect(file).float_operations


class _Exportable:
    """A model with quantizers behind the interface of a Keras 3 model, for `run_converter`.

    Args:
        quantized: the model.
        mode: of its quantizers.
    """

    def __init__(self, quantized: Any, mode: str):
        import keras

        self.name = quantized.name
        self.inputs = [
            keras.KerasTensor(tuple(tensor.shape), tensor.dtype.name, name=f"input_{index}")
            for index, tensor in enumerate(quantized.inputs)
        ]
        self.input = self.inputs
        self._quantized, self._mode = quantized, mode

    def __call__(self, inputs: Any, training: bool = False) -> Any:
        from dcp_tf.tflite.qat.quantizers import quantizers_in

        with quantizers_in(self._mode):
            return self._quantized(inputs, training=training)
