"""How many channels a group keeps."""

import math


def kept_at_rate(size: int, rate: float, round_to: int = 1, minimum: int = 1) -> int:
    """The kept count at a fixed pruning rate: `c - floor(eta * c)`, then the nearest multiple of `round_to`.

    Args:
        size: channels c of the group.
        rate: pruning rate eta, 0 to 1.
        round_to: hardware-friendly multiple. A tie goes down. A group no wider than it is only kept from falling under
            `minimum`.
        minimum: fewest channels to keep.

    Returns:
        A count in `min(minimum, size) .. size`.
    """
    # The product is rounded before the floor so that 0.3 * 10 counts as 3.
    return round_width(size - math.floor(round(rate * size, 9)), size, round_to, minimum)


def round_width(width: int, size: int, round_to: int, minimum: int = 1) -> int:
    """`width` as the nearest multiple of `round_to` from `minimum` up; a tie goes down, and a full `size` stays."""
    least = min(max(minimum, 1), size)
    if width < size and size > round_to > 1:
        nearest = round_to * math.ceil(width / round_to - 0.5)
        width = min(max(nearest, round_to), size - size % round_to)
        least = min(round_to * math.ceil(least / round_to), size)
    return min(max(width, least), size)
