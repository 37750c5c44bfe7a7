"""What the experiments say: settings that programs take, the papers' complexity, and which setting wins."""

import pytest

from dcp_tf.errors import UsageError
from dcp_tf.experiments import EXPERIMENTS
from dcp_tf.graph import ChannelGraph, count_cost, rebuild
from dcp_tf.models import zoo
from dcp_tf.pruning.context import choose_groups, choose_widths
from dcp_tf.tools import prune, train
from dcp_tf.tools.cli import experiment_flags, pruning_flags

# Name, and the share of FLOPs that the paper removes (%); what we get for the MobileNets of CIFAR-10 differs by what
# the paper does not tell of them.
COMPLEXITY = {
    "cifar10_resnet56_dcp_50": 49.78,
    "cifar10_vgg19_dcp_30": 50.08,
    "cifar10_vgg19_dcp_50": 74.30,
    "cifar10_mobilenet_v1_dcp_30": 47.8,
    "cifar10_mobilenet_v2_dcp_30": 26.7,
    "imagenet_resnet18_dcp_30": 27.49,
    "imagenet_resnet18_dcp_50": 46.22,
    "imagenet_resnet50_dcp_30": 35.72,
    "imagenet_resnet50_dcp_50": 55.50,
    "imagenet_mobilenet_v1_dcp_30": 49.67,
    "imagenet_mobilenet_v2_dcp_30": 32.21,
}


def parsed(*arguments):
    """Flags of prune as the program has them, and what an experiment made of them."""
    import copy

    flags = copy.deepcopy(prune.PROGRAM.flags)
    flags(["prune", *arguments])
    return flags, experiment_flags.choose(flags)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_a_job_and_a_training(name):
    needs_data = ["--dataset=faces:somewhere"] if name.startswith("faces") else []
    flags, chosen = parsed(f"--experiment={name}", *needs_data)
    job = pruning_flags.read_job(flags)
    experiment = EXPERIMENTS[name]()
    assert job.method.name == experiment.flags["method"]
    assert job.finetuning.epochs == experiment.flags["finetune_epochs"]
    assert chosen.baseline.epochs == experiment.baseline["epochs"]
    assert experiment.flags.keys() <= set(prune.PROGRAM.flags)
    assert experiment.baseline.keys() <= set(train.PROGRAM.flags)
    zoo.find_network(experiment.model.removeprefix("zoo:"))


@pytest.mark.parametrize(("name", "function"), EXPERIMENTS.items())
def test_the_head_says_command_figure_and_time(name, function):
    assert function.__name__ == name
    head = function.__doc__
    assert f"dcp-tf prune --experiment={name} " in head
    assert "Paper: " in head
    assert "Time: " in head


@pytest.mark.parametrize(("name", "fewer"), COMPLEXITY.items())
def test_networks_lose_what_the_paper_says(name, fewer):
    flags, chosen = parsed(f"--experiment={name}")
    method, model = pruning_flags.read_method(flags), zoo.build(chosen.model.removeprefix("zoo:"))
    graph = ChannelGraph(model)
    widths = choose_widths(graph, choose_groups(graph, method), method)
    pruned = rebuild(graph, graph.kept({group: range(width) for group, width in widths.items()}))
    removed = 100 * (1 - count_cost(pruned).flops / count_cost(model).flops)
    assert removed == pytest.approx(fewer, abs=0.06)


def test_all_experiments_are_listed(capsys):
    assert prune.run(["--list_experiments"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in EXPERIMENTS)
    assert "6.26 % +.02 at -49.8 % FLOPs" in printed


def test_flags_come_before_overrides_before_the_experiment_before_defaults():
    name = "--experiment=cifar10_resnet56_dcp_50"
    assert prune.PROGRAM.flags["finetune_lr"].default != 0.1
    assert parsed(name)[0].finetune_lr == 0.1
    assert parsed(name, "--override=finetune_lr=0.2")[0].finetune_lr == 0.2
    flags, _ = parsed(name, "--override=finetune_lr=0.2,rate=0.3", "--finetune_lr=0.01")
    assert (flags.finetune_lr, flags.rate) == (0.01, 0.3)
    assert flags.label_smoothing == prune.PROGRAM.flags["label_smoothing"].default


def test_a_default_that_is_given_is_given():
    default = prune.PROGRAM.flags["batch_size"].default
    assert parsed("--experiment=imagenet_resnet50_dcp_50")[0].batch_size == 256
    assert parsed("--experiment=imagenet_resnet50_dcp_50", f"--batch_size={default}")[0].batch_size == default


def test_overrides_reach_the_baseline_and_lists():
    _, chosen = parsed(
        "--experiment=cifar10_resnet56_dcp_50",
        "--override=baseline.epochs=50,baseline.boundaries=0.5;0.8,baseline.schedule=step",
    )
    assert (chosen.baseline.epochs, chosen.baseline.boundaries) == (50, (0.5, 0.8))


def test_epochs_are_scaled_and_steps_of_the_rate_with_them():
    flags, chosen = parsed("--experiment=imagenet_resnet50_dcp_50", "--epochs_scale=0.1")
    job = pruning_flags.read_job(flags)
    assert (chosen.baseline.epochs, job.auxiliary.epochs, job.finetuning.epochs) == (9, 6, 6)
    rate = job.finetuning.rate()
    assert [rate(epoch) for epoch in (3.5, 3.7, 4.9, 5.5)] == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5])
    flags, chosen = parsed("--experiment=imagenet_resnet50_dcp_50", "--epochs_scale=0.0001", "--finetune_epochs=0")
    assert (chosen.baseline.epochs, flags.aux_epochs, flags.finetune_epochs) == (1, 1, 0)


