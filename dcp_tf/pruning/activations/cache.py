"""Keeps the tensors of all batches: in memory if they fit, else in files, else not at all."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence

import tensorflow as tf

from dcp_tf.errors import RunError
from dcp_tf.pruning.activations.memory import cache_bytes

Tensors = Sequence[tf.Tensor]


class ByteBudget:
    """Counts bytes against a limit."""

    def __init__(self, limit: int):
        self.limit = limit
        self.used = 0

    def reserve(self, size: int) -> bool:
        """Reserves `size` bytes; returns False, and reserves nothing, if that would exceed the limit."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def release(self, size: int) -> None:
        """Returns `size` bytes."""
        self.used -= size


class Cache:
    """Memory and, when it is full, a folder of files, each with a limit.

    Attributes:
        memory: the budget of the memory.
        disk: the budget of the files.
    """

    def __init__(self, memory: int, disk: int = 0, folder: str | os.PathLike | None = None):
        """Creates an empty cache.

        Args:
            memory: bytes.
            disk: bytes; at most half of the free space.
            folder: the files go into a new folder in it; None: the folder of temporary files.
        """
        self.memory = ByteBudget(memory)
        self._parent = pathlib.Path(tempfile.gettempdir() if folder is None else folder)
        self._folder: pathlib.Path | None = None
        self._files = 0
        if disk:
            self._parent.mkdir(parents=True, exist_ok=True)
            disk = min(disk, shutil.disk_usage(self._parent).free // 2)
        self.disk = ByteBudget(disk)

    @classmethod
    def of_gib(cls, gib: float, disk_gib: float) -> "Cache":
        """The cache that the settings `cache_gib` and `cache_disk_gib` allow."""
        return cls(cache_bytes(gib), int(disk_gib * 2**30))

    def keep(
        self,
        compute: Callable[[int], Tensors],
        count: int,
        size: int,
        old: "CachedBatches | None" = None,
        files_first: bool = False,
    ) -> "CachedBatches | None":
        """Computes and keeps the tensors of all batches; returns None, and computes nothing, if they do not fit.

        Args:
            compute: the tensors of a batch.
            count: number of batches.
            size: bytes of the tensors of all batches.
            old: the tensors that the new ones are computed from, and replace batch by batch, so that both never exist
                as a whole.
            files_first: use memory only if the files are full, and at most half of it.

        Raises:
            RunError: a file cannot be written.
        """
        if old is not None:
            old.budget.release(old.size)
        stores = [(self.memory, lambda tensors: tensors), (self.disk, self._write)]
        for budget, store in reversed(stores) if files_first else stores:
            if files_first and budget is self.memory and size > budget.limit / 2:
                continue
            if budget.reserve(size):
                kept = CachedBatches([], budget, size)
                for i in range(count):
                    kept.batches.append(store(compute(i)))
                    if old is not None:
                        old.forget(i)
                return kept
        if old is not None:
            old.budget.reserve(old.size)
        return None

    def close(self) -> None:
        """Deletes the files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _write(self, tensors: Tensors) -> "list[_Filed]":
        try:
            if self._folder is None:
                self._folder = pathlib.Path(tempfile.mkdtemp(prefix="dcp_tf_cache_", dir=self._parent))
            filed = []
            for tensor in tensors:
                filed.append(_Filed(self._folder / f"{self._files}.tensor", tensor.dtype))
                self._files += 1
                filed[-1].path.write_bytes(tf.io.serialize_tensor(tensor).numpy())
            return filed
        except OSError as error:
            self.close()
            raise RunError(
                f"cannot write the cache in {self._parent} ({error.strerror or error}); free some space, or give "
                "cache_disk_gib=0",
                setting="cache_disk_gib",
            ) from error


class CachedBatches:
    """The tensors of every batch, in memory or in files.

    Attributes:
        batches: per batch the tensors, or their files.
        budget: that counts them.
        size: in bytes.
    """

    def __init__(self, batches: list, budget: ByteBudget, size: int):
        self.batches, self.budget, self.size = batches, budget, size

    def __getitem__(self, index: int) -> Tensors:
        return [x.read() if isinstance(x, _Filed) else x for x in self.batches[index]]

    def forget(self, index: int) -> None:
        """Frees one batch."""
        for x in self.batches[index]:
            if isinstance(x, _Filed):
                x.path.unlink(missing_ok=True)
        self.batches[index] = []

    def release(self) -> None:
        """Frees all batches."""
        for index in range(len(self.batches)):
            self.forget(index)
        self.budget.release(self.size)


class _Filed:
    """A tensor in a file."""

    def __init__(self, path: pathlib.Path, dtype: tf.DType):
        self.path, self._dtype = path, dtype

    def read(self) -> tf.Tensor:
        return tf.io.parse_tensor(self.path.read_bytes(), self._dtype)
