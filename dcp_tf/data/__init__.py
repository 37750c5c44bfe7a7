"""Image data sets: loading, splitting, normalising, and batches that are the same for the same seed."""

from dcp_tf.data.arrays import from_arrays, split_from_arrays
from dcp_tf.data.load import check_labels, load
from dcp_tf.data.normalization import NORMALIZATIONS, Normalization, find_normalization
from dcp_tf.data.plain import PlainSplit, load_plain, plain_split
from dcp_tf.data.split import ImageDataset, Split
from dcp_tf.data.stream import as_split

__all__ = [
    "NORMALIZATIONS",
    "ImageDataset",
    "Normalization",
    "PlainSplit",
    "Split",
    "as_split",
    "check_labels",
    "find_normalization",
    "from_arrays",
    "load",
    "load_plain",
    "plain_split",
    "split_from_arrays",
]
