"""A teacher in a training of the user's own: as a `keras.distillation.Distiller`, or as a loss for any loop."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from dcp_tf.errors import UsageError, checks_arguments, first_line
from dcp_tf.models.compiled_like import compile_arguments
from dcp_tf.models.outputs import kind_of_tensor
from dcp_tf.training.compiled import by_output
from dcp_tf.training.losses import ClassificationLoss, Distillation, MeanSquaredError

_TEMPERATURE = Distillation(MeanSquaredError()).temperature


@keras.saving.register_keras_serializable("dcp_tf")
class TeacherDistance(keras.distillation.DistillationLoss):
    """How far a student's outputs are from its teacher's, summed over the outputs.

    Args:
        kinds: of each output in the order of `model.outputs`: "softmax", "sigmoid" and "logits" are compared as
            probabilities (Hinton et al. 2015), "binary" as those of independent logits, "numbers" by squared errors.
        weights: one for each output.
        temperature: which softens the probabilities of both.
    """

    def __init__(self, kinds: tuple[str, ...], weights: tuple[float, ...], temperature: float = _TEMPERATURE):
        self.kinds, self.weights, self.temperature = tuple(kinds), tuple(weights), temperature

    @classmethod
    def of(cls, student: keras.Model, temperature: float = _TEMPERATURE) -> "TeacherDistance":
        """Compares the outputs of a model as its last activations and the losses say that it is compiled with."""
        config = compile_arguments(student)
        losses = by_output(config.get("loss"), student, "loss")
        weights = by_output(config.get("loss_weights"), student, "loss_weights")
        kinds = (_kind(kind_of_tensor(x), loss) for x, loss in zip(student.outputs, losses, strict=True))
        return cls(tuple(kinds), tuple(1.0 if weight is None else float(weight) for weight in weights), temperature)

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **_: Any) -> tf.Tensor:
        """The weighted sum of the outputs' distances, each a mean over the batch."""
        pairs = zip(self.kinds, self.weights, tree.flatten(teacher_outputs), tree.flatten(student_outputs), strict=True)
        return tf.add_n([weight * self._distance(kind, teacher, student) for kind, weight, teacher, student in pairs])

    def _distance(self, kind: str, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
        if kind == "numbers":
            return MeanSquaredError().distance(teacher, student, self.temperature)
        loss = ClassificationLoss("logits" if kind == "binary" else kind, independent=kind in ("binary", "sigmoid"))
        return loss.distance(loss.as_probabilities(teacher), student, self.temperature)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"kinds": self.kinds, "weights": self.weights, "temperature": self.temperature}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "TeacherDistance":
        """The inverse of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable("dcp_tf")
class Distiller(keras.distillation.Distiller):
    """Keras' `Distiller` with sample weights, class weights and the weights of several losses; see `distiller`.

    It leaves the teacher as it is (Keras' freezes it), counts its weights as no weights to train, and takes batches
    without labels, on which only the teacher teaches.
    """

    def __init__(self, teacher: keras.Model, student: keras.Model, distillation_losses: Any, **settings: Any):
        trainable = [(layer, layer.trainable) for layer in (teacher, *teacher._flatten_layers(include_self=False))]
        try:
            super().__init__(teacher, student, distillation_losses, **settings)
        finally:
            for layer, is_trainable in trainable:
                layer.trainable = is_trainable
        if hasattr(student, "output_names"):
            self.output_names = student.output_names

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, **settings: Any) -> None:
        """As `keras.Model.compile`; the loss is that of the labels."""
        keras.Model.compile(self, optimizer=optimizer, loss=loss, **settings)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor:
        """`student_loss_weight * loss + (1 - student_loss_weight) * distance`; regularization counts whole."""
        distance = self.distillation_losses[0].compute_loss(self.teacher(x, training=False), y_pred)
        loss = distance if y is None else self._compile_loss(y, y_pred, sample_weight)
        total = self.student_loss_weight * loss + (1.0 - self.student_loss_weight) * distance
        self.student_loss_tracker.update_state(loss)
        self.distillation_loss_tracker.update_state(distance)
        total += sum(tf.cast(penalty, total.dtype) for penalty in self.student.losses)
        self.total_loss_tracker.update_state(total)
        return total

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """Those of the student."""
        return self.student.trainable_weights

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """Those of the student."""
        return self.student.trainable_variables


@checks_arguments
def distiller(
    student: keras.Model, teacher: keras.Model, *, weight: float = 0.5, temperature: float = _TEMPERATURE
) -> Distiller:
    """A model whose `fit` trains `student` on labels and on what `teacher` answers, compiled as the student is.

        result = dcp_tf.prune(model, data, dcp_tf.DCP(rate=0.5), finetuning=None)
        small = result.model
        dcp_tf.distiller(small, teacher=model).fit(images, labels, epochs=5)  # afterwards `small` is trained

    Classes are compared as probabilities, numbers by squared errors, which the last activations and the compiled losses
    tell; several outputs count with their loss weights.

    Args:
        student: compiled, and trained in place.
        teacher: with the same inputs and outputs; it stays as it is.
        weight: of the teacher, 0 to 1; labels have the rest.
        temperature: which softens the probabilities.

    Returns:
        A `keras.distillation.Distiller`. Compile it again for another optimizer or loss.

    Raises:
        UsageError: the student is not compiled, or the models do not fit each other.
    """
    config = compile_arguments(student)
    _check(student, teacher, weight, temperature)
    if not config.get("loss"):
        raise UsageError(
            f"{student.name!r} is not compiled with a loss; compile it, or use dcp_tf.distill in your loop"
        )
    distance = TeacherDistance.of(student, temperature)
    try:
        distilling = Distiller(teacher, student, distance, student_loss_weight=1.0 - weight)
    except ValueError as error:
        raise UsageError(f"student and teacher do not fit: {first_line(error)}") from error
    distilling.compile(**config)
    return distilling


@checks_arguments
def distill(
    student: keras.Model, teacher: keras.Model, *, weight: float = 0.5, temperature: float = _TEMPERATURE
) -> Callable[..., tf.Tensor]:
    """The loss of `distiller` for any loop.

        loss = dcp_tf.distill(small, model)
        with tf.GradientTape() as tape:
            value = loss(images, labels, small(images, training=True))

    Args:
        student: as for `distiller`; one that is not compiled learns from the teacher alone.
        teacher: as for `distiller`.
        weight: of the teacher, 0 to 1; labels have the rest.
        temperature: which softens the probabilities.

    Returns:
        A function of inputs, labels (or None), the student's outputs and sample weights (or None) to a scalar.

    Raises:
        UsageError: the models do not fit each other.
    """
    _check(student, teacher, weight, temperature)
    distance = TeacherDistance.of(student, temperature)
    is_compiled = bool(compile_arguments(student).get("loss"))

    def loss(inputs: Any, labels: Any, outputs: Any, sample_weight: Any = None) -> tf.Tensor:
        of_teacher = distance.compute_loss(teacher(inputs, training=False), outputs)
        of_teacher += sum(tf.cast(penalty, of_teacher.dtype) for penalty in student.losses)  # which that of labels has
        if labels is None:
            return of_teacher
        if not is_compiled:
            raise UsageError(f"{student.name!r} is not compiled with a loss: compile it, or give no labels")
        of_labels = student.compute_loss(inputs, labels, outputs, sample_weight, training=True)
        return (1.0 - weight) * of_labels + weight * of_teacher

    return loss


def _check(student: Any, teacher: Any, weight: Any, temperature: Any) -> None:
    for name, model in (("student", student), ("teacher", teacher)):
        if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
            raise UsageError(f"{name} must be a functional or built Sequential keras.Model, received {model!r:.80}")
    if student is teacher:
        raise UsageError("student and teacher are one model: give the one that was there before pruning as the teacher")
    shapes = [[tuple(x.shape[1:]) for x in (*m.inputs, *m.outputs)] for m in (student, teacher)]
    if shapes[0] != shapes[1]:
        raise UsageError(f"student and teacher have other inputs or outputs: {shapes[0]} and {shapes[1]}")
    Distillation(MeanSquaredError(), _number(weight, "weight"), _number(temperature, "temperature"))


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{name} must be a number, received {value!r:.80}")
    return float(value)


def _kind(kind: str, loss: Any) -> str:
    """How an output is compared: by its last activation, and where that is none by its loss."""
    if kind != "logits":
        return kind
    name = str(getattr(loss, "name", None) or getattr(loss, "__name__", loss)).lower()
    if "crossentropy" not in name:
        return "numbers"
    return "binary" if "binary" in name else "logits"
