"""The fully connected autoencoder that finds anomalies in the sound of machines."""

import keras
from keras import layers


def autoencoder(input_shape: tuple[int] = (640,), width: int = 128, code: int = 8, depth: int = 4) -> keras.Model:
    """Builds the autoencoder of MLPerf Tiny (Banbury et al. 2021, after Koizumi et al. 2019, "ToyADMOS").

    Fully connected layers with BatchNormalization and ReLU: `depth` of them, the code, `depth` again, and a linear one
    that gives the input back. The error of the reconstruction says how unusual a sound is. 269,992 parameters with
    BatchNorm's statistics, 264,192 MACs.

    Args:
        input_shape: (N,): five frames of 128 mel frequencies, one after the other.
        width: units of the hidden layers.
        code: units of the narrowest one.
        depth: hidden layers before the code, and after it.

    Returns:
        An untrained functional model that ends in values like its inputs.
    """
    x = inputs = keras.Input(input_shape, name="frames")
    names = [f"encoder{n}" for n in range(1, depth + 1)] + ["code"] + [f"decoder{n}" for n in range(1, depth + 1)]
    for name in names:
        units = code if name == "code" else width
        x = layers.Dense(units, kernel_initializer="he_normal", name=f"{name}_dense")(x)
        x = layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_bn")(x))
    return keras.Model(inputs, layers.Dense(input_shape[0], name="reconstruction")(x), name="autoencoder")
