"""What a run tells: one record per epoch."""

import json


class History(list):
    """A list with one dict per finished epoch.

    Each holds `epoch` (from 1), `loss` (weighted sum of the heads plus the layers' own penalties, without weight
    decay), `losses` (one mean per head, unweighted), `learning_rate` (of the last step), `top1` (fraction of 1 while
    training, only if the last loss can tell), `seconds` (with validation), and what the validation function returned.
    """

    def to_json(self) -> str:
        """The records as JSON text."""
        return json.dumps(self, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "History":
        """The inverse of `to_json`."""
        return cls(json.loads(text))
