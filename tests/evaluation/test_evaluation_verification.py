"""Face verification against what can be worked out by hand, and on real faces where they are present."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcp_tf.data import Pairs, pairs_split, read_pairs, split_from_arrays
from dcp_tf.errors import RunError, UsageError
from dcp_tf.evaluation import embed, verify, verify_embeddings
from dcp_tf.evaluation.verification import best_threshold, cosines

RNG = np.random.default_rng(0)
SHARED = pathlib.Path(__file__).parents[3] / "shared/data"


def pairs_of(scores, same, fold):
    """Pairs whose cosines are `scores`, and the embeddings: the left ones lie on an axis."""
    scores, count = np.asarray(scores, np.float64), len(scores)
    left = np.tile([[2.0, 0.0]], (count, 1))
    right = 3 * np.stack([scores, np.sqrt(1 - scores**2)], axis=1)
    files = tuple(map(str, range(2 * count)))
    numbers = np.arange(2 * count)
    pairs = Pairs(files, numbers[:count], numbers[count:], np.asarray(same, bool), np.asarray(fold))
    return np.concatenate([left, right]), pairs


def random_pairs(count=400, folds=10, overlap=0.5):
    same = RNG.random(count) < 0.5
    scores = np.clip(RNG.normal(np.where(same, overlap, -overlap), 0.4), -0.99, 0.99)
    return scores, same, 1 + np.arange(count) * folds // count


def test_cosines_do_not_depend_on_length_and_zero_is_like_nothing():
    a, b = RNG.normal(size=(5, 4)), RNG.normal(size=(5, 4))
    expected = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(cosines(3 * a, 0.1 * b), expected)
    np.testing.assert_array_equal(cosines(np.zeros((2, 3)), np.ones((2, 3))), 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=30))
def test_no_threshold_is_better_than_the_best(scored):
    scores, same = np.array([s for s, _ in scored]) / 5, np.array([s for _, s in scored])
    found = ((scores > best_threshold(scores, same)) == same).sum()
    anywhere = [((scores > t) == same).sum() for t in np.linspace(-1.05, 1.05, 22)]
    assert found == max(anywhere)


def test_each_fold_is_measured_at_the_best_threshold_of_the_others():
    scores, same, fold = random_pairs()
    embeddings, pairs = pairs_of(scores, same, fold)
    found = verify_embeddings(embeddings, pairs)
    for number, threshold, accuracy in zip(found.folds, found.thresholds, found.fold_accuracies, strict=True):
        others, own = fold != number, fold == number
        right = [((scores[others] > t) == same[others]).mean() for t in (threshold, *np.linspace(-1, 1, 999))]
        assert right[0] == max(right)
        assert accuracy == pytest.approx(((scores[own] > threshold) == same[own]).mean())
    assert found.folds == tuple(range(1, 11))
    assert found.accuracy == pytest.approx(np.mean(found.fold_accuracies))
    assert found.std == pytest.approx(np.std(found.fold_accuracies))


def test_some_folds_are_measured_with_the_thresholds_of_all_others():
    embeddings, pairs = pairs_of(*random_pairs())
    whole, part = verify_embeddings(embeddings, pairs), verify_embeddings(embeddings, pairs, folds=[9, 10])
    assert part.folds == (9, 10)
    assert part.thresholds == whole.thresholds[8:]
    assert part.fold_accuracies == whole.fold_accuracies[8:]


def test_true_accepts_at_a_rate_of_false_ones():
    # Of 100 pairs of two people the highest scores are .9, .5, .4 and so on; rates count what lies above.
    different = np.concatenate([[0.9, 0.5, 0.4], np.linspace(0.3, -0.9, 97)])
    same = np.array([0.95, 0.8, 0.6, 0.45, 0.203])
    embeddings, pairs = pairs_of([*different, *same], [False] * 100 + [True] * 5, [1, 2] * 50 + [1, 2, 1, 2, 1])
    found = verify_embeddings(embeddings, pairs, false_accept_rates=(0.005, 0.01, 0.02, 1.0))
    assert found.tar_at_far == pytest.approx({0.005: 0.2, 0.01: 0.6, 0.02: 0.8, 1.0: 1.0})
    assert found.auc == pytest.approx((different[:, None] < same).mean())
    assert (np.diff(found.true_accepts) >= 0).all()
    assert (found.false_accepts[0], found.true_accepts[-1]) == (0, 1)


def test_embeddings_that_tell_all_apart_are_right_everywhere():
    embeddings, pairs = pairs_of([0.9, 0.8, 0.1, 0.2] * 2, [True, True, False, False] * 2, [1] * 4 + [2] * 4)
    found = verify_embeddings(embeddings, pairs)
    assert (found.accuracy, found.std, found.auc) == (1.0, 0.0, 1.0)
    assert json.loads(json.dumps(found.summary()))["tar_at_far"] == {"0.01": 1.0, "0.001": 1.0}


def face_network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 5, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def test_models_and_functions_are_embedded_alike_with_their_mirror_images():
    model, images = face_network(), RNG.random((10, 6, 5, 3)).astype(np.float32)
    split = split_from_arrays(images)
    plain = embed(model, split.batches(4), mirror=False)
    np.testing.assert_allclose(plain, model(images), rtol=1e-5, atol=1e-6)
    joined = embed(lambda batch: model(batch).numpy(), split.batches(3))
    np.testing.assert_allclose(joined, np.concatenate([model(images), model(images[:, :, ::-1])], 1), atol=1e-5)
    labelled = split.with_labels(np.arange(10))
    np.testing.assert_allclose(embed(model, labelled.batches(4), mirror=False), plain, atol=1e-6)


def test_a_network_is_verified_from_its_images():
    model, images = face_network(), RNG.random((8, 6, 5, 3)).astype(np.float32)
    images[4:] = images[:4] + 0.01 * images[:4]
    numbers = np.arange(4)
    same = np.concatenate([np.ones(4, bool), np.zeros(4, bool)])
    left, right = np.tile(numbers, 2), np.concatenate([numbers + 4, (numbers + 1) % 4])
    pairs = Pairs(tuple("abcdefgh"), left, right, same, np.array([1, 2] * 4))
    found = verify(model, split_from_arrays(images).batches(3), pairs)
    assert found.auc == 1.0
    assert found.accuracy > 0.8


def test_a_tflite_file_is_embedded_as_its_model():
    from dcp_tf import tflite

    model, images = face_network(), RNG.random((6, 6, 5, 3)).astype(np.float32)
    runner = tflite.Runner(tflite.convert(model, quantization="float32"))
    batches = split_from_arrays(images).batches(4)
    np.testing.assert_allclose(embed(runner.predict, batches), embed(model, batches), atol=1e-5)


def test_what_cannot_be_verified_is_refused():
    embeddings, pairs = pairs_of([0.9, 0.8, 0.1, 0.2], [True, False] * 2, [1, 1, 2, 2])
    cases = [
        (lambda: verify_embeddings(embeddings, pairs, folds=[3]), r"the folds \[1, 2\], to be measured are \[3\]"),
        (lambda: verify_embeddings(embeddings, pairs, folds=[]), "two folds or more"),
        (lambda: verify_embeddings(embeddings, dataclasses.replace(pairs, fold=np.ones(4, int))), "two folds or more"),
        (lambda: verify_embeddings(embeddings[:5], pairs), "image 7, but there are 5 embeddings"),
        (lambda: verify_embeddings(embeddings[:, 0], pairs), r"shape \(N, D\)"),
        (lambda: verify_embeddings(embeddings, dataclasses.replace(pairs, same=np.ones(4, bool))), "only one kind"),
        (lambda: embed(face_network(), []), "no images"),
        (lambda: embed(lambda x: [x, x], [np.zeros((2, 6, 5, 3))]), "2 outputs"),
        (lambda: embed(lambda x: x[:1], [np.zeros((2, 6, 5, 3))]), r"shape \(2, D\)"),
    ]
    for make, message in cases:
        with pytest.raises(UsageError, match=message):
            make()
    with pytest.raises(RunError, match="not finite"):
        embed(lambda x: np.full((len(x), 3), np.nan), [np.zeros((2, 6, 5, 3))])


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "lfw_pairs.txt").is_file(), reason="LFW is not on this machine")
def test_the_trained_mobilefacenet_on_lfw():
    model = keras.models.load_model(SHARED / "models/mobilefacenet_112x96.keras")
    pairs = read_pairs(str(SHARED / "lfw_pairs.txt"), str(SHARED / "lfw112x96"))
    images = pairs_split(pairs, input_shape=model.input_shape[1:])
    found = verify(model, images.batches(64), pairs)
    assert found.accuracy == pytest.approx(0.9727, abs=0.0002)
    assert found.std == pytest.approx(0.00995, abs=0.0003)
    assert found.tar_at_far[1e-2] == pytest.approx(0.955, abs=0.003)
    assert found.tar_at_far[1e-3] == pytest.approx(0.891, abs=0.005)
