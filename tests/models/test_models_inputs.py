import keras
import numpy as np
import pytest
from keras import layers, ops

from dcp_tf.models import takes_raw_pixels


def beginning_with(*steps, dtype="float32", shape=(6, 6, 3), **options):
    return keras.Sequential([keras.Input(shape, dtype=dtype, **options), *steps, layers.Conv2D(4, 3)])


def graph(front, shape=(6, 6, 3), **options):
    image = keras.Input(shape, **options)
    return keras.Model(image, layers.Conv2D(4, 3, padding="same", name="first")(front(image)))


def adapted(mean, deviation):
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(mean, deviation, (50, 6, 6, 3)).astype("float32"))
    return layer


def batch_normalization(mean, variance):
    layer = layers.BatchNormalization(trainable=False)
    layer.build((None, 6, 6, 3))
    layer.set_weights([np.full(3, 0.02), np.ones(3), np.full(3, mean), np.full(3, variance)])
    return layer


def two_uses(image):
    rest = layers.Conv2D(3, 1)(layers.AveragePooling2D(1)(image))
    return layers.Concatenate()([image / 255.0, rest])


def in_models(*steps, depth=3):
    """The steps in a Sequential model in functional models, one in the other."""
    model = keras.Sequential([keras.Input((6, 6, 3)), *steps])
    for _ in range(depth):
        image = keras.Input((6, 6, 3))
        model = keras.Model(image, model(image))
    return model


AUGMENTATION = (
    *(layers.RandomTranslation(0.05, 0.05), layers.RandomRotation(0.02), layers.RandomContrast(0.2)),
    *(layers.RandomBrightness(0.1), layers.RandomFlip(), layers.RandomZoom(0.1), layers.RandomCrop(6, 6)),
    *(layers.RandomHue(0.1, (0, 255)), layers.RandomSaturation(0.5), layers.RandomErasing(), layers.RandomShear(0.1)),
    *(layers.GaussianNoise(0.1), layers.GaussianDropout(0.1), layers.Dropout(0.1), layers.SpatialDropout2D(0.1)),
    *(layers.AutoContrast(), layers.RandAugment(), layers.MixUp(), layers.CutMix(), layers.Solarization()),
    *(layers.RandomGaussianBlur(), layers.RandomGrayscale(), layers.RandomInvert(), layers.AugMix()),
    *(layers.RandomPosterization(4), layers.RandomSharpness(0.5), layers.RandomPerspective(), layers.Identity()),
)
SHAPES = (layers.Permute((2, 1, 3)), layers.Reshape((6, 6, 3)), layers.ZeroPadding2D(1), layers.Cropping2D(1))
SHAPES += (layers.Resizing(12, 12), layers.CenterCrop(6, 6), layers.UpSampling2D(), layers.MaxPooling2D())
applications = keras.applications

RAW = {
    "rescaling": lambda: beginning_with(layers.Rescaling(1 / 255)),
    "augmentation layer": lambda: beginning_with(layers.RandomFlip(), layers.Rescaling(1 / 127.5, -1)),
    "channels": lambda: beginning_with(layers.Rescaling([0.017, 0.017, 0.018])),
    "normalization": lambda: beginning_with(layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3)),
    "adapted": lambda: beginning_with(adapted(120, 60)),
    "integers": lambda: beginning_with(layers.Rescaling(1.0), dtype="uint8"),
    "nested": lambda: keras.Sequential(
        [keras.Input((6, 6, 3)), beginning_with(layers.Rescaling(1 / 255)), layers.Flatten()]
    ),
    "every augmentation": lambda: graph(lambda x: layers.Rescaling(1 / 255)(keras.Sequential([*AUGMENTATION])(x))),
    "shapes": lambda: beginning_with(*SHAPES, layers.Rescaling(1 / 255)),
    "augmentation model": lambda: graph(lambda x: layers.Rescaling(1 / 255)(in_models(*AUGMENTATION[:4])(x))),
    "augmentation that is on": lambda: graph(lambda x: layers.RandomContrast(0.9)(x, training=True) / 255.0),
    "rescaling deep inside": lambda: graph(in_models(layers.Rescaling(1 / 255))),
    "kernels deep inside": lambda: graph(in_models(layers.Rescaling(1 / 255), layers.Conv2D(3, 3, padding="same"))),
    "pipeline": lambda: beginning_with(layers.Pipeline([layers.RandomFlip(), adapted(110, 50)])),
    "operations": lambda: graph(lambda x: x / 127.5 - 1),
    "statistics by hand": lambda: graph(lambda x: (ops.cast(x, "float32") - np.float32([123, 117, 104])) / 58.0),
    "means alone": lambda: graph(lambda x: ops.subtract(x, 117.0)),
    "in two steps": lambda: graph(lambda x: (ops.multiply(x, 1 / 255) - 0.45) / 0.22),
    "clipped": lambda: graph(lambda x: ops.clip(x / 255.0, 0.0, 1.0)),
    "two uses": lambda: graph(two_uses),
    "a frozen BatchNormalization": lambda: beginning_with(batch_normalization(120.0, 3600.0)),
    "caffe": lambda: graph(applications.resnet50.preprocess_input),
    "tf": lambda: graph(applications.mobilenet_v2.preprocess_input),
    "torch": lambda: graph(applications.densenet.preprocess_input),
    "an open size": lambda: graph(applications.densenet.preprocess_input, (None, None, 3)),
    "a batch size": lambda: beginning_with(layers.Rescaling(1 / 255), batch_size=4),
    "augmentation, EfficientNet": lambda: graph_of_application(applications.EfficientNetB0),
    "augmentation, MobileNetV3": lambda: graph_of_application(applications.MobileNetV3Small),
    "coordinates": lambda: graph(lambda x: layers.Concatenate()([x / 255.0, ops.ones_like(x)])),
}


