"""Feature maps that know which of their channels go together, because each step declares it: no label rule is asked."""

from collections import Counter, defaultdict

import keras
import numpy as np


class Ledger:
    """What the steps of one model declare about its channels, which are numbers here."""

    def __init__(self):
        self.same_as: list[int] = []  # union-find
        self.facts: list[tuple[int, tuple]] = []
        self.shuffles: list[np.ndarray] = []

    def make(self, count, kind="producer"):
        """`count` new channels of one operation, or, as a "pin", of the model's inputs."""
        new = list(range(len(self.same_as), len(self.same_as) + count))
        self.same_as += new
        self.declare(new, kind)
        return new

    def declare(self, channels, kind):
        """States one fact of all the channels: they share it with no others."""
        fact = (kind, len(self.facts))
        self.facts += [(channel, fact) for channel in set(channels)]

    def tie(self, first, second):
        """Channels that meet live or die together."""
        for a, b in zip(first, second, strict=True):
            self.same_as[self.root(a)] = self.root(b)

    def root(self, channel):
        while self.same_as[channel] != channel:
            channel = self.same_as[channel]
        return channel

    def settle(self):
        """A channel shuffle takes the same channels of each of its groups, unless all channels of a group are one."""
        for rows in self.shuffles:
            roots = np.vectorize(self.root)(rows)
            if (roots != roots[:1]).any() and (roots != roots[:, :1]).any():
                for row in rows:
                    self.tie(row, rows[0])

    def prunable(self):
        """How many groups there are of each (size, producers, consumers, whether it is a residual stream)."""
        self.settle()
        facts = defaultdict(set)
        for channel, fact in self.facts:
            facts[self.root(channel)].add(fact)
        groups = Counter(frozenset(known) for known in facts.values())
        prunable = Counter()
        for known, size in groups.items():
            kinds = Counter(kind for kind, _ in known)
            if size > 1 and kinds["producer"] and kinds["consumer"] and not kinds["pin"]:
                prunable[size, kinds["producer"], kinds["consumer"], kinds["residual"] > 0] += 1
        return prunable


class Map:
    """A feature map and what its channels are; `declare` is only called where an output of the model depends on it."""

    def __init__(self, tensor, declare):
        self.tensor, self._declare, self._channels = tensor, declare, None
        self.shape, self.size = tensor.shape, tensor.shape[-1]

    def channels(self, ledger):
        """The number of each channel."""
        if self._channels is None:
            self._channels = self._declare(ledger)
            assert len(self._channels) == self.size
        return self._channels

    # What a step does to channels

    def keep(self, tensor):
        """Every channel stays where it is."""
        return self.move(tensor, range(self.size))

    def move(self, tensor, order, part=False):
        """Channel i of the new map is channel `order[i]` of this one; a `part` of them has to keep one."""

        def declare(ledger):
            before = self.channels(ledger)
            picked = [before[i] for i in order]
            if part and len(set(before)) > 1:
                ledger.declare(picked, "part")
            return picked

        return Map(tensor, declare)

    def read(self, tensor, inner=0):
        """A kernel reads all channels and makes new ones; where there are `inner` ones, a second kernel reads those."""

        def declare(ledger):
            ledger.declare(self.channels(ledger), "consumer")
            if inner:
                ledger.declare(ledger.make(inner), "consumer")
            return ledger.make(tensor.shape[-1])

        return Map(tensor, declare)

    def read_again(self, tensor, inner=0):
        """As `read`, and the same layers read what they made: that is what they read at first."""
        once = self.read(tensor, inner)

        def declare(ledger):
            after, before = once.channels(ledger), self.channels(ledger)
            ledger.tie(before, after)
            return after

        return Map(tensor, declare)

    def read_in_groups(self, tensor, groups):
        """A grouped convolution: each of its groups keeps the same channels and makes the same ones."""
        if groups == 1:
            return self.read(tensor)
        if groups == self.size:
            return self.move(tensor, np.repeat(range(self.size), tensor.shape[-1] // self.size))

        def declare(ledger):
            before = np.reshape(self.channels(ledger), (groups, -1))
            ledger.declare(before.ravel().tolist(), "consumer")
            made = np.reshape(ledger.make(tensor.shape[-1]), (groups, -1))
            for row_in, row_out in zip(before, made, strict=True):
                ledger.tie(row_in, before[0])
                ledger.tie(row_out, made[0])
            return made.ravel().tolist()

        return Map(tensor, declare)

    def shuffle(self, tensor, groups):
        """The channels as rows of so many groups, read column by column."""

        def declare(ledger):
            rows = np.reshape(self.channels(ledger), (groups, -1))
            ledger.shuffles.append(rows)
            return rows.T.ravel().tolist()

        return Map(tensor, declare)

    def gate(self, tensor, gates):
        """Times what one kernel makes of all channels: one value for each of them, or one for all."""

        def declare(ledger):
            before = self.channels(ledger)
            ledger.declare(before, "consumer")
            _spread(ledger, before, ledger.make(gates))
            return before

        return Map(tensor, declare)

    def mix(self, tensor, hidden):
        """Plus what two layers with kernels, `hidden` units between them, make of the positions of each channel."""

        def declare(ledger):
            before = self.channels(ledger)
            ledger.declare(ledger.make(hidden), "consumer")
            ledger.declare(before, "residual")
            return before

        return Map(tensor, declare)

    def spread(self, tensor, other):
        """Times the first channel of another map."""

        def declare(ledger):
            before, gates = self.channels(ledger), other.channels(ledger)
            if len(set(gates)) > 1:
                ledger.declare(gates[:1], "part")
            _spread(ledger, before, gates[:1])
            return before

        return Map(tensor, declare)

    def pad(self, tensor, front, back):
        """New channels before and behind; of a single channel they are taken for copies."""

        def declare(ledger):
            before = self.channels(ledger)
            alone = len(set(before)) == 1
            new = before[:1] * (front + back) if alone else ledger.make(front + back)
            return [*new[:front], *before, *new[front:]]

        return Map(tensor, declare)

    def pin(self, tensor, whole=False):
        """Something looks at all channels together; with `whole` nobody knows what it makes of them."""

        def declare(ledger):
            before = self.channels(ledger)
            if len(set(before)) == 1:
                return before
            ledger.declare(before, "pin")
            return ledger.make(1, kind="pin") * self.size if whole else before

        return Map(tensor, declare)

    def meet(self, tensor, other, residual):
        """Value by value with a map of the same shape; a sum is a residual stream."""

        def declare(ledger):
            first, second = self.channels(ledger), other.channels(ledger)
            ledger.tie(first, second)
            if residual:
                ledger.declare([*first, *second], "residual")
            return first

        return Map(tensor, declare)


def _spread(ledger, channels, gates):
    if len(gates) == len(channels) or len(set(channels)) == 1:
        ledger.tie(channels, gates * (len(channels) // len(gates)))
    else:
        ledger.declare(gates, "pin")


def join(tensor, *maps):
    """Maps side by side."""
    return Map(tensor, lambda ledger: [channel for x in maps for channel in x.channels(ledger)])


def image():
    """An input of the model."""
    return Map(keras.Input((4, 4, 3)), lambda ledger: ledger.make(3, kind="pin"))


def groups_of(graph):
    """The same count as `Ledger.prunable`, of a `ChannelGraph`."""
    return Counter((g.size, len(g.producers), len(g.consumers), g.residual) for g in graph.prunable(residual=True))
