"""Flags that several programs have, and what they stand for."""

import dataclasses
import re
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.files import readable_name
from dcp_tf.settings.data import AUGMENTATIONS, LOSSES
from dcp_tf.settings.normalization import NORMALIZATIONS
from dcp_tf.tools.app import baseline
from dcp_tf.tools.cli import face_flags, image_inputs, joint_outputs, model_flags, objective_flags
from dcp_tf.tools.cli.flags_from_settings import read_numbers
from dcp_tf.tools.cli.program import Program
from dcp_tf.tools.cli.run_record import read_run_record

_OWN_DATA = ("npz:", "python:")  # which may have several inputs and outputs


def define_model(program: Program, about: str = "The model") -> None:
    """`--model` and `--weights`."""
    program.section("Model")
    program.path("model", None, f"{about}: zoo:NAME, keras:NAME (keras.applications) or a path to a .keras / .h5 file.")
    program.path(
        "weights", None, "Weights for zoo:NAME (a file) or keras:NAME (a file, or imagenet); without them at random."
    )
    model_flags.define_model_code(program)


def define_data_source(program: Program) -> None:
    """`--dataset`, where it lies, and how its images get the model's shape."""
    program.section("Data")
    program.path(
        "dataset",
        "digits",
        "digits (comes with scikit-learn), npz:FILE (x_train y_train x_test y_test, labels may be missing; for several "
        "inputs or outputs x_train/NAME, y_train/NAME and so on by their Keras names; w_train: sample weights), "
        "folder:DIR (one folder per class), tfds:NAME (TensorFlow Datasets), faces:DIR (one folder per person, or "
        "TFRecord files of aligned crops) or python:FILE.py:FUNCTION (a function of yours that returns (train, test): "
        "arrays, tf.data or a keras.utils.PyDataset, as the model takes them).",
    )
    program.path("data_dir", None, "For tfds: where TensorFlow Datasets keeps its files.")
    program.enum(
        "augmentation",
        None,
        AUGMENTATIONS,
        "What training does to the images: none; shift: by up to an eighth of their size; mirror: randomly; flip: "
        "shift and mirror; crop: cut photographs of many sizes at random, and mirror. Without the flag crop for such "
        "photographs of TensorFlow Datasets and flip for its others, mirror for faces, shift for all others; none "
        "where a trained model tells far fewer images right then.",
    )
    program.boolean(
        "resize",
        False,
        "For npz, faces and pairs: convert images of another size, and of npz gray instead of RGB, to what the model "
        "takes. Without it they are an error. All other data sets are always converted.",
    )
    face_flags.define_faces(program)


def define_dataset(program: Program) -> None:
    """`--dataset` and how its images are read."""
    define_data_source(program)
    program.enum_by_name(
        "normalization",
        None,
        tuple(NORMALIZATIONS),
        "What the model was trained on. Integer pixels become 0..1 first, floats are taken as they are; then: none: "
        "nothing more; unit: 0..1, also from floats of 0..255; raw: 0..255; digits, cifar10, cifar100, imagenet: "
        "(x - mean) / std of that data set; tf: -1..1; face: (x - 127.5) / 128 of 0..255; caffe: BGR less ImageNet's "
        "mean. Without the flag zoo: and keras: models bring theirs, a model file in the folder of a run too; a model "
        "that takes integers or begins by rescaling 0..255 gets raw; else none. Of several inputs it is for the "
        "images, or by name, as in photo=unit,depth=raw; what is no image is taken as it is.",
    )
    program.list("mean", [], "In place of --normalization: one mean, or one per channel (a,b,c), for pixels of 0..1.")
    program.list("std", [], "Goes with --mean: the standard deviations.")


def define_outputs(program: Program) -> None:
    """`--outputs` and `--loss`."""
    program.enum(
        "outputs",
        None,
        ("logits", "probabilities"),
        "What the model's outputs are. Without the flag this is read off its last activation.",
    )
    define_loss(program)


def define_loss(program: Program) -> None:
    """`--loss`."""
    program.enum(
        "loss",
        "auto",
        LOSSES,
        "What the model learns. auto: read off the last activation and the labels; softmax: one class; sigmoid: one "
        "class, each with a yes / no question of its own; multilabel: several classes at once (rows of 0 and 1); mse: "
        "numbers; arcface, cosface, asoftmax: embeddings (auto: arcface for faces). Labels that are maps, (N, height, "
        "width) or (N, height, width, classes), make it the loss of each place.",
    )


def define_model_and_data(program: Program, about: str = "The model") -> None:
    """The flags of `load_model_and_data`."""
    define_model(program, about)
    define_dataset(program)
    define_outputs(program)
    baseline.define_expected(program)
    face_flags.define_pairs(program)


