"""Small nets made to be tricky: they declare the groups that they have, and keep the whole contract."""

import keras
import numpy as np
import pytest
from equivalence import check
from keras import layers, ops

from dcp_tf.graph import ChannelGraph


def conv(name, filters=6, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", name=name, **options)


def test_add_of_a_concatenation():
    x = keras.Input((6, 6, 3))
    joined = layers.Concatenate()([conv("a", 4)(x), conv("b", 5)(x)])
    y = layers.Add()([joined, conv("c", 9)(x)])
    graph, _ = check(keras.Model(x, layers.Dense(2)(y)), prunable={"a": 4, "b": 5})
    assert graph.group("a").producers == ("a", "c")
    assert graph.group("b").producers == ("b", "c")


def test_concatenation_of_a_tensor_with_itself():
    x = keras.Input((6, 6, 3))
    y = conv("a")(x)
    y = layers.Concatenate()([y, layers.ReLU()(y), y])
    _, small = check(keras.Model(x, layers.Dense(2, name="last")(y)), prunable={"a": 6})
    assert small.get_layer("last").kernel.shape[0] == 3 * small.get_layer("a").filters


def test_siamese_net_shares_its_groups():
    stack = [keras.Input((6, 6, 3)), conv("a"), layers.BatchNormalization(), conv("b")]
    branch = keras.Sequential(stack, name="branch")
    left, right = keras.Input((6, 6, 3), name="left"), keras.Input((6, 6, 3), name="right")
    y = layers.Subtract()([branch(left), branch(right)])
    y = layers.Dense(2)(layers.GlobalAveragePooling2D()(y))
    check(keras.Model([left, right], y), prunable={"branch/a": 6, "branch/b": 6}, save=True)


def test_shared_layer_on_tensors_of_different_producers():
    x = keras.Input((6, 6, 3))
    shared = conv("shared")
    y = layers.Concatenate()([shared(conv("a", 5)(x)), shared(conv("b", 5)(x))])
    graph, _ = check(keras.Model(x, layers.Dense(2)(y)))
    assert [(set(g.producers), g.size) for g in graph.prunable()] == [({"a", "b"}, 5), ({"shared"}, 6)]


def test_shared_batch_normalization_ties():
    x = keras.Input((6, 6, 3))
    shared = layers.BatchNormalization()
    y = layers.Concatenate()([shared(conv("a", 5)(x)), shared(conv("b", 5)(x))])
    graph, _ = check(keras.Model(x, layers.Dense(2)(y)))
    assert [(set(g.producers), g.size) for g in graph.prunable()] == [({"a", "b"}, 5)]


def test_shared_reshape_ties():
    x = keras.Input((6, 6, 3))
    shared = layers.Reshape((36, 5))
    y = layers.Concatenate()([shared(conv("a", 5)(x)), shared(conv("b", 5)(x))])
    graph, _ = check(keras.Model(x, layers.Dense(2)(y)))
    assert [(set(g.producers), g.size) for g in graph.prunable()] == [({"a", "b"}, 5)]


def nested(depth, name="level"):
    x = keras.Input((6, 6, 4))
    y = conv("in")(x)
    if depth:
        y = conv("to")(y)
        y = nested(depth - 1)(layers.Dense(4, name="narrow")(y))
    y = conv("out", 4)(y)
    return keras.Model(x, y, name=name)


def test_nested_models_of_any_depth():
    x = keras.Input((6, 6, 3))
    y = nested(2)(conv("first", 4)(x))
    model = keras.Model(x, layers.Dense(2)(y))
    graph, small = check(model, save=True)
    sizes = {g.name: g.size for g in graph.prunable(residual=True)}
    assert sizes["level/level/level/in"] == 6
    assert sizes["first"] == 4
    assert isinstance(small.get_layer("level").get_layer("level"), keras.Model)


def test_nested_model_called_twice_in_a_row():
    block = nested(0, "block")
    x = keras.Input((6, 6, 3))
    y = block(block(conv("first", 4)(x)))
    graph, _ = check(keras.Model(x, layers.Dense(2)(y)), prunable={"first": 4, "block/in": 6})
    assert graph.group("first").producers == ("first", "block/out")


def test_operations_inside_a_nested_model_that_is_called_twice():
    z = keras.Input((6, 6, 5))
    scaled = z * np.linspace(0.5, 2, 5, dtype="float32") + 1
    block = keras.Model(z, scaled[..., 1:4], name="block")
    x = keras.Input((6, 6, 3))
    y = layers.Concatenate()([block(conv("a", 5)(x)), block(conv("b", 5)(x))])
    graph, _ = check(keras.Model(x, layers.Dense(2)(y)), permutation=False)
    assert [g.size for g in graph.prunable()] == [3]


def test_sequential_in_functional_in_sequential():
    inner = keras.Sequential([keras.Input((6, 6, 4)), conv("a"), layers.ReLU(), conv("b", 5)], name="inner")
    x = keras.Input((6, 6, 3))
    middle = keras.Model(x, inner(conv("c", 4)(x)), name="middle")
    model = keras.Sequential([keras.Input((6, 6, 3)), middle, layers.Flatten(), layers.Dense(2)])
    check(model, prunable={"middle/c": 4, "middle/inner/a": 6, "middle/inner/b": 5}, save=True)


def test_nested_model_with_a_training_argument():
    base = keras.Sequential([keras.Input((6, 6, 3)), conv("a"), layers.BatchNormalization(), layers.Dropout(0.5)])
    x = keras.Input((6, 6, 3))
    check(keras.Model(x, layers.Dense(2)(base(x, training=False))))


def test_nested_model_on_images_of_another_size():
    base = keras.Sequential([keras.Input((None, None, 3)), conv("a"), layers.GlobalAveragePooling2D()], name="base")
    x = keras.Input((6, 7, 3))
    graph, _ = check(keras.Model(x, layers.Dense(2)(base(x))), prunable={"base/a": 6})
    assert (None, 6, 7, 6) in graph.trace.shapes


def test_nested_model_with_named_inputs():
    b, a = keras.Input((4,), name="b"), keras.Input((5,), name="a")
    hidden = layers.Concatenate()([layers.Dense(6, name="of_b")(b), layers.Dense(7, name="of_a")(a)])
    listed = keras.Model([b, a], layers.Dense(3, name="join")(hidden), name="listed")
    x = keras.Input((4,))
    y = listed({"a": layers.Dense(5, name="left")(x), "b": layers.Dense(4, name="right")(x)})
    expected = {"left": 5, "right": 4, "listed/of_b": 6, "listed/of_a": 7, "listed/join": 3}
    check(keras.Model(x, layers.Dense(2)(y)), prunable=expected, configs=False)


def test_several_inputs_and_outputs_in_a_dictionary():
    image, number = keras.Input((6, 6, 3), name="image"), keras.Input((4,), name="number")
    y = layers.GlobalMaxPooling2D()(conv("a")(image))
    y = layers.Concatenate()([y, layers.Dense(5, name="b")(number)])
    trunk = layers.Dense(7, name="trunk", activation="tanh")(y)
    heads = {"kind": layers.Dense(3, name="kind")(trunk), "more": [layers.Dense(1, name="place")(trunk), trunk]}
    graph, small = check(keras.Model({"image": image, "number": number}, heads), prunable={"a": 6, "b": 5}, save=True)
    assert "output of the model" in graph.group("trunk").pinned_because
    assert set(small.output) == {"kind", "more"}


def test_an_intermediate_output_is_pinned():
    x = keras.Input((6, 6, 3))
    a = conv("a")(x)
    check(keras.Model(x, [layers.Dense(2)(conv("b")(a)), a]), prunable={"b": 6})


def test_a_model_made_of_the_middle_of_another():
    x = keras.Input((6, 6, 3))
    a = conv("a", 4)(x)
    b = conv("b")(a)
    check(keras.Model(a, layers.Dense(2)(b)), prunable={"b": 6})


def test_the_same_rescaling_twice():
    x = keras.Input((6, 6, 3))
    scale = layers.Rescaling(0.5)
    check(keras.Model(x, layers.Dense(2)(scale(conv("a")(scale(x))))), prunable={"a": 6})


def test_flatten_with_channels_first_order():
    x = keras.Input((6, 6, 3))
    y = layers.Permute((3, 1, 2))(conv("a")(x))
    y = layers.Flatten(data_format="channels_first")(y)
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"a": 6})


