"""A model with the pairs of face images on which it is verified."""

from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.settings.data import MARGINS
from dcp_tf.tools.cli import data_flags, face_flags, model_flags
from dcp_tf.tools.cli.run_record import read_run_record


def load_with_pairs(flags: Any) -> data_flags.ModelAndData:
    """The model with the images of the pairs, on which alone it is measured.

    Raises:
        UsageError: the outputs are no embeddings, or the pairs cannot be used.
    """
    from dcp_tf import data, models, tflite
    from dcp_tf.training.embeddings import Directions
    from dcp_tf.training.verified import Verified

    if flags["dataset"].present:
        raise UsageError("give either --dataset or --pairs: embeddings are measured on the pairs alone")
    face_flags.face_settings(flags)
    pairs, notes = face_flags.read_pairs(flags), []
    if flags.model.endswith(".tflite"):
        runner, normalization, kind = tflite.Runner(flags.model), "none", "logits"
        model, shape = runner.predict, tuple(runner.input_shapes[0][1:])
        outputs = (None, *tflite.inspect(flags.model).outputs[0].shape[1:])
    else:
        loaded = models.load(flags.model, weights=flags.weights, **model_flags.loading_of(flags))
        model, normalization, kind = loaded.model, loaded.normalization, models.outputs_kind(loaded.model)
        data_flags.require_one_input(flags.model, model)
        shape, outputs = tuple(model.inputs[0].shape[1:]), tuple(model.outputs[0].shape)
    _require_embeddings(flags, len(shape) == 3 and kind == "logits", outputs)
    name, mean, std = data_flags.read_normalization(flags, normalization, notes)
    images = face_flags.pair_images(flags, pairs, shape, data.find_normalization(name, mean, std))
    notes.append(f"verified on {pairs.size:,} pairs of {len(pairs.files):,} images ({flags.pairs})")
    dataset = data.ImageDataset(pairs.name, images, images, 0, (), images.shape)
    objective = Verified(Directions(), pairs)
    return data_flags.ModelAndData(
        model, dataset, None, "mean/std" if mean else name, flags.model, tuple(notes), objective
    )


def _require_embeddings(flags: Any, is_linear: bool, outputs: tuple) -> None:
    """Raises UsageError if the outputs are no embeddings of images by the model, its run or a flag."""
    loss = flags.loss if flags["loss"].present else read_run_record(flags.model).loss
    known = loss in ("auto", *MARGINS) and flags.outputs != "probabilities"
    if not is_linear or not known or len(outputs) != 2 or outputs[1] < 2:
        raise UsageError(
            f"--pairs verifies embeddings, but {flags.model} is not an embedding network: its outputs have the shape "
            f"{outputs}" + ("" if loss == "auto" else f", its loss is {loss}")
        )