def define_seed(program: Program, about: str) -> None:
    """`--seed`."""
    program.integer("seed", 0, f"{about} Equal seeds, equal results.", upper=2**32 - 1)


@dataclasses.dataclass(frozen=True)
class ModelAndData:
    """A model with the data it is for.

    Attributes:
        model: the Keras model, or a function from images to outputs.
        dataset: images in the form that the model takes.
        outputs_kind: "logits", "softmax" or "sigmoid"; None where nothing tells and accuracy does not depend on it,
            and for models with several outputs, whose objective has one for each.
        normalization: name of what was done to the pixels, or "mean/std".
        source: what `--model` said.
        notes: what the user should know of how the model and the data were read.
        objective: what the model is for.
        file_model: the model as its file has it, compiled, and with inputs and outputs that may be nested; None:
            `model` itself.
        answers: the classes that "baseline" and "pruned" gave for the test images, see `app.answers`.
    """

    model: Any
    dataset: Any
    outputs_kind: str | None
    normalization: str
    source: str
    notes: tuple[str, ...] = ()
    objective: Any = None
    file_model: Any = None
    answers: dict[str, list] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def compiled(self) -> Any:
        """The model as it was compiled, if it was."""
        return self.file_model or self.model

    def nested(self, model: Any) -> Any:
        """A model with flat inputs and outputs, nested and perhaps compiled as the model in the file."""
        from dcp_tf.models.compiled_like import compiled_like
        from dcp_tf.models.signature import with_signature_of

        return compiled_like(with_signature_of(model, self.compiled), self.compiled)

    def __post_init__(self):
        object.__setattr__(self, "source", readable_name(self.source))

    def announce(self) -> None:
        """Says the notes; programs do so once nothing is left that could be wrong with the input."""
        from dcp_tf import progress

        for note in self.notes:
            progress.say(note)


def load_model_and_data(flags: Any) -> ModelAndData:
    """The model and the data set that the flags name, fitted to each other.

    Raises:
        UsageError: one of them cannot be used, or they do not fit.
    """
    from dcp_tf.models.functional import functional_graph
    from dcp_tf.models.signature import with_flat_signature

    if not flags.model:
        raise UsageError("say which model: --model=zoo:NAME, keras:NAME or a path to a .keras file")
    loaded = _load_model(flags)
    if not flags.dataset.startswith(_OWN_DATA):
        require_one_input(flags.model, loaded.model)
    notes = model_flags.compile_model(flags, loaded.model)
    if flags.model.startswith(("zoo:", "keras:")) and flags.weights is None:
        notes.append(f"{flags.model} starts from random weights; --weights=FILE brings trained ones")
    if "reload_check" in flags:
        notes += model_flags.notes_on(flags, loaded.model)
    if "unfreeze" in flags:
        _unfreeze(flags, loaded.model, notes)
    shape = tuple(loaded.model.inputs[0].shape[1:])
    of_the_model = objective_flags.of_cifar100(_normalization_of(flags, loaded, notes), flags.model, flags.dataset)
    dataset, normalization = load_dataset(flags, shape, of_the_model, notes, len(loaded.model.inputs))
    model = file_model = loaded.model
    if functional_graph(model) is not None:  # else its inputs and outputs have no names
        model = with_flat_signature(model)
        dataset = joint_outputs.bind(dataset, model, notes)
        if len(model.inputs) > 1 and flags.dataset.startswith("npz:"):
            chosen = read_normalization(flags, "none", notes)
            dataset, normalization = image_inputs.normalize(flags, model, dataset, chosen, notes)
    if len(model.outputs) == 1:
        kind = _outputs_kind(flags, model, notes)
        objective, dataset = objective_flags.read(flags, kind, model, dataset, notes, file_model)
    else:
        kind, objective = None, joint_outputs.read(flags, file_model, model, dataset, notes)
    model_and_data = ModelAndData(model, dataset, kind, normalization, flags.model, tuple(notes), objective, file_model)
    model_and_data = face_flags.with_pairs(flags, model_and_data) if "pairs" in flags else model_and_data
    if "expected" in flags and model_and_data.objective is not None:
        baseline.read_expected(flags, model_and_data.objective.primary)
    return model_and_data


