"""Plants named faults in a copy of the checkout, one at a time, and prints which of them the tests catch.

    python tests/planted_faults.py                 all of them, some minutes
    python tests/planted_faults.py --only=rounding those whose name matches a regular expression

A fault is a text of the package that is replaced, wherever the text lies now, and the tests that must fail then, by
their names. Exit code 1: a fault was not caught, or it can no longer be planted.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import sys
import tempfile

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ("dcp_tf", "tools", "tflite", "experiments")
REST = ("tests", "pyproject.toml", "setup.py", "README.md", "WORKSPACE.md")


@dataclasses.dataclass(frozen=True)
class Fault:
    """One change for the worse.

    Attributes:
        name: what is wrong then.
        text: stands once in the package.
        fault: takes its place.
        tests: names of test functions, with [parameters] where one of many is enough.
    """

    name: str
    text: str
    fault: str
    tests: tuple[str, ...]

    def __init__(self, name: str, text: str, fault: str, *tests: str):
        for field, value in (("name", name), ("text", text), ("fault", fault), ("tests", tests)):
            object.__setattr__(self, field, value)


DEFAULTS = (
    Fault(
        "fine-tuning begins at twice the rate",
        "FINETUNING = TrainConfig(epochs=10, learning_rate=Default(0.01)",
        "FINETUNING = TrainConfig(epochs=10, learning_rate=Default(0.02)",
        "test_the_trainings_of_prune_in_python",
    ),
    Fault(
        "widths are multiples of 8",
        "round_to: int = setting(\n        16,",
        "round_to: int = setting(\n        8,",
        "test_the_methods_in_python",
    ),
    Fault(
        "a method is not registered",
        "@register_importance\nclass Taylor(",
        "class Taylor(",
        "test_every_method_can_be_asked_for_by_name",
    ),
)
GRAPH = (
    Fault(
        "a sum does not tie its channels",
        "            call.tie(joined, labels)\n            joined = np.broadcast_to(call.plainer",
        "            joined = np.broadcast_to(call.plainer",
        "test_the_groups_of_every_kind_alone_are_the_declared_ones[add]",
    ),
    Fault(
        "small groups are pinned",
        "if reason is None and (len(classes) == 1 or fixed):",
        "if reason is None and (len(classes) <= 4 or fixed):",
        "test_the_groups_of_every_kind_alone_are_the_declared_ones[conv]",
    ),
    Fault(
        "a shuffle frees the wrong axis",
        "if a != axis][-1:]",
        "if a != axis][:1]",
        "test_channel_shuffle_keeps_equal_groups",
    ),
    Fault(
        "logits of smaller heads grow",
        "factor = math.sqrt(size / dense.kernel.shape[-1])",
        "factor = 1.0",
        "test_the_scale_of_the_logits_stays",
    ),
    Fault(
        "heads keep different numbers of channels",
        "if len(counts) and (counts.min() != counts.max() or",
        "if len(counts) and (",
        "test_the_heads_of_a_layer_keep_other_channels_but_as_many",
    ),
    Fault(
        "depthwise channels come in another order",
        "channels_out = np.repeat(channels_in, layer.depth",
        "channels_out = np.tile(channels_in, layer.depth",
        "test_depthwise_1d_follows_its_input",
    ),
    Fault(
        "surgery leaves a statistic of BatchNormalization whole",
        '("gamma", "beta", "moving_mean", "moving_variance"):',
        '("gamma", "beta", "moving_mean"):',
        "test_exact_slices[keep3-channels_last]",
    ),
    Fault(
        "flattening takes channels_first for channels_last",
        "        full = np.moveaxis(full, 1, -1)\n",
        "        pass\n",
        "test_exact_slices[keep3-channels_first]",
    ),
    Fault(
        "strided convolutions cost as much as others",
        "positions(call.output_shapes[0], axis), output_axis=-1, bias=bias)",
        "positions(call.input_shapes[0], axis), output_axis=-1, bias=bias)",
        "test_absolute_costs_are_the_papers_in_millions",
    ),
    Fault(
        "a branch of zeros still adds what its normalization is centered at",
        "return [*found, layer.gamma, *([layer.beta] if layer.center else [])]",
        "return [*found, layer.gamma]",
        "test_a_model_without_blocks_is_the_one_whose_branches_put_out_zeros",
    ),
)
WIDTHS = (
    Fault(
        "a rate is rounded the wrong way",
        "math.floor(round(rate * size, 9))",
        "math.ceil(round(rate * size, 9))",
        "test_the_kept_count_is_the_papers",
    ),
    Fault(
        "a tie of rounding goes up",
        "math.ceil(width / round_to - 0.5)",
        "math.floor(width / round_to + 0.5)",
        "test_ties_go_down_and_a_narrowed_group_is_narrower",
    ),
    Fault(
        "a fixed rate keeps one step too many",
        "return kept >= self.limit(size)",
        "return kept > self.limit(size)",
        "test_fixed_rate_stops_at_its_limit_and_not_before",
    ),
    Fault(
        "SC1 looks one step too late",
        "len(losses) > 1 and abs(losses[-2] - losses[-1])",
        "len(losses) > 2 and abs(losses[-3] - losses[-2])",
        "test_sc1_is_equation_10",
    ),
    Fault(
        "the cap of SC2 is rounded the wrong way",
        "math.ceil(round((1 - self.min_rate) * size, 9))",
        "math.floor(round((1 - self.min_rate) * size, 9))",
        "test_the_cap_of_sc2_is_equation_11",
    ),
)
SELECTION = (
    Fault(
        "the slope counts with the wrong sign",
        "return -sum(slopes) - 0.5 * curvatures",
        "return sum(slopes) - 0.5 * curvatures",
        "test_reduction_is_the_fall_of_the_loss_to_second_order",
    ),
    Fault(
        "the atoms with the smallest scores come in",
        "np.argsort(-scores[outside]",
        "np.argsort(scores[outside]",
        "test_largest_scores_come_first_and_ties_go_to_the_lower_number",
    ),
    Fault(
        "a part of the joint loss is not weighted",
        "+ self.settings.discrimination * discrimination",
        "+ discrimination",
        "test_the_joint_loss_weighs_its_parts",
    ),
    Fault(
        "removed channels move while the others are fitted",
        "(g + d) * m for g, d, m in zip(",
        "(g + d) for g, d, m in zip(",
        "test_every_batch_is_held_at_zero_while_solving",
    ),
    Fault(
        "the ridge of a fit leads to zero",
        "linear=self.linear + strength * weights",
        "linear=self.linear",
        "test_fit_toward_the_trained_kernel_holds_on_other_images",
    ),
    Fault(
        "a removal costs the square of the weights alone",
        "0.5 * (weights * inner).sum((1, 2))",
        "0.5 * (weights * weights).sum((1, 2))",
        "test_each_removal_is_the_cheapest_and_costs_what_refitting_says",
    ),
    Fault(
        "zeros count as active",
        "tf.cast(tf.not_equal(",
        "tf.cast(tf.equal(",
        "test_apoz_is_the_share_of_zeros_behind_the_activation",
    ),
    Fault(
        "distances of filters have a wrong sign",
        "squares[:, None] + squares - 2 * products",
        "squares[:, None] + squares + 2 * products",
        "test_scores_of_filters_equal_their_definition",
    ),
)
TRAINING = (
    Fault(
        "an optimizer moves masked weights",
        "if id(variable) in self._masks:\n                variable.assign",
        "if False:\n                variable.assign",
        "test_every_optimizer_trains_resumes_to_equal_weights_and_keeps_masked_weights_at_zero[muon]",
    ),
    Fault(
        "AdamW's weights decay twice",
        "if self._config.is_plain_sgd and id(variable) in self._decaying:",
        "if id(variable) in self._decaying:",
        "test_an_optimizer_given_to_a_training_equals_keras_own_fit",
    ),
    Fault(
        "the schedule overwrites a rate that a callback sets",
        "            self.callbacks.set_rate = True",
        "            pass",
        "test_rates_that_callbacks_set_stay",
    ),
    Fault(
        "callbacks of a resumed run begin anew",
        "self.callbacks.begin(history.callbacks)",
        "self.callbacks.begin()",
        "test_a_failing_callback_is_one_line_and_the_resumed_run_equals_a_whole_one[where1]",
    ),
    Fault(
        "a step of the learning rate comes late",
        "sum(epoch >= boundary for",
        "sum(epoch > boundary for",
        "test_steps_fall_at_the_boundaries_in_epochs_or_fractions",
    ),
    Fault(
        "teacher and labels change places",
        "(1.0 - self.weight) * of_labels + self.weight * distance",
        "self.weight * of_labels + (1.0 - self.weight) * distance",
        "test_distillation_equals_the_formula",
    ),
    Fault(
        "the distance is not rescaled by the temperature",
        "return temperature**2 * divergence",
        "return divergence",
        "test_distillation_equals_the_formula",
    ),
    Fault(
        "BatchNormalization decays",
        "if v.name in KERNEL_NAMES and id(v) not in exempt",
        "if id(v) not in exempt",
        "test_weight_decay_shrinks_kernels_only",
    ),
    Fault(
        "the worst epoch is kept",
        "if (accuracy, -loss) > (needed, -best_loss):",
        "if (accuracy, -loss) < (needed, -best_loss):",
        "test_the_best_epoch_is_kept_and_named",
    ),
    Fault(
        "a resumed run takes other settings",
        "changes, names = describe_changes(before, settings)",
        "changes, names = describe_changes(settings, settings)",
        "test_another_setting_than_the_killed_run_had_is_refused",
    ),
)
DATA = (
    Fault(
        "pixels are divided by another white",
        "multiplier = self.scale / (white * std)",
        "multiplier = self.scale / ((white + 1) * std)",
        "test_integer_pixels_are_normalized_as_numpy_does",
    ),
    Fault(
        "colors keep their order for caffe",
        "images = images[..., ::-1]",
        "images = images[...]",
        "test_caffe_agrees_with_keras",
    ),
    Fault(
        "top-5 counts six",
        "return before.sum(axis=1) < 5",
        "return before.sum(axis=1) < 6",
        "test_top1_and_top5_over_the_whole_set",
    ),
    Fault(
        "all inputs of a class may be held out",
        "np.lexsort(((rank + 0.5) / size, was_seen, is_last))",
        "np.lexsort(((rank + 0.5) / size, was_seen))",
        "test_no_class_loses_its_last_input",
    ),
    Fault(
        "the threshold of a fold is its own",
        "best_threshold(scores[fold != number], same[fold != number])",
        "best_threshold(scores[fold == number], same[fold == number])",
        "test_each_fold_is_measured_at_the_best_threshold_of_the_others",
    ),
)
TFLITE = (
    Fault(
        "the interval of a speedup is too narrow",
        "np.percentile(resampled, (2.5, 97.5))",
        "np.percentile(resampled, (40, 60))",
        "test_equal_files_are_seldom_told_apart",
    ),
    Fault(
        "a wide interval of the quietest runs counts",
        "narrow and (self.quiet_low > 1 or self.quiet_high < 1)",
        "(self.quiet_low > 1 or self.quiet_high < 1)",
        "test_the_quietest_runs_tell_in_a_narrow_interval_on_one_side_of_1",
    ),
    Fault(
        "rounding of constant outputs counts as an error",
        "1e-3 * self._peak",
        "0.0",
        "test_rounding_of_constant_outputs_is_no_error_of_their_spread",
    ),
    Fault(
        "the ninetieth percentile is the eightieth",
        "np.percentile(times, (10, 50, 90))",
        "np.percentile(times, (10, 50, 80))",
        "test_latencies_are_the_median_and_the_outer_tenths_of_all_runs",
    ),
    Fault(
        "the order of the measured files never changes",
        "start = run % len(candidates)",
        "start = 0",
        "test_every_candidate_is_measured_once_a_run_and_the_first_one_changes",
    ),
    Fault(
        "integers are read without their zero point",
        "(values.astype(np.float32) - zero_point) * np.float32(scale)",
        "values.astype(np.float32) * np.float32(scale)",
        "test_integer_files_take_and_give_floats",
    ),
    Fault(
        "a bias stays in the scale of another operation",
        "stored.astype(np.float64) * scale, wrong.scale)",
        "stored.astype(np.float64) * wrong.scale, wrong.scale)",
        "test_equal_biases_of_several_operations_have_the_scale_of_each",
    ),
)
REPORT = (
    Fault(
        "lost answers count as gained",
        "for a, b in ((before, after), (after, before))",
        "for a, b in ((after, before), (before, after))",
        "test_lost_and_gained_answers_are_counted_and_shown",
    ),
    Fault(
        "the picture of an image is of another one",
        "split.batches(len(indices), indices=indices)",
        "split.batches(len(indices), indices=indices[::-1])",
        "test_lost_and_gained_answers_are_counted_and_shown",
    ),
    Fault(
        "the headline calls an inconclusive speedup a gain",
        '"as fast within noise" if table_rows.is_inconclusive(file) else',
        '"as fast within noise" if False else',
        "test_the_headline_compares_the_files_that_ship",
    ),
    Fault(
        "a notebook's table trusts the names in it",
        "{escape(_text(value))}</td>",
        "{_text(value)}</td>",
        "test_a_notebook_gets_the_table_as_html_that_escapes_every_name",
    ),
)
PROGRAMS = (
    Fault(
        "flags.txt loses the commas inside of a path",
        "CsvListSerializer(',').serialize(value) if isinstance(value, list) else value",
        "','.join(value) if isinstance(value, list) else value",
        "test_what_no_file_can_hold_is_a_comment",
    ),
    Fault(
        "a resumed run that is refused replaces flags.txt",
        'if holds_run and not finished and (folder / "flags.txt").exists():',
        'if False and not finished and (folder / "flags.txt").exists():',
        "test_an_edited_plan_is_applied_and_the_run_goes_on",
    ),
    Fault(
        "a long silent phase stays silent",
        "if now - self.last >= _SILENT_FOR:",
        "if now - self.last >= 10 * _SILENT_FOR:",
        "test_a_silent_phase_says_that_the_run_goes_on",
    ),
    Fault(
        "type checkers take any name of dcp_tf",
        "if not TYPE_CHECKING:  # type checkers would take any name for one that exists",
        "if True:",
        "test_mypy_knows_what_the_public_functions_take_and_give",
    ),
)
FAULTS = (*DEFAULTS, *GRAPH, *WIDTHS, *SELECTION, *TRAINING, *DATA, *TFLITE, *REPORT, *PROGRAMS)


def find(fault: Fault, checkout: pathlib.Path = CHECKOUT) -> pathlib.Path:
    """The file with the fault's text.

    Raises:
        LookupError: the text does not stand there exactly once.
    """
    files = [path for part in PACKAGE for path in sorted((checkout / part).rglob("*.py"))]
    counts = {path: path.read_text(encoding="utf-8").count(fault.text) for path in files}
    if sum(counts.values()) != 1:
        raise LookupError(f"{fault.name}: {fault.text!r} stands {sum(counts.values())} times in the package")
    return next(path for path, count in counts.items() if count)


def ids_of_tests(fault: Fault, checkout: pathlib.Path = CHECKOUT) -> list[str]:
    """The tests that must fail, as pytest takes them.

    Raises:
        LookupError: there is no such test, or there are several.
    """
    ids = []
    for name in fault.tests:
        pattern = re.compile(rf"^def {name.partition('[')[0]}\(", re.MULTILINE)
        files = [p for p in sorted((checkout / "tests").rglob("test_*.py")) if pattern.search(p.read_text("utf-8"))]
        if not files:
            raise LookupError(f"{fault.name}: there is no test {name}")
        ids += [f"{path}::{name}" for path in files]
    return ids


def run_tests(ids: list[str], checkout: pathlib.Path) -> int:
    """Runs tests in a fork of this process, which has loaded TensorFlow once for all; returns pytest's exit code."""
    shutil.rmtree(checkout / ".hypothesis", ignore_errors=True)  # examples that failed with another fault
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    import pytest

    sys.path.insert(0, str(checkout))
    os.environ["PYTHONPATH"] = str(checkout)
    os.chdir(checkout)
    with open(checkout / "log.txt", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        options = ("-n0", "-q", "-x", "-p", "no:cacheprovider", "-m", "slow or not slow", "--hypothesis-seed=0")
        code = pytest.main([*options, f"--rootdir={checkout}", *ids])
        log.flush()
    os._exit(int(code))


def try_fault(fault: Fault, checkout: pathlib.Path) -> str:
    """Plants a fault in a copy of the checkout, runs its tests, takes it out again, and says what came of it."""
    try:
        path, ids = find(fault, checkout), ids_of_tests(fault, checkout)
    except LookupError as error:
        return f"cannot be planted: {error}"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace(fault.text, fault.fault), encoding="utf-8")
    try:
        code = run_tests(ids, checkout)
    finally:
        path.write_text(before, encoding="utf-8")
    return {0: "NOT CAUGHT", 1: "caught"}.get(code, f"the tests ended with code {code}")


