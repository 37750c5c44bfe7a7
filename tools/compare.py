r"""Compares pruning methods at the same cost and the same schedule, over several seeds: mean and spread.

    dcp-tf compare --model=my_model.keras --dataset=npz:my_data.npz --methods=random,l1,l1:update,dcp \
        --target_macs=50% --seeds=3 --finetune_epochs=10 --output_dir=runs/compare

A method may have options of its own, NAME:option=value:option...: dcp:selection=exact, dcp:losses=reconstruction,
l1:update. Options are the flags of "How dcp, dkp and their variants choose" and the like; what a variant does not
name, the flags say for all. All variants prune the same groups within the same target; adaptive methods may end
cheaper, which the table shows. --output_dir receives compare.html (the page to look at), compare.json (every run),
compare.md (the table), compare.png and compare.svg (the plot). Every finished run is kept, and --resume runs the
others, including more methods and more seeds.
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from dcp_tf.errors import RunError
from dcp_tf.tools.app import baseline, run_summary
from dcp_tf.tools.cli import data_flags, pruning_flags, run_flags
from dcp_tf.tools.cli.class_weight_flag import define_class_weight, weigh_classes
from dcp_tf.tools.cli.program import Program
from dcp_tf.tools.cli.training_flags import read_training

PROGRAM = Program("compare", __doc__)
data_flags.define_model(PROGRAM, about="The trained model, functional or Sequential")
data_flags.define_dataset(PROGRAM)
PROGRAM.integer(
    "train_samples",
    None,
    "Use only this many training images, balanced over the classes and drawn for each seed. By default all.",
    lower=1,
)
data_flags.define_outputs(PROGRAM)
baseline.define_expected(PROGRAM)
PROGRAM.section("Which methods")
PROGRAM.list(
    "methods",
    ["random", "l1", "dcp"],
    "Methods to compare, each NAME or NAME:option=value:option... Names and options are those of prune (--method).",
)
PROGRAM.integer("seeds", 3, "Runs of each method, with --seed and the seeds that follow it.", lower=1)
data_flags.define_seed(PROGRAM, "The first seed.")
PROGRAM.section("Which channels go")
pruning_flags.define_groups(PROGRAM)
pruning_flags.define_training(PROGRAM)
define_class_weight(PROGRAM)
PROGRAM.section("The run")
PROGRAM.path("output_dir", None, "Where the table, the plot and the figures of every run go.")
PROGRAM.boolean("resume", False, "Go on with a stopped comparison in --output_dir, or add methods and seeds to it.")
run_flags.define_overwrite(PROGRAM)


def main(flags) -> None:
    """Runs every method with every seed, prints the table and writes the files."""
    run_flags.require_folder(flags, "the results", "compare.json")
    from dcp_tf import progress
    from dcp_tf.files import remove_leftovers, writable_folder
    from dcp_tf.report import print_comparison, write_comparison, write_comparison_page
    from dcp_tf.tools.app import augmentation_check, comparison, rotated_streams
    from dcp_tf.tools.cli.method_specs import read_variants

    variants = read_variants(flags.methods, flags)
    schedule = comparison.Schedule(
        read_training(flags, "auxiliary"),
        read_training(flags, "finetuning"),
        flags.distillation,
        flags.train_samples,
        ",".join(flags.class_weight) or None,
    )
    model_and_data = weigh_classes(flags, data_flags.load_model_and_data(flags))
    methods = [variant.method for variant in variants]
    model_and_data, keep_rotation = rotated_streams.rotate(model_and_data, methods, flags.output_dir, flags.resume)
    schedule = comparison.check(model_and_data, variants, schedule)
    baseline_check = baseline.report_baseline(flags, model_and_data)
    model_and_data = augmentation_check.drop_harmful_augmentation(flags, model_and_data)
    before = comparison.read_earlier(flags.output_dir, model_and_data, variants, schedule) if flags.resume else None
    folder = writable_folder(flags.output_dir)
    remove_leftovers(folder)
    keep_rotation()
    run_flags.record_flags(PROGRAM, flags, folder)
    model_and_data.announce()
    seeds = range(flags.seed, flags.seed + flags.seeds)
    settings = run_summary.settings_of(flags)
    results = comparison.run(model_and_data, variants, seeds, schedule, folder, baseline_check, before, settings)
    print_comparison(results)
    run_flags.record_flags(PROGRAM, flags, folder, finished=True)
    paths = [*write_comparison(results, folder), write_comparison_page(results, folder)]
    progress.say(f"written to {folder}: {', '.join(sorted(['compare.json', 'flags.txt', *(p.name for p in paths)]))}")
    failed = [f"{r['method']} with seed {r['seed']}: {r['failure']}" for r in results["runs"] if "failure" in r]
    if failed:
        raise RunError("; ".join(failed))


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
