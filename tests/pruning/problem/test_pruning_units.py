"""What Algorithm 2 runs on: which layers lose kernels, in which stage, and what targets ask of them."""

import keras
import numpy as np
import pytest
from keras import layers

import dcp_tf
from dcp_tf import data
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, count_cost
from dcp_tf.pruning import prepare
from dcp_tf.pruning.budget import Target, kernel_rate
from dcp_tf.pruning.problem.stages import StageLoss, channel_unit, in_stages, kernel_units
from dcp_tf.pruning.stopping import FixedRate


def convolutions(image, *more):
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(image)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="second")(x)
    for layer in more:
        x = layer(x)
    return layers.Dense(3, name="out")(layers.GlobalAveragePooling2D()(x))


def names(model, **settings):
    return [unit.name for unit in kernel_units(ChannelGraph(model), **settings)]


def test_convolutions_but_those_that_read_the_image_lose_kernels():
    image = keras.Input((8, 8, 3))
    more = [
        layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
        layers.Conv2D(8, 1, name="point"),
        layers.Conv2DTranspose(4, 3, name="up"),
        layers.Conv2D(4, 3, groups=2, name="grouped"),
    ]
    assert names(keras.Model(image, convolutions(image, *more))) == ["second", "point", "up", "grouped"]


@pytest.mark.parametrize("before", [layers.Rescaling(1 / 255), layers.ZeroPadding2D(1)], ids=["scaled", "padded"])
def test_an_image_that_was_scaled_or_padded_is_still_the_image(before):
    image = keras.Input((8, 8, 3))
    assert names(keras.Model(image, convolutions(before(image)))) == ["second"]


def test_a_layer_that_reads_the_image_beside_other_channels_loses_kernels():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="first")(image)
    x = layers.Conv2D(4, 3, name="both")(layers.Concatenate()([x, image]))
    assert names(keras.Model(image, layers.Flatten()(x))) == ["both"]


def test_without_convolutions_all_dense_layers_but_the_last_lose_kernels():
    x = image = keras.Input((12,))
    for number in range(3):
        x = layers.Dense(5, activation="relu", name=f"dense{number}")(x)
    assert names(keras.Model(image, x)) == ["dense0", "dense1"]


def test_excluded_layers_keep_all():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, convolutions(image, layers.Conv2D(4, 3, name="third")))
    assert names(model, exclude=lambda name: name == "second") == ["third"]


def dense_only(count):
    x = image = keras.Input((6, 6, 1))
    x = layers.Flatten()(x)
    for number in range(count):
        x = layers.Dense(4, name=f"dense{number}")(x)
    return keras.Model(image, x)


def one_convolution():
    image = keras.Input((6, 6, 1))
    return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(layers.Conv2D(5, 3, name="only")(image))))


def check_all(model, method):
    split = data.as_split((np.zeros((8, 6, 6, 1), "float32"), np.arange(8) % 4))
    return prepare(model, split, method)


@pytest.mark.parametrize("model", [lambda: dense_only(1), one_convolution], ids=["one dense", "one convolution"])
@pytest.mark.parametrize("method", [dcp_tf.DKP, dcp_tf.DCPDKP, dcp_tf.AdaptDKP])
def test_a_model_without_kernels_to_prune_is_refused_in_one_line(model, method):
    with pytest.raises(UsageError, match=r"no layer whose kernels could be pruned|no group of channels"):
        check_all(model(), method(rate=0.5))


def test_kernels_go_where_no_channel_can():
    context = check_all(dense_only(2), dcp_tf.DKP(rate=0.5))
    assert context.kernel_layers == ("dense0",)
    assert context.widths == {"dense0": 4}


@pytest.mark.parametrize(
    ("exclude", "words"), [("nothing", "matches 'nothing'"), ("(", "no regular expression"), (".*", "no layer")]
)
def test_wrong_patterns_are_one_line(exclude, words):
    with pytest.raises(UsageError, match=words):
        check_all(dense_only(3), dcp_tf.DKP(rate=0.5, exclude=(exclude,)))


@pytest.mark.parametrize("name", ["round_to", "min_channels", "rates"])
def test_settings_of_widths_are_none_of_dkp(name):
    for method in (dcp_tf.DKP, dcp_tf.AdaptDKP):
        with pytest.raises(UsageError, match=name):
            method(rate=0.5, **{name: 2})


@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"rate": 1.0}, {"rate": 0.5, "per_step": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UsageError, match="received"):
        dcp_tf.DKP(**settings)


def test_rates_and_epsilon_out_of_range_are_refused():
    with pytest.raises(UsageError, match="rate"):
        dcp_tf.DCPDKP(rate=0.5, kernel_rate=1.0)
    with pytest.raises(UsageError, match="epsilon"):
        dcp_tf.AdaptDKP(rate=0.5, epsilon=-1.0)


# Stages


def test_units_go_to_the_first_loss_behind_all_their_layers():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, convolutions(image, layers.Conv2D(4, 3, name="third")))
    graph = ChannelGraph(model)
    units = [channel_unit(graph, graph.group("second")), *kernel_units(graph)]
    middle = graph.trace.calls[[c.path for c in graph.trace.calls].index("second")].outputs[0]
    stages = in_stages(graph, units, [StageLoss((t,), None, None) for t in (middle, graph.trace.outputs[0])])
    # The channels of `second` are read by `third`, as are the kernels of `third`; those of `second` lie before.
    assert [[(u.name, u.kernels) for u in s.units] for s in stages] == [
        [("second", True)],
        [("second", False), ("third", True)],
    ]


# Targets


def kernels_left(graph, names, share):
    """Kernels and multiply-accumulates per layer at a share."""
    costs = {c.path: c for c in count_cost(graph).layers}
    left = {}
    for name in names:
        record = next(r for r in graph.records.values() if r.path == name)
        total = int(np.prod(record.operation.kernel.shape[-2:]))
        left[name] = FixedRate(share).limit(total), total, costs[name]
    return left


@pytest.mark.parametrize("measure", ["macs", "params"])
@pytest.mark.parametrize("share", [35, 60.5, 80, 97])
def test_a_target_is_never_exceeded_and_met_within_one_kernel_per_layer(measure, share):
    image = keras.Input((8, 8, 3))
    graph = ChannelGraph(keras.Model(image, convolutions(image, layers.Conv2D(120, 1), layers.Conv2D(130, 1))))
    names = [unit.name for unit in kernel_units(graph)]
    removed_share = kernel_rate(graph, graph.kept({}), names, Target(measure, f"{share}%"))
    cost = count_cost(graph)
    full, spent, step = getattr(cost, measure), getattr(cost, measure), 0.0
    for kept, total, layer in kernels_left(graph, names, removed_share).values():
        weights = next(r for r in graph.records.values() if r.path == layer.path).operation.kernel.shape
        whole = layer.macs if measure == "macs" else int(np.prod(weights))
        spent -= whole * (total - kept) / total
        step += whole / total
    limit = int(share / 100 * full)
    assert limit - step <= spent <= limit


def test_targets_out_of_reach_are_refused():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, convolutions(image))
    graph = ChannelGraph(model)
    for text in ("1%", str(count_cost(model).macs)):
        with pytest.raises(UsageError, match="target"):
            kernel_rate(graph, graph.kept({}), ["second"], Target("macs", text))
