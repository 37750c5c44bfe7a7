"""Flags for faces: which people are read, and the pairs on which embeddings are verified."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from dcp_tf.errors import UsageError
from dcp_tf.settings.data import PROTOCOLS
from dcp_tf.tools.cli.flags_from_settings import read_numbers
from dcp_tf.tools.cli.program import Program

_PEOPLE = ("min_images", "keep_identities", "leave_out_identities", "landmarks")
_PAIRS = ("pairs_root", "pairs_protocol", "pairs_folds")
_LANDMARKS_FILE = "landmarks.txt"


def define_faces(program: Program) -> None:
    """Which people of `faces:DIR` are read, and how."""
    program.integer("min_images", 2, "For faces: people with fewer images are left out.", lower=2)
    program.path("keep_identities", None, "For faces: a file with the names of the only people to read, one a line.")
    program.path("leave_out_identities", None, "For faces: a file with the names of people to leave out, one a line.")
    program.path(
        "landmarks",
        None,
        "For faces and pairs: a file with lines IMAGE x1 y1 ... x5 y5 (eyes, nose, corners of the mouth) by which the "
        "images are aligned; IMAGE is a path relative to the folder of this file. Without the flag landmarks.txt in "
        "the folder of the images, else they are aligned.",
    )


def define_pairs(program: Program) -> None:
    """On which pairs embeddings are verified."""
    program.section("Face verification")
    program.path(
        "pairs",
        None,
        "A list of pairs of faces: models are measured by the share of pairs that the cosine of the embeddings (image "
        "and mirror image joined) tells right, the threshold of each fold being that of the other folds. Of faces: in "
        "the folder of the pairs, people who are in the pairs are not trained on.",
    )
    program.path("pairs_root", None, "The folder of the images that the list names.")
    program.enum("pairs_protocol", "lfw", PROTOCOLS, "What the list looks like.")
    program.list("pairs_folds", [], "The only folds of the list to use, such as 9,10; without it all.")


def face_settings(flags: Any) -> Any:
    """The `dcp_tf.data.FaceSettings` that the flags say; None where the data set is none of faces.

    Raises:
        UsageError: flags for faces come with another data set, or a list of people cannot be read.
    """
    if not flags.dataset.startswith("faces:"):
        with_pairs = "pairs" in flags and flags.pairs
        given = [name for name in _PEOPLE if flags[name].present and not (name == "landmarks" and with_pairs)]
        if given:
            raise UsageError(f"--{given[0]} goes with --dataset=faces:DIR, received --dataset={flags.dataset}")
        return None
    from dcp_tf import data

    kept = None if flags.keep_identities is None else data.read_identities(flags.keep_identities)
    left_out = () if flags.leave_out_identities is None else data.read_identities(flags.leave_out_identities)
    # Networks of ours are built for the size of the faces, or for a multiple of it where they are tiny.
    resize = flags.resize or str(flags.model).startswith("zoo:")
    settings = data.FaceSettings(flags.min_images, kept, left_out, flags.landmarks, resize)
    if "pairs" not in flags or not flags.pairs:
        return settings
    pairs = read_pairs(flags)
    if pairs.identities is None or not _is_same_folder(flags.dataset.removeprefix("faces:"), flags.pairs_root):
        return settings
    people = pairs.people(pairs.fold.tolist())
    return dataclasses.replace(settings, leave_out=tuple(sorted({*left_out, *people})))


def read_pairs(flags: Any) -> Any:
    """The `dcp_tf.data.Pairs` that the flags name, the chosen folds alone.

    Raises:
        UsageError: list or images are missing, or fewer than two folds remain.
    """
    from dcp_tf import data

    if not flags.pairs_root:
        raise UsageError("--pairs needs --pairs_root=DIR, the folder of the images that the list names")
    pairs = data.read_pairs(flags.pairs, flags.pairs_root, flags.pairs_protocol)
    if flags.pairs_folds:
        pairs = pairs.take_folds(list(read_numbers("pairs_folds", flags.pairs_folds, int)))
    if len(np.unique(pairs.fold)) < 2:
        raise UsageError(
            f"verification needs two folds or more, the threshold of each comes from the others; {flags.pairs} gives "
            f"fold {pairs.fold[0]} alone: add one to --pairs_folds"
        )
    return pairs


def with_pairs(flags: Any, model_and_data: Any) -> Any:
    """The model and its data, measured on `--pairs` where they are given: their images become the test images.

    The faces that were set aside for testing are learned from then.

    Raises:
        UsageError: the model gives no embeddings, pairs cannot be read, or nothing can be measured.
    """
    require_pairs(flags)
    if not flags.pairs:
        _check_recall(model_and_data)
        return model_and_data
    _require_embeddings(flags, model_and_data.objective)
    from dcp_tf.training.verified import Verified

    dataset, notes, pairs = model_and_data.dataset, list(model_and_data.notes), read_pairs(flags)
    train = dataset.train
    if flags.dataset.startswith("faces:"):
        train = _joined(train, dataset.test)
        if pairs.identities is not None and _is_same_folder(flags.dataset.removeprefix("faces:"), flags.pairs_root):
            notes.append("the people of the pairs are left out of the training images")
        elif known := set(pairs.identities or ()) & set(dataset.class_names):
            notes.append(
                f"{len(known)} people of the pairs are learned too, such as {min(known)}, so that their verification "
                "is none of strangers; --leave_out_identities leaves them out"
            )
    test = pair_images(flags, pairs, dataset.input_shape, train.normalization)
    objective = Verified(model_and_data.objective, pairs)
    notes.append(f"verified on {pairs.size:,} pairs of {len(pairs.files):,} images ({flags.pairs})")
    dataset = dataclasses.replace(dataset, train=train, test=test)
    return dataclasses.replace(model_and_data, dataset=dataset, objective=objective, notes=tuple(notes))


def require_pairs(flags: Any) -> None:
    """Raises UsageError where flags speak of pairs and none are given."""
    for name in _PAIRS:
        if not flags.pairs and flags[name].present:
            raise UsageError(f"--{name} goes with --pairs=FILE")


def pair_images(flags: Any, pairs: Any, shape: tuple, normalization: Any) -> Any:
    """The images of pairs as a `dcp_tf.data.ImageSplit`; labels are the people, as far as the list names them.

    Raises:
        UsageError: the images are of another size, or cannot be read.
    """
    from dcp_tf import data

    landmarks = flags.landmarks
    if landmarks is None and (pathlib.Path(flags.pairs_root) / _LANDMARKS_FILE).is_file():
        landmarks = str(pathlib.Path(flags.pairs_root) / _LANDMARKS_FILE)
    images = data.pairs_split(
        pairs, input_shape=shape, normalization=normalization, landmarks=landmarks, resize=flags.resize
    )
    people = range(images.size) if pairs.identities is None else np.unique(pairs.identities, return_inverse=True)[1]
    return images.with_labels(np.asarray(people, np.int32))


def _require_embeddings(flags: Any, objective: Any) -> None:
    from dcp_tf.training import Directions, Embedding

    if not isinstance(objective, Embedding | Directions):
        kind = "several outputs" if objective is None else objective.describe()
        raise UsageError(
            f"--pairs verifies embeddings, but {flags.model} is not an embedding network ({kind}): if its outputs are "
            "embeddings, give --loss=arcface; if they tell people apart, give the part below them, "
            "keras.Model(model.inputs[0], model.get_layer(NAME).output).save('x.keras')"
        )


def _check_recall(model_and_data: Any) -> None:
    """Raises UsageError where no person has two test images, so that no image has a neighbor to find."""
    from dcp_tf.training import Directions, Embedding

    labels = model_and_data.dataset.test.labels
    if labels is None or not isinstance(model_and_data.objective, Embedding | Directions):
        return
    if np.unique(labels, return_counts=True)[1].max() < 2:
        raise UsageError(
            f"{model_and_data.dataset.name} has no two test images of one class, so embeddings cannot be measured; "
            "give --pairs to verify them, or more images of each person"
        )


def _joined(train: Any, test: Any) -> Any:
    """The images of two splits that were taken from one, by `take`."""
    from dcp_tf.data.pixel_sources import ArraySource

    first, second = train.source, test.source
    part = "chosen" if isinstance(first, ArraySource) else "keys"
    source = dataclasses.replace(first, **{part: np.concatenate([getattr(first, part), getattr(second, part)])})
    return dataclasses.replace(train, source=source, labels=np.concatenate([train.labels, test.labels]))


def _is_same_folder(first: str, second: str) -> bool:
    return pathlib.Path(first).resolve() == pathlib.Path(second).resolve()