def _load_model(flags: Any) -> Any:
    """The model; one whose file does not say what it takes is called with inputs of the shapes of the data."""
    import keras

    from dcp_tf import data, models
    from dcp_tf.models.retrace_inputs import UnknownInputs

    arguments = {"weights": flags.weights, **_zoo_shape(flags), **model_flags.loading_of(flags)}
    try:
        return models.load(flags.model, **arguments)
    except UnknownInputs:
        if flags.dataset.startswith("npz:"):
            train = data.load_arrays(flags.dataset.removeprefix("npz:")).train
        else:
            train = data.load(flags.dataset, seed=flags.seed, data_dir=flags.data_dir).train
        shapes = iter(train.shapes)
        spec = keras.tree.map_structure(lambda _: tuple(next(shapes)), train._spec()[0])
        return models.load(flags.model, input_spec=spec, **arguments)


def require_one_input(source: str, model: Any) -> None:
    """Raises UsageError where a model has several inputs; it says what can be done with such a model."""
    if len(model.inputs) == 1:
        return
    names = ", ".join(tensor.name for tensor in model.inputs)
    images = [number for number, tensor in enumerate(model.inputs) if len(tensor.shape) == 4]
    trained_with_labels = len(images) == 1 and all(len(tensor.shape) in (1, 2, 4) for tensor in model.inputs)
    raise UsageError(
        f"{source} has {len(model.inputs)} inputs ({names}), the data one value for each label: "
        + (
            "if its loss reads labels as an input, give the part that gives embeddings or logits alone, "
            f"keras.Model(model.inputs[{images[0]}], model.get_layer(NAME).output).save('x.keras'); else "
            if trained_with_labels
            else ""
        )
        + "give --dataset=npz:FILE with an array for each input (x_train/NAME), or python:FILE.py:FUNCTION"
    )


def _unfreeze(flags: Any, model: Any, notes: list[str]) -> None:
    """Frees frozen layers where that is asked for; where it is not, a note says that they stay as they are.

    Raises:
        UsageError: all are frozen, and there are epochs to train.
    """
    layers = [layer for layer in model._flatten_layers(include_self=False) if layer._trainable_variables]
    frozen = sum(not layer.trainable for layer in layers)
    if flags.unfreeze:
        for layer in model._flatten_layers():  # each: Keras does not reach through a model that calls itself trainable
            layer.trainable = True
        notes.append(f"{frozen} frozen layers are trained too" if frozen else "--unfreeze: no layer was frozen")
    elif frozen == len(layers) > 0 and flags.finetune_epochs:
        raise UsageError(
            "all layers of the model are frozen (trainable=False): --unfreeze trains them, --finetune_epochs=0 leaves "
            "the training out"
        )
    elif frozen:
        notes.append(
            f"{frozen} of {len(layers)} layers are frozen (trainable=False): they lose channels, but no training heals "
            "them; --unfreeze trains them too"
        )


def load_dataset(flags: Any, shape: tuple, of_the_model: str, notes: list[str], inputs: int = 1) -> tuple[Any, str]:
    """The data set in the shape that a model takes, and the name of its normalization.

    Args:
        flags: say which data set and, perhaps, which normalization.
        shape: (H, W, C) of the model's input, None where it is open.
        of_the_model: the normalization that the model brings, or "none".
        notes: gets a line where the normalization was found in the summary of a run.
        inputs: how many the model has; several are taken as they are.

    Raises:
        UsageError: the data set cannot be used, or does not fit the model.
    """
    from dcp_tf import data

    if flags.dataset.startswith("python:") or inputs > 1 or len(shape) != 3:
        dataset = _load_plain(flags, shape, inputs)
        notes += dataset.notes
        return dataset, "none"
    name, mean, std = read_normalization(flags, of_the_model, notes)
    if "=" in name:
        raise UsageError(f"--normalization={name} is for several inputs; the model has one: --normalization=NAME")
    dataset = data.load(
        flags.dataset,
        input_shape=shape,
        normalization=name,
        mean=mean,
        std=std,
        seed=flags.seed,
        data_dir=flags.data_dir,
        augmentation=flags.augmentation,
        faces=face_flags.face_settings(flags),
    )
    notes += dataset.notes
    if not flags.model.startswith("zoo:"):  # which are built for the data
        check_shape(flags, dataset)
    return dataset, "mean/std" if mean else name