def test_flattened_and_added():
    x = keras.Input((4, 4, 3))
    flat = layers.Flatten()(conv("a")(x))
    y = layers.Add()([flat, layers.Dense(96, name="wide")(layers.Flatten()(x))])
    graph, _ = check(keras.Model(x, layers.Dense(2)(y)), prunable={"a": 6})
    assert graph.group("a").producers == ("a", "wide")


def test_option_a_shortcut_pads_channels():
    x = keras.Input((6, 6, 3))
    a = conv("a", 4)(x)
    short = ops.pad(layers.AveragePooling2D(2)(a), ((0, 0), (0, 0), (0, 0), (2, 2)))
    y = layers.Add()([conv("b", 8, strides=2)(a), short])
    graph, _ = check(keras.Model(x, layers.Dense(2)(layers.ReLU()(y))), save=True)
    assert sum(g.size for g in graph.prunable(residual=True)) == 8


def test_depthwise_of_a_concatenation():
    x = keras.Input((6, 6, 3))
    y = layers.Concatenate()([conv("a", 4)(x), conv("b", 5)(x)])
    y = layers.DepthwiseConv2D(3, depth_multiplier=2)(y)
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"a": 4, "b": 5})


def test_grouped_convolution_of_a_concatenation():
    x = keras.Input((6, 6, 3))
    y = layers.Concatenate()([conv("a", 4)(x), conv("b", 4)(x)])
    y = conv("grouped", 6, groups=2)(y)
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"a": 4, "grouped": 3})


