"""Prepared data sets of TensorFlow Datasets, filled with the random examples of its own mock."""

import tensorflow as tf
import tensorflow_datasets as tfds


def write_mock_set(root, name, splits):
    """Writes the data set `name` below `root` as TFDS lays it out; `splits` says how many examples each one holds.

    Features, classes and encodings are those of the real set.
    """
    builder = tfds.builder(name, data_dir=str(root))
    folder = builder.data_path
    folder.mkdir(parents=True)
    infos = []
    for split, count in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=builder.name, split=split, filetype_suffix="tfrecord"
        )
        with (
            tfds.testing.mock_data(num_examples=count, policy=tfds.testing.MockPolicy.USE_CODE),
            tf.io.TFRecordWriter(str(template.sharded_filepaths(1)[0])) as writer,
        ):
            for example in tfds.load(name, split=split).as_numpy_iterator():
                writer.write(builder.info.features.serialize_example(example))
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=[count], num_bytes=0, filename_template=template))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=builder.info.features,
        split_infos=infos,
        supervised_keys=builder.info.supervised_keys,
        check_data=False,
    )