def _load_plain(flags: Any, shape: tuple, inputs: int) -> Any:
    """Data that are taken as they are: of a user's function, of several inputs, or for a model that takes no images."""
    from dcp_tf import data

    what = f"inputs of shape {shape}" if inputs == 1 else f"{inputs} inputs"
    if not flags.dataset.startswith(_OWN_DATA):
        raise UsageError(
            f"the model takes {what}, which is no image; give --dataset=npz:FILE or python:FILE.py:FUNCTION"
        )
    is_file = flags.dataset.startswith("npz:")
    if not is_file or inputs == 1:
        if flags.normalization not in (None, "none") or flags.mean or flags.augmentation not in (None, "none"):
            what = what if is_file else f"the data of {flags.dataset}"
            raise UsageError(f"{what} are taken as they are: leave out normalization and augmentation")
    elif flags.augmentation not in (None, "none"):
        raise UsageError(f"{what} are not augmented: leave out augmentation", "augmentation")
    dataset = data.load_arrays(flags.dataset.removeprefix("npz:")) if is_file else data.load(flags.dataset)
    dataset = dataset if inputs == 1 else dataclasses.replace(dataset, notes=())
    given = dataset.input_shape
    if inputs == 1 and (len(given) != len(shape) or any(s not in (None, n) for s, n in zip(shape, given, strict=True))):
        raise UsageError(f"the inputs in {flags.dataset} have the shape {given}, the model takes {shape}")
    return dataset


def check_shape(flags: Any, dataset: Any) -> None:
    """Raises UsageError where the user's own arrays are of another shape than the model takes."""
    if flags.resize or not flags.dataset.startswith("npz:"):
        return
    images, taken = dataset.train.source.shape, dataset.input_shape
    if images != taken:
        raise UsageError(
            f"the images in {flags.dataset.removeprefix('npz:')} have the shape {images}, but the model takes {taken}; "
            "--resize converts them"
        )


def _outputs_kind(flags: Any, model: Any, notes: list[str]) -> str:
    """What the model's outputs are; what is read off the model is noted."""
    from dcp_tf import models

    kind = models.outputs_kind(model)
    if flags.outputs is None:
        notes.append(f"outputs: {kind} (from the last activation; --outputs overrides)")
        return kind
    if flags.outputs == "logits":
        return "logits"
    return "sigmoid" if model.outputs[0].shape[-1] == 1 or kind == "sigmoid" else "softmax"


def read_normalization(flags: Any, of_the_model: str, notes: list[str]) -> tuple[str, Any, Any]:
    """Name, mean and std: what the flags say, else what the model brings, else what the model's run wrote down.

    The name may be `INPUT=NAME,...` for a model of several inputs.
    """
    mean, std = (read_numbers(name, flags[name].value) or None for name in ("mean", "std"))
    if mean or std:
        if flags.normalization not in (None, "none"):
            raise UsageError(f"give either --normalization={flags.normalization} or --mean and --std, not both")
        return "none", mean, std
    if flags.normalization is not None or of_the_model != "none":
        return flags.normalization or of_the_model, None, None
    record = read_run_record(flags.model)
    if record.mean or not re.fullmatch(r"(.+=)?none(,.+=none)*", record.normalization or "none"):
        if record.mean:  # what this run writes down shall tell the next one
            flags.mean, flags.std = ([str(x) for x in values] for values in (record.mean, record.std))
        shown = f"mean {record.mean}, std {record.std}" if record.mean else record.normalization
        notes.append(f"normalization: {shown} (from {record.path}; --normalization overrides)")
    return record.normalization or "none", record.mean, record.std


def _normalization_of(flags: Any, loaded: Any, notes: list[str]) -> str:
    """The normalization that a model brings; what is read off its first layer is noted."""
    from dcp_tf import models

    record = read_run_record(flags.model)
    is_told = flags.normalization is not None or flags.mean or flags.std or record.normalization or record.mean
    if loaded.normalization != "none" or is_told or len(loaded.model.inputs[0].shape) != 4:
        return loaded.normalization
    reason = models.takes_raw_pixels(loaded.model)
    if reason is None:
        return "none"
    notes.append(f"pixels: 0 to 255 ({reason}; --normalization overrides)")
    return "raw"


def _zoo_shape(flags: Any) -> dict[str, Any]:
    """Networks that are built here take the shape and the number of classes from the data set."""
    if not flags.model.startswith("zoo:"):
        return {}
    from dcp_tf import data

    faces = face_flags.face_settings(flags)
    side = flags.image_size if "image_size" in flags else None
    size = None if side is None else (side, side, None)
    raw = data.load(flags.dataset, input_shape=size, seed=flags.seed, data_dir=flags.data_dir, faces=faces)
    return {
        "input_shape": zoo_input_shape(raw.input_shape),
        "num_classes": objective_flags.outputs_for(flags.model, raw),
    }


def zoo_input_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The size at which our networks see images: very small ones are enlarged so that three stages make sense."""
    height, width, channels = shape
    if height <= 4 < min(width, channels):
        raise UsageError(f"images of shape {shape} have their channels first; numpy.moveaxis(x, 1, -1) puts them last")
    factor = max(1, -(-16 // min(height, width)))
    return height * factor, width * factor, channels