def test_open_image_sizes():
    x = keras.Input((None, None, 3))
    y = layers.Concatenate(axis=-1)([conv("a", 4)(x), conv("b", 5)(x)])
    y = layers.Reshape((-1, 9))(layers.UpSampling2D()(y))
    y = layers.GlobalAveragePooling1D()(layers.Conv1D(4, 3, name="c")(y))
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"a": 4, "b": 5, "c": 4}, save=True)


def test_open_sizes_that_are_flattened_pin():
    x = keras.Input((None, 3))
    y = layers.Conv1D(4, 3, name="a")(x)
    y = layers.Conv1D(4, 3, name="b")(y)
    y = layers.Reshape((-1, 2))(y)
    graph = ChannelGraph(keras.Model(x, layers.Conv1D(2, 1)(y)))
    assert [g.name for g in graph.prunable()] == ["a"]
    assert "reshape" in graph.group("b").pinned_because


@pytest.mark.parametrize(("mode", "free"), [("channels_first", 8), ("channels_last", 8)])
def test_both_data_formats(mode, free):
    # Keras adds a channels_first bias along the width where the width is equal to the number of filters: none is here.
    shape = (3, 13, 13) if mode == "channels_first" else (13, 13, 3)
    axis = 1 if mode == "channels_first" else -1
    x = keras.Input(shape)
    y = layers.Conv2D(free, 3, data_format=mode, name="a")(x)
    y = layers.BatchNormalization(axis=axis)(y)
    y = layers.PReLU(shared_axes=[2, 3] if axis == 1 else [1, 2])(y)
    y = layers.MaxPooling2D(data_format=mode)(layers.ZeroPadding2D(data_format=mode)(y))
    z = layers.DepthwiseConv2D(3, padding="same", data_format=mode)(y)
    gate = layers.GlobalAveragePooling2D(keepdims=True, data_format=mode)(z)
    y = layers.Multiply()([z, layers.Conv2D(free, 1, data_format=mode, name="gate")(gate)])
    y = layers.Concatenate(axis=axis)([y, layers.Conv2D(4, 1, data_format=mode, name="b")(z)])
    y = layers.Flatten(data_format=mode)(y)
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"a": free, "b": 4})


def test_mixed_precision():
    x = keras.Input((6, 6, 3))
    policy = keras.DTypePolicy("mixed_float16")
    y = conv("a", dtype=policy)(x)
    y = layers.BatchNormalization(dtype=policy)(y)
    y = layers.Add(dtype=policy)([y, conv("b", dtype=policy)(y)])
    model = keras.Model(x, layers.Dense(2, dtype="float32")(y))
    _, small = check(model, prunable={"a": 6}, tolerance=2e-2, save=True)
    assert small.get_layer("a").compute_dtype == "float16"
    assert small.get_layer("a").variable_dtype == "float32"


def test_frozen_layers_stay_frozen():
    base = keras.Sequential([keras.Input((6, 6, 3)), conv("a"), layers.BatchNormalization(), conv("b")], name="base")
    x = keras.Input((6, 6, 3))
    model = keras.Model(x, layers.Dense(2, name="last")(conv("c")(base(x))))
    base.trainable = False
    base.get_layer("b").trainable = True
    model.get_layer("c").trainable = False
    _, small = check(model)
    names = [w.path for w in model.trainable_weights]
    assert [w.path for w in small.trainable_weights] == names
    assert not small.get_layer("base").trainable
    assert small.get_layer("base").get_layer("b").trainable


def test_regularizers_constraints_and_initializers_stay():
    x = keras.Input((6, 6, 3))
    options = {"kernel_regularizer": "l2", "kernel_constraint": "max_norm", "kernel_initializer": "he_uniform"}
    model = keras.Model(x, layers.Dense(2)(conv("a", **options)(x)))
    _, small = check(model)
    old, new = model.get_layer("a").get_config(), small.get_layer("a").get_config()
    assert {key for key in old if old[key] != new[key]} == {"filters"}
    assert len(small.losses) == 1


