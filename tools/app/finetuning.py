"""Fine-tunes a pruned model, with or without its baseline as a teacher."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.files import read_json
from dcp_tf.tools.cli import model_flags, objective_flags, run_flags
from dcp_tf.tools.cli.data_flags import ModelAndData


def teacher_weight(flags: Any, model_and_data: ModelAndData) -> float:
    """The weight of the distillation loss; 0 without a teacher.

    Raises:
        UsageError: there are neither labels nor a teacher, or the loss ignores the teacher.
    """
    from dcp_tf.training import distillation_weight

    weight = distillation_weight(model_and_data.objective.loss, flags.distillation)
    if flags.teacher and not weight:
        raise UsageError("--teacher has no effect: --distillation is 0, or the loss has no distance to a teacher")
    if model_and_data.dataset.train.labels is None and not flags.teacher:
        raise UsageError("the data has no labels: give --teacher=BASELINE")
    return weight if flags.teacher else 0.0


def load_teacher(flags: Any, model_and_data: ModelAndData) -> Any:
    """The model of `--teacher`; None without the flag."""
    if not flags.teacher:
        return None
    from dcp_tf import models
    from dcp_tf.models.signature import with_flat_signature

    shapes, model = {}, model_and_data.model
    if len(model.inputs) == len(model.outputs) == 1:
        shapes = {"input_shape": model_and_data.dataset.input_shape, "num_classes": model.outputs[0].shape[-1]}
    return with_flat_signature(models.load(flags.teacher, **shapes, **model_flags.loading_of(flags)).model)


def pruned_kernel_masks(model: Any, path: str) -> dict:
    """The masks that hold pruned kernels at zero; empty if the plan beside the model removed only channels.

    Args:
        model: the pruned model.
        path: of its file.
    """
    from dcp_tf.graph import kernel_sparsity, zero_kernel_masks

    plan_file = pathlib.Path(path).parent / "plan.json"
    plan = read_json(plan_file) if plan_file.is_file() else None
    if isinstance(plan, dict) and not plan.get("kernels", True):
        return {}
    masks = zero_kernel_masks(model)
    if masks:
        layers = [layer for layer in kernel_sparsity(model) if layer.kept]
        zeros, total = sum(layer.total - layer.kept for layer in layers), sum(layer.total for layer in layers)
        progress.say(f"kept at zero: {zeros:,} of {total:,} kernels in {len(layers)} layers")
    return masks


def fine_tune(
    flags: Any,
    model_and_data: ModelAndData,
    config: Any,
    teacher: Any,
    folder: pathlib.Path,
    masks: Mapping,
    weight: float,
) -> dict[str, Any]:
    """Fine-tunes the model in place; returns the phase for summary.json."""
    from dcp_tf.data import digest, images_per_measurement
    from dcp_tf.training import Distillation, TrainState, finetuning_advice, fit
    from dcp_tf.training.advice import ADVISED

    objective, train, test = model_and_data.objective, model_and_data.dataset.train, model_and_data.dataset.test
    loss, at_once = objective.loss, images_per_measurement(test.shape)
    state = run_flags.kept_training(flags, folder, "finetuning")
    started = time.perf_counter()
    history = fit(
        objective.with_loss_head(model_and_data.model, train),
        train,
        [Distillation(loss, weight) if weight else loss],
        config,
        teacher=None if teacher is None else objective_flags.teacher(objective, teacher, train),
        masks=masks,
        validation=lambda: (
            {} if test.labels is None else objective.evaluate(model_and_data.model, test.batches(at_once))
        ),
        checkpoint=TrainState(state, {"data": digest(train), "teacher": flags.teacher, "distillation": weight}),
        log_dir=str(folder / "events"),
        keep_best=True,
        lr_setting="finetuning.learning_rate",
    )
    phase = history.phase("fine-tuning", time.perf_counter() - started, distillation=weight)
    if line := finetuning_advice(history, config, objective, teacher, train):
        progress.say(line, ADVISED)
        phase["advice"] = progress.with_names(line, ADVISED)
    return phase
