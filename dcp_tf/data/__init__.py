"""Image data sets: loading, splitting, normalizing, and batches that are the same for the same seed."""

from dcp_tf.data.array_split import ArraySplit, load_arrays, make_array_split
from dcp_tf.data.as_split import as_split
from dcp_tf.data.class_weights import with_class_weight
from dcp_tf.data.data_split import DataSplit, digest, images_per_measurement, values_per_sample
from dcp_tf.data.faces.identities import FaceSettings, read_identities
from dcp_tf.data.faces.pairs import Pairs, pairs_split, read_pairs
from dcp_tf.data.held_out import hold_out
from dcp_tf.data.image_arrays import from_arrays, split_from_arrays
from dcp_tf.data.image_split import ImageDataset, ImageSplit
from dcp_tf.data.load import load
from dcp_tf.data.py_dataset_split import PyDatasetSplit
from dcp_tf.data.structure import split_batch
from dcp_tf.data.tf_data_split import TfDataSplit
from dcp_tf.deprecated import renamed
from dcp_tf.settings.normalization import NORMALIZATIONS, Normalization, find_normalization

__all__ = [
    "NORMALIZATIONS",
    "ArraySplit",
    "DataSplit",
    "FaceSettings",
    "ImageDataset",
    "ImageSplit",
    "Normalization",
    "Pairs",
    "PyDatasetSplit",
    "TfDataSplit",
    "as_split",
    "digest",
    "find_normalization",
    "from_arrays",
    "hold_out",
    "images_per_measurement",
    "load",
    "load_arrays",
    "make_array_split",
    "pairs_split",
    "read_identities",
    "read_pairs",
    "split_batch",
    "split_from_arrays",
    "values_per_sample",
    "with_class_weight",
]

__getattr__ = renamed(
    __name__,
    {
        "DatasetSplit": "TfDataSplit",
        "PlainSplit": "ArraySplit",
        "Readable": "DataSplit",
        "Split": "ImageSplit",
        "load_plain": "load_arrays",
        "plain_split": "make_array_split",
    },
)