def graph_of_application(make):
    image = keras.Input((32, 32, 3))
    inner = make(weights=None, input_shape=(32, 32, 3), include_top=False)
    return keras.Model(image, inner(keras.Sequential([*AUGMENTATION[:3]])(image)))


class Augment(keras.Model):
    """An augmentation model whose graph is hidden."""

    def __init__(self):
        super().__init__()
        self.flip = layers.RandomFlip()

    def call(self, images, training=False):
        return self.flip(images, training=training)


RAW |= {
    "a subclassed augmentation model": lambda: graph(lambda x: Augment()(x) / 255.0),
    "a lambda": lambda: beginning_with(layers.Lambda(lambda x: x / 255.0)),
    "an inverse Normalization": lambda: beginning_with(layers.Normalization(mean=0.0, variance=6e4), layers.Identity()),
    "statistics, then BatchNormalization": lambda: beginning_with(
        layers.Rescaling(1 / 255), batch_normalization(0.45, 0.07)
    ),
}
OTHER = {
    "nothing": lambda: beginning_with(),
    "0 to 1": lambda: beginning_with(layers.Rescaling(2.0, -1)),
    "-1 to 1": lambda: beginning_with(layers.Rescaling(0.5, 0.5)),
    "normalization": lambda: beginning_with(layers.Normalization(mean=[0.5] * 3, variance=[0.06] * 3)),
    "a kernel first": lambda: beginning_with(layers.Conv2D(3, 1), layers.Rescaling(1 / 255)),
    "augmentation": lambda: beginning_with(*AUGMENTATION[:6]),
    "statistics of 0 to 1": lambda: graph(lambda x: (x - np.float32([0.485, 0.456, 0.406])) / 0.225),
    "up to 0..255 and back": lambda: graph(lambda x: applications.densenet.preprocess_input(x * 255.0)),
    "a BatchNormalization": lambda: beginning_with(batch_normalization(0.0, 1.0)),
    "statistics of each image": lambda: graph(lambda x: (x - ops.mean(x, (1, 2, 3), True)) / (ops.std(x) + 1e-3)),
    "decibels": lambda: beginning_with(layers.Normalization(mean=[-40.0] * 3, variance=[400.0] * 3)),
    "sizes that cannot be": lambda: graph(lambda x: layers.Cropping2D(200)(x) / 255.0, (None, None, 3)),
    "a rescaling behind the end": lambda: keras.Sequential([beginning_with(), layers.Rescaling(1 / 255)]),
}


@pytest.mark.parametrize("case", RAW)
def test_a_model_made_for_0_to_255_is_known(case):
    model = RAW[case]()
    reason = takes_raw_pixels(model)
    assert reason
    # What it says is so: what the first layer makes of pixels of 0..255 is of the order of 1, of its offset at most.
    if model.inputs[0].dtype == "float32" and case not in ("caffe", "means alone", "two uses"):
        image = np.full([size or n for size, n in zip(model.inputs[0].shape, (1, 32, 32, 3), strict=True)], 255.0)
        assert np.abs(model(image.astype("float32"), training=False)).max() < 20


@pytest.mark.parametrize("case", OTHER)
def test_other_models_are_left_alone(case):
    assert takes_raw_pixels(OTHER[case]()) is None


@pytest.mark.parametrize(
    ("case", "reading"),
    [
        ("operations", "the model begins with TrueDivide: first reads (pixel - 127.5) / 127.5"),
        ("means alone", "the model begins with Subtract: first reads pixel - 117"),
        ("clipped", "the model begins with TrueDivide: first reads pixel / 255"),
        ("caffe", "the model begins with Add: first reads pixel - 116.8"),
        ("every augmentation", "the model begins with Rescaling: first reads pixel / 255"),
    ],
)
def test_the_reason_is_what_the_first_kernel_reads(case, reading):
    assert takes_raw_pixels(RAW[case]()) == reading
