"""The errors that a user can do something about: one clear line each."""


class UsageError(ValueError):
    """The input cannot be used: a flag, a file, a model or labels. Programs end with exit code 2."""


class RunError(RuntimeError):
    """A run that started well cannot go on, such as a NaN loss or a full disk. Programs end with exit code 1."""
