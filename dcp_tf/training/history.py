"""What a run tells: one record per epoch."""

import json
from collections.abc import Iterable
from typing import Any


class History(list):
    """A list with one dict per finished epoch, and what is said of the whole.

    Each holds `epoch` (from 1), `loss` (weighted sum of the heads plus the layers' own penalties, without weight
    decay), `losses` (one mean per head, unweighted), `learning_rate` (of the last step), `top1` (fraction of 1 while
    training, only if the last loss can tell), `seconds` (with validation), what the validation function returned, and
    with held-out inputs `held_out_loss` and, for instance, `held_out_top1`.

    Attributes:
        resolved: settings as they were used: `epochs`, `batch_size`, `clip_norm`.
        held_out: with held-out inputs how many these are (`images`), the `metric` that they were compared by, its
            value `before` training and of the epoch that was `kept`, and its number `kept_epoch` (0: none); else None.
    """

    def __init__(self, records: Iterable[dict[str, Any]] = ()):
        super().__init__(records)
        self.resolved: dict[str, Any] = {}
        self.held_out: dict[str, Any] | None = None

    def phase(self, name: str, seconds: float, **more: Any) -> dict[str, Any]:
        """What `summary.json` says of a training."""
        held_out = {} if self.held_out is None else {"held_out": self.held_out}
        return {"name": name, "seconds": seconds, **more, **self.resolved, **held_out, "history": list(self)}

    def to_json(self) -> str:
        """The records as JSON text."""
        return json.dumps(self, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "History":
        """The inverse of `to_json`."""
        return cls(json.loads(text))
