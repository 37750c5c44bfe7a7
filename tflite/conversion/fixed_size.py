"""Models of open input sizes, made for the sizes of some data."""

from collections.abc import Sequence
from typing import Any


def with_fixed_size(model: Any, shapes: Sequence[Sequence[int]]) -> Any:
    """The model for inputs of one size, because TFLite needs fixed sizes; it shares all layers.

    Args:
        model: functional or Sequential.
        shapes: of each input, without the batch axis.

    Returns:
        `model` itself where its sizes are fixed.
    """
    import keras

    from dcp_tf.graph.trace import Trace
    from dcp_tf.models.signature import input_names, output_names, pack

    if all(None not in tensor.shape[1:] for tensor in model.inputs):
        return model
    # Called layer by layer, so that groups and layers keep their names.
    trace = Trace(model)
    inputs = pack([keras.Input(tuple(shape), dtype=x.dtype) for shape, x in zip(shapes, model.inputs, strict=True)])
    values = trace.run(trace.bind_inputs(inputs), trace.outputs)
    fixed = keras.Model(inputs, trace.pack_outputs(values), name=model.name)
    fixed._names_of_signature = input_names(model), output_names(model)
    return fixed