@pytest.mark.parametrize("kind", ["Constant", "custom"])
def test_initializers_that_hold_arrays(kind):
    values = np.random.default_rng(0).normal(size=(3, 3, 3, 6)).astype("float32")
    initializer = keras.initializers.Constant(values) if kind == "Constant" else Filters(values.tolist())
    x = keras.Input((6, 6, 3))
    model = keras.Model(x, layers.Dense(2)(conv("a", kernel_initializer=initializer)(x)))
    _, small = check(model, prunable={"a": 6}, configs=False, save=True)
    fresh = keras.Model.from_config(small.get_config())
    assert fresh.get_layer("a").kernel.shape == small.get_layer("a").kernel.shape


@keras.saving.register_keras_serializable("tests")
class Filters(keras.initializers.Initializer):
    def __init__(self, filters):
        self.filters = filters

    def __call__(self, shape, dtype=None):
        assert shape == np.shape(self.filters)
        return ops.convert_to_tensor(self.filters, dtype)

    def get_config(self):
        return {"filters": self.filters}


def test_seeds_are_copied():
    x = keras.Input((6, 6, 3))
    model = keras.Model(x, layers.Dense(2)(layers.Dropout(0.5, seed=7)(conv("a")(x))))
    model(np.ones((1, 6, 6, 3), "float32"), training=True)
    _, small = check(model)
    state = [np.asarray(v) for v in model.non_trainable_variables]
    assert len(state) == 1
    np.testing.assert_array_equal(state[0], np.asarray(small.non_trainable_variables[0]))


def test_learned_vocabularies_are_copied():
    lookup = layers.StringLookup(vocabulary=None)
    lookup.adapt(np.array(["cat", "dog", "eel"]))
    x = keras.Input((3,), dtype="string")
    y = layers.Dense(6, name="a")(layers.Embedding(5, 6, name="table")(lookup(x)))
    words = ops.convert_to_tensor([["cat", "eel", "yak"], ["dog", "dog", "cat"]])
    check(keras.Model(x, layers.Dense(2)(y)), inputs=words, prunable={"table": 6, "a": 6}, configs=False)


def test_masks_travel():
    x = keras.Input((7,), dtype="int32")
    y = layers.Embedding(9, 6, mask_zero=True, name="table")(x)
    y = layers.Dense(5, name="a")(layers.BatchNormalization()(y))
    y = layers.GlobalAveragePooling1D()(y)
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"table": 6, "a": 5}, configs=False, save=True)


def test_masks_travel_into_nested_models():
    z = keras.Input((7, 6))
    nested_model = keras.Model(z, layers.GlobalAveragePooling1D()(layers.Dense(5, name="a")(z)), name="inner")
    x = keras.Input((7,), dtype="int32")
    y = nested_model(layers.Embedding(9, 6, mask_zero=True, name="table")(x))
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"table": 6, "inner/a": 5}, configs=False)


def test_a_channel_that_meets_many_is_pinned():
    x = keras.Input((6, 6, 3))
    y = conv("narrow", 2)(x)
    y = y[..., :1] * np.linspace(1, 2, 4, dtype="float32") + y[..., 1:]
    graph, _ = check(keras.Model(x, conv("last", 3)(conv("after")(y))), prunable={"after": 6})
    assert graph.group("narrow").pinned_because


def test_a_slice_never_loses_all_of_its_channels():
    x = keras.Input((6, 6, 3))
    y = conv("a", 8)(x)
    y = layers.Concatenate()([ops.relu(y[..., :2]), ops.sigmoid(y[..., 2:])])
    graph, _ = check(keras.Model(x, layers.Dense(2)(y)), rate=0.95, save=True)
    assert sorted(g.size for g in graph.prunable()) == [2, 6]


def test_a_walk_in_inference_mode_leaves_out_augmentation():
    x = keras.Input((8, 8, 3))
    flipped = keras.Sequential([layers.RandomFlip(), layers.RandomTranslation(0.4, 0.4)])(x)
    model = keras.Model(x, conv("a", 4)(layers.Dropout(0.5)(flipped, training=True)))
    trace = ChannelGraph(model).trace
    images = np.random.default_rng(0).random((4, 8, 8, 3)).astype("float32")
    (found,) = trace.run({trace.inputs[0]: images}, trace.outputs, training=False).values()
    np.testing.assert_allclose(found, model(images, training=False), rtol=1e-5, atol=1e-6)
    (changed,) = trace.run({trace.inputs[0]: images}, trace.outputs, training=True).values()
    assert np.abs(changed - found).max() > 0.1