def main() -> int:
    """Tries all faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a regular expression for names of faults")
    faults = [fault for fault in FAULTS if re.search(parser.parse_args().only, fault.name)]
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    sys.dont_write_bytecode = True  # a file that is changed twice in a second would be taken for unchanged
    import keras  # noqa: F401

    results = {}
    with tempfile.TemporaryDirectory() as folder:
        checkout = pathlib.Path(folder) / "checkout"
        for part in (*PACKAGE, *REST):
            copy = shutil.copytree if (CHECKOUT / part).is_dir() else shutil.copy
            checkout.mkdir(exist_ok=True)
            copy(CHECKOUT / part, checkout / part)
        for fault in faults:
            results[fault.name] = try_fault(fault, checkout)
            print(f"{fault.name:<60} {results[fault.name]}", flush=True)
        ids = sorted(
            {name for fault in faults if results[fault.name] == "caught" for name in ids_of_tests(fault, checkout)}
        )
        code = run_tests(ids, checkout) if ids else 0
        log = (checkout / "log.txt").read_text(encoding="utf-8")
    caught = sum(result == "caught" for result in results.values())
    print(f"{caught} of {len(results)} faults are caught")
    if code:
        print(f"but the same tests, run without a fault, end with code {code}:\n{log[-3000:]}")
    return int(caught < len(results) or code != 0)


if __name__ == "__main__":
    sys.exit(main())
