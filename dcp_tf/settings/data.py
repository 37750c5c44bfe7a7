"""The names that settings of data, losses and devices take."""

AUGMENTATIONS = ("none", "shift", "flip", "mirror", "crop")
MARGINS = ("arcface", "cosface", "asoftmax")  # losses of embeddings
LOSSES = ("auto", "softmax", "sigmoid", "multilabel", "mse", *MARGINS)
STRATEGIES = ("one", "mirrored", "multi_worker", "tpu")
PROTOCOLS = ("lfw", "cfp_fp", "agedb_30")  # lists of pairs of faces
