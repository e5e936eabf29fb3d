"""The colours of objects, the same in every picture, on the command line and in notebooks."""

from __future__ import annotations

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

PALETTE: tuple[Colour, ...] = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
)
"""The colours of objects: Okabe and Ito's, which people with any kind of colour vision can tell apart.

https://jfly.uni-koeln.de/color/
"""


def colour_of(object_id: int) -> Colour:
    """The colour in which an object is drawn, the same in every picture."""
    return PALETTE[(object_id - 1) % len(PALETTE)]
