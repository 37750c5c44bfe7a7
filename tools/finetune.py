r"""Fine-tunes a pruned model further, with or without its baseline as a teacher.

    dcp-tf finetune --model=runs/mine/pruned.keras --dataset=npz:my_data.npz --finetune_epochs=20 \
        --teacher=runs/mine/baseline.keras --output_dir=runs/mine_longer

Kernels that pruning has set to zero (dkp and its variants) stay zero.
--output_dir receives the model as pruned.keras, with summary.json, events/ (TensorBoard) and state/ (for --resume).
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import time

from dcp_tf.errors import RunError, UsageError
from dcp_tf.tools.app import baseline, unlabelled
from dcp_tf.tools.cli import data_flags, model_flags, pruning_flags, run_flags
from dcp_tf.tools.cli.class_weight_flag import define_class_weight, weigh_classes
from dcp_tf.tools.cli.program import Program
from dcp_tf.tools.cli.training_flags import optimizer_of, read_training

PROGRAM = Program("finetune", __doc__)
data_flags.define_model_and_data(PROGRAM, "The pruned model")
PROGRAM.section("Fine-tuning")
PROGRAM.path("teacher", None, "The baseline as a teacher for distillation: a path to a .keras / .h5 file.")
pruning_flags.define_finetuning(PROGRAM)
define_class_weight(PROGRAM)
run_flags.define_run(PROGRAM, "Where the model (pruned.keras) and its summary go.")
model_flags.define_reload_check(PROGRAM)


def main(flags) -> None:
    """Fine-tunes and writes pruned.keras with its summary."""
    started = time.time()
    run_flags.require_folder(flags, "the model")
    if flags.distillation and not flags.teacher:
        raise UsageError("--distillation needs --teacher=BASELINE")
    from dcp_tf import progress
    from dcp_tf.tools.app import augmentation_check, finetuning, run_summary
    from dcp_tf.tools.app.reload_check import check_custom_layers_reload, reload_records
    from dcp_tf.training import save_model
    from dcp_tf.training.optimizer import with_compiled_optimizer

    model_and_data = weigh_classes(flags, data_flags.load_model_and_data(flags))
    weight = finetuning.teacher_weight(flags, model_and_data)
    config = read_training(flags, "finetuning")
    if config.epochs:
        config = with_compiled_optimizer(config, model_and_data.compiled, "fine-tuning")
    teacher = finetuning.load_teacher(flags, model_and_data)
    check_custom_layers_reload(model_and_data.model, model_and_data.dataset)
    folder, _ = run_flags.open_folder(flags, strategy=None)
    run_flags.record_flags(PROGRAM, flags, folder)
    what = "teacher" if teacher else "model"
    baseline_check = baseline.report_baseline(flags, model_and_data, model=teacher, what=what, is_trained=True)
    model_and_data = augmentation_check.drop_harmful_augmentation(flags, model_and_data, teacher)
    model_and_data.announce()
    model, dataset, objective = model_and_data.model, model_and_data.dataset, model_and_data.objective
    masks = finetuning.pruned_kernel_masks(model, flags.model)
    known = run_summary.known_figures(baseline_check) if teacher is None else None
    before = run_summary.measure_model(model, dataset, objective, known)
    reference = None if teacher is None else unlabelled.reference(teacher, dataset, objective)
    metric = objective.primary if reference is None else reference.metric
    before |= {} if reference is None else reference.compare(model)
    if teacher is not None and metric in before:
        progress.say(f"before fine-tuning: {metric} {before[metric]:.4f}")
    phase = finetuning.fine_tune(flags, model_and_data, config, teacher, folder, masks, weight)
    path = save_model(model_and_data.nested(model), folder / "pruned.keras")
    after = run_summary.measure_model(model, dataset, objective, count_zero_kernels=bool(masks))
    after |= {} if reference is None else reference.compare(model)
    names = [name for name in {metric: None, **dict.fromkeys(objective.primaries)} if name in before]
    after |= {f"{name}_before_finetuning": before[name] for name in names}
    failures = []
    reloaded = reload_records(folder, {"pruned": model}, dataset, flags, failures)
    content = {"pruned": after, "reload_check": reloaded, "failures": failures, "phases": [phase], "metric": metric}
    content |= {} if reference is None else reference.for_summary()
    resolved = {"distillation": weight, **(optimizer_of(config) if config.epochs else {})}
    run_summary.write_summary(folder, started, model_and_data, flags, resolved, baseline_check, **content)
    run_flags.record_flags(PROGRAM, flags, folder, finished=True)
    progress.say(f"written to {folder}: flags.txt, pruned.keras, summary.json")
    nan = float("nan")
    print(f"{path}: {metric} {before.get(metric, nan):.4f} -> {after.get(metric, nan):.4f}")
    if failures:
        raise RunError("; ".join(failures))


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
