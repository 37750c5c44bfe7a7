"""Image data sets: loading, splitting, normalising, and batches that are the same for the same seed."""

from dcp_tf.data.arrays import from_arrays, split_from_arrays
from dcp_tf.data.digest import digest
from dcp_tf.data.faces import FaceSettings, read_identities
from dcp_tf.data.held_out import hold_out
from dcp_tf.data.load import load
from dcp_tf.data.normalization import NORMALIZATIONS, Normalization, find_normalization
from dcp_tf.data.pairs import Pairs, pairs_split, read_pairs
from dcp_tf.data.plain import PlainSplit, load_plain, plain_split
from dcp_tf.data.readable import Readable, images_per_measurement
from dcp_tf.data.split import ImageDataset, Split
from dcp_tf.data.stream import as_split

__all__ = [
    "NORMALIZATIONS",
    "FaceSettings",
    "ImageDataset",
    "Normalization",
    "Pairs",
    "PlainSplit",
    "Readable",
    "Split",
    "as_split",
    "digest",
    "find_normalization",
    "from_arrays",
    "hold_out",
    "images_per_measurement",
    "load",
    "load_plain",
    "pairs_split",
    "plain_split",
    "read_identities",
    "read_pairs",
    "split_from_arrays",
]