def test_epochs_at_which_the_rate_changes_are_scaled_too():
    own = ("--boundaries=160,240,500", "--warmup=20", "--aux_boundaries=40", "--qat_epochs=30")
    of_baseline = "--override=baseline.boundaries=100;200,baseline.warmup=8"
    flags, chosen = parsed("--experiment=cifar10_resnet56_dcp_50", "--epochs_scale=0.1", *own, of_baseline)
    job = pruning_flags.read_job(flags)
    before, _ = parsed("--experiment=cifar10_resnet56_dcp_50", *own, of_baseline)
    long = pruning_flags.read_job(before)
    for phase in ("finetuning", "auxiliary"):
        rate, unscaled = getattr(job, phase).rate(), getattr(long, phase).rate()
        times = [time + 0.05 for time in range(getattr(job, phase).epochs)]
        assert [rate(time) for time in times] == pytest.approx([unscaled(10 * time) for time in times])
    rate = chosen.baseline.rate()
    assert [rate(epoch) for epoch in (0.4, 9.9, 10.1, 20.1)] == pytest.approx([0.05, 0.1, 0.01, 0.001])
    assert flags.qat_epochs == 3
    flags, _ = parsed("--experiment=cifar10_resnet56_dcp_50", "--epochs_scale=0.001", *own)
    assert pruning_flags.read_job(flags).finetuning.epochs == 1


def test_a_network_of_the_zoo_that_is_given_has_the_size_of_the_experiment():
    flags, chosen = parsed("--experiment=imagenet_resnet50_dcp_50", "--model=zoo:resnet50", "--weights=w.npz")
    assert (chosen.baseline, flags.image_size) == (None, 224)


def test_a_target_takes_the_place_of_the_rate():
    flags, _ = parsed("--experiment=cifar10_resnet56_dkp_50", "--rate=0.3")
    assert pruning_flags.read_method(flags).target is None
    flags, _ = parsed("--experiment=cifar10_resnet56_dcp_50", "--override=target_macs=60%")
    assert pruning_flags.read_method(flags).target is not None


def test_the_fast_selection_drops_what_belongs_to_the_exact_one():
    flags, _ = parsed("--experiment=cifar10_resnet56_dcp_50", "--selection=fast")
    assert pruning_flags.read_method(flags).passes == 0


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_auxiliary_losses_train_the_whole_model_as_in_the_paper(name):
    flags, _ = parsed(f"--experiment={name}", "--dataset=faces:somewhere")
    method = pruning_flags.read_method(flags)
    assert getattr(method, "auxiliary_trains", "all") == "all" or not getattr(method, "auxiliary_losses", 0)


def test_rounds_per_stage_take_the_place_of_the_one_round():
    flags, _ = parsed("--experiment=cifar10_resnet56_dcp_50", "--per_stage")
    assert pruning_flags.read_method(flags).per_stage


def test_a_model_that_is_given_is_not_trained():
    flags, chosen = parsed("--experiment=cifar10_resnet56_dcp_50", "--model=my.keras")
    assert chosen.baseline is None
    assert flags.model == "my.keras"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiment=nothing"], "unknown experiment 'nothing'; --list_experiments"),
        (["--experiment=cifar10_vgg19_dpc_30"], r"did you mean cifar10_vgg19_dcp_30\?\); --list_experiments"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=aux_epoch=3"], r"did you mean aux_epochs\?"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=baseline.epoch=3"], r"did you mean epochs\?"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=experiment=x"], "--experiment is no setting"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=list_experiments=true"], "--list_experiments is no"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=override=x"], "--override is no setting"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=help=true"], "--help is no setting"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=baseline.debug=true"], "--debug is no setting"),
        (["--experiment=faces_mobilefacenet_dcp_25"], "--dataset=faces:DIR"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=rates"], "NAME=VALUE"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=unknown=1"], "unknown=1"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=baseline.rate=0.1"], "baseline.rate"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=aux_epochs=many"], "aux_epochs=many"),
        (["--experiment=cifar10_vgg19_dcp_30", "--epochs_scale=0"], "above 0"),
        (["--experiment=cifar10_vgg19_dcp_30", "--normalization=tf"], "--normalization"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=strategy=mirrored"], "--strategy is no setting"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=epochs_scale=0"], "above 0"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=baseline.seed=1"], "the baseline has no seed of its own"),
        (["--experiment=cifar10_vgg19_dcp_30", "--override=baseline.model=zoo:vgg19_cifar"], "has no model of its own"),
        (["--experiment=cifar10_vgg19_dcp_30", "--model=m.keras", "--override=baseline.epochs=3"], "is m.keras"),
        (["--experiment=cifar10_vgg19_dcp_30", "--model=m.keras", "--image_size=64"], "m.keras has a size already"),
        (["--model=m.keras", "--image_size=64"], "m.keras has a size already"),
        (["--override=rate=0.1"], "--experiment"),
        (["--epochs_scale=0.1"], "--experiment"),
    ],
)
def test_wrong_input_gets_one_clear_line(arguments, message):
    with pytest.raises(UsageError, match=message) as caught:
        parsed(*arguments)
    assert "\n" not in str(caught.value)


def test_boundaries_that_are_no_numbers_are_refused():
    flags, _ = parsed("--boundaries=early,late", "--schedule=step")
    with pytest.raises(UsageError, match="--boundaries takes numbers"):
        pruning_flags.read_job(flags)
