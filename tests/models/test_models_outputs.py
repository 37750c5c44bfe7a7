import keras
import pytest
from keras import layers, ops

from dcp_tf import models
from dcp_tf.errors import UsageError


def ending_in(*steps):
    x = inputs = keras.Input((4, 4, 2))
    for step in steps:
        x = step(x)
    return keras.Model(inputs, x)


def nested(*steps):
    return ending_in(*steps)


CONV = layers.Conv2D
CASES = {
    "dense": ([layers.Flatten(), layers.Dense(3)], "logits"),
    "dense relu": ([layers.Flatten(), layers.Dense(3, activation="relu")], "logits"),
    "dense softmax": ([layers.Flatten(), layers.Dense(3, activation="softmax")], "softmax"),
    "dense sigmoid": ([layers.Flatten(), layers.Dense(1, activation="sigmoid")], "sigmoid"),
    "log softmax": ([layers.Flatten(), layers.Dense(3, activation="log_softmax")], "logits"),
    "conv softmax, reshaped": ([CONV(3, 4, activation="softmax"), layers.Reshape((3,))], "softmax"),
    "Activation": ([layers.Flatten(), layers.Dense(3), layers.Activation("softmax")], "softmax"),
    "Softmax layer": ([layers.Flatten(), layers.Dense(3), layers.Softmax()], "softmax"),
    "layer as activation": ([layers.Flatten(), layers.Dense(3, activation=layers.Softmax())], "softmax"),
    "operation": ([layers.Flatten(), layers.Dense(3), ops.softmax], "softmax"),
    "sigmoid operation": ([layers.Flatten(), layers.Dense(1), ops.sigmoid], "sigmoid"),
    "operation, then moved": (
        [CONV(3, 4), ops.softmax, lambda x: ops.squeeze(x, 1), lambda x: ops.reshape(x, (-1, 3))],
        "softmax",
    ),
    "then identity, dropout, linear": (
        [
            layers.Flatten(),
            layers.Dense(3, "softmax"),
            layers.Identity(),
            layers.Dropout(0.1),
            layers.Activation("linear"),
        ],
        "softmax",
    ),
    "cast": ([layers.Flatten(), layers.Dense(3, "softmax"), lambda x: ops.cast(x, "float16")], "softmax"),
    "softmax before the last layer": ([layers.Flatten(), layers.Dense(9, "softmax"), layers.Dense(3)], "logits"),
    "softmax, then scaled": ([layers.Flatten(), layers.Dense(3, "softmax"), lambda x: x * 2.0], "logits"),
    "nested": ([layers.Flatten(), keras.Sequential([layers.Dense(3), layers.Softmax()])], "softmax"),
    "nested, then reshaped": ([nested(CONV(3, 4, activation="sigmoid"), layers.Flatten())], "sigmoid"),
    "nested without": ([nested(layers.Flatten(), layers.Dense(3))], "logits"),
    "the input itself": ([layers.Flatten()], "logits"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_last_activation_is_found(case):
    steps, expected = CASES[case]
    assert models.outputs_kind(ending_in(*steps)) == expected


def test_sequential_models():
    stack = [keras.Input((8,)), layers.Dense(3), layers.Activation("softmax")]
    assert models.outputs_kind(keras.Sequential(stack)) == "softmax"
    assert models.outputs_kind(keras.Sequential(stack[:2])) == "logits"
    with pytest.raises(UsageError, match="not built"):
        models.outputs_kind(keras.Sequential(stack[1:]))


def test_a_layer_that_is_used_twice():
    inputs = keras.Input((3,))
    softmax = layers.Softmax()
    assert models.outputs_kind(keras.Model(inputs, layers.Dense(3)(softmax(inputs)))) == "logits"
    assert models.outputs_kind(keras.Model(inputs, softmax(layers.Dense(3)(softmax(inputs))))) == "softmax"


def test_nested_model_with_two_outputs():
    inputs = keras.Input((3,))
    inner = keras.Model(inputs, [layers.Dense(2, "softmax")(inputs), layers.Dense(2)(inputs)])
    outer = keras.Input((3,))
    assert models.outputs_kind(keras.Model(outer, inner(outer)[0])) == "softmax"
    assert models.outputs_kind(keras.Model(outer, inner(outer)[1])) == "logits"


def test_outputs_of_several_kinds_are_refused():
    inputs = keras.Input((3,))
    dense = layers.Dense(3)(inputs)
    assert models.outputs_kind(keras.Model(inputs, [dense, layers.Dense(2)(inputs)])) == "logits"
    with pytest.raises(UsageError, match="logits, softmax"):
        models.outputs_kind(keras.Model(inputs, [dense, layers.Softmax()(dense)]))
