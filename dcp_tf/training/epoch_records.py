"""What a training tells of its epochs: lines, and scalars for TensorBoard."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf


@contextlib.contextmanager
def scalars(log_dir: str | None) -> Iterator[Callable[[str, Mapping], None]]:
    """A function that writes a record's numbers for TensorBoard as `phase/name`, if there is a folder."""
    if log_dir is None:
        yield lambda phase, record: None
        return
    writer = tf.summary.create_file_writer(str(log_dir))
    # What `tf.summary.scalar` writes; that function itself works only where TensorBoard is installed.
    scalar = tf.compat.v1.SummaryMetadata(data_class="DATA_CLASS_SCALAR")
    scalar.plugin_data.plugin_name = "scalars"

    def log(phase: str, record: Mapping) -> None:
        heads = {f"losses/{index}": value for index, value in enumerate(record["losses"])}
        with writer.as_default(step=record["epoch"]):
            for name, value in {**record, **heads}.items():
                if name not in ("epoch", "losses"):
                    tf.summary.write(f"{phase}/{name}", tf.constant(value, tf.float32), metadata=scalar)
        writer.flush()

    try:
        yield log
    finally:
        writer.close()


def epoch_line(record: Mapping[str, Any], phase: str, epochs: int) -> str:
    """For example "fine-tuning 3/10  loss 0.123  top1 0.950  lr 0.01  12 s"."""
    parts = [f"{phase} {record['epoch']}/{epochs}", f"loss {record['loss']:.4g}"]
    shown = ("epoch", "loss", "losses", "learning_rate", "top1", "seconds", "held_out_loss")
    parts += [f"top1 {record['top1']:.4f}"] if "top1" in record else []
    parts += [f"{name} {value:.4g}" for name, value in record.items() if name not in shown]
    return "  ".join([*parts, f"lr {record['learning_rate']:.3g}", f"{record['seconds']:.0f} s"])


def kept_line(held_out: Mapping[str, Any], phase: str, epochs: int) -> str:
    """For example "kept epoch 7 of 10 (held-out top1 0.9580; before fine-tuning 0.9480)"."""
    what, before = f"held-out {held_out['metric']}", held_out["before"]
    if not held_out["kept_epoch"]:
        return (
            f"kept the model as it was before {phase}: none of {epochs} epochs did clearly better ({what} {before:.4f})"
        )
    kept = f"kept epoch {held_out['kept_epoch']} of {epochs}"
    return f"{kept} ({what} {held_out['kept']:.4f}; before {phase} {before:.4f})"
