"""Equal seeds, equal runs.

Op determinism (`tf.config.experimental.enable_op_determinism`) stays off: CPUs do not need it, and on GPUs operations
without a deterministic kernel would raise (docs/decisions/053). Users who want it switch it on before training.
"""

import keras


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, and so every initial weight drawn after it."""
    keras.utils.set_random_seed(seed)


def seed_random_layers(model: keras.Model, seed: int) -> None:
    """Restarts the random states of the model's layers (Dropout, noise) from `seed`, whatever they drew before."""
    states = [v for v in model.variables if v.name == "seed_generator_state"]
    for index, state in enumerate(states):
        state.assign([(seed + index) % 2**31, 0])
