"""The species of drawn flowers: what makes one of them look unlike another."""

from __future__ import annotations

from regraft.data.painting import Centre, Colour, Ring, Species

HUES: dict[str, tuple[float, float, float]] = {
    "white": (0.12, 0.05, 0.96),
    "cream": (0.13, 0.28, 0.95),
    "yellow": (0.145, 0.85, 0.97),
    "orange": (0.075, 0.9, 0.96),
    "red": (0.99, 0.87, 0.82),
    "pink": (0.93, 0.45, 0.95),
    "magenta": (0.88, 0.72, 0.8),
    "lilac": (0.77, 0.35, 0.88),
    "violet": (0.75, 0.62, 0.68),
    "blue": (0.64, 0.62, 0.82),
}
"""The names of the colours of petals, each as hue, saturation and value in [0, 1]."""

_YELLOW_DISC = ((0.9, 0.68, 0.12), (0.82, 0.55, 0.1))
_DARK_DISC = ((0.16, 0.1, 0.1), (0.28, 0.17, 0.08))
_GREEN_DISC = ((0.55, 0.62, 0.2), (0.68, 0.66, 0.25))
_ANY_DISC = _YELLOW_DISC + _DARK_DISC + _GREEN_DISC


def _darker(amount: float) -> Colour:
    return (1 - amount, 1 - amount, 1 - amount)


_MEADOW = (
    Species(
        "daisy",
        (Ring((16, 24), width=0.95, base=0.35, tip=0.22, cup=0.05),),
        Centre((0.24, 0.36), _YELLOW_DISC + _DARK_DISC[1:], grain=0.8),
        ("white", "white", "pink", "yellow", "lilac", "violet", "magenta", "orange"),
    ),
    Species(
        "poppy",
        (
            Ring((3, 4), width=1.3, base=0.6, tip=0.16, ruffle=0.03, cup=0.5),
            Ring((2, 3), length=0.82, width=1.35, base=0.6, tip=0.16, ruffle=0.03, cup=0.6),
        ),
        Centre(
            (0.1, 0.18),
            _GREEN_DISC + _DARK_DISC,
            stamens=36,
            reach=0.27,
            stamen_colour=(0.2, 0.14, 0.16),
        ),
        ("red", "red", "orange", "white", "pink", "yellow", "magenta", "lilac"),
        blotch=0.35,
    ),
    Species(
        "buttercup",
        (Ring((5, 5), width=1.02, base=0.75, tip=0.2, notch=0.05, cup=0.4),),
        Centre((0.12, 0.2), _GREEN_DISC + _YELLOW_DISC, stamens=22, reach=0.3),
        ("yellow", "yellow", "white", "cream", "orange", "pink", "lilac", "blue"),
    ),
    Species(
        "cornflower",
        (
            Ring((8, 11), width=0.95, base=1.5, tip=0.14, teeth=0.3, cup=0.3),
            Ring(
                (14, 18),
                length=0.48,
                width=0.7,
                base=0.9,
                tip=0.5,
                height=0.1,
                tint=(0.72, 0.72, 0.8),
            ),
        ),
        Centre((0.08, 0.16), _DARK_DISC + _YELLOW_DISC, stamens=16, reach=0.26),
        ("blue", "blue", "violet", "lilac", "white", "pink", "magenta", "yellow"),
    ),
    Species(
        "bellflower",
        (Ring((5, 5), width=0.8, base=0.35, tip=0.75, cup=0.35),),
        Centre(
            (0.04, 0.09),
            _GREEN_DISC + _YELLOW_DISC,
            stamens=5,
            reach=0.22,
            stamen_colour=(0.9, 0.85, 0.6),
        ),
        ("violet", "blue", "lilac", "lilac", "white", "pink", "magenta", "cream"),
        veins=0.3,
    ),
    Species(
        "cosmos",
        (Ring((8, 8), width=1.0, base=0.6, tip=0.16, teeth=0.12, cup=0.12),),
        Centre((0.15, 0.24), _YELLOW_DISC + _DARK_DISC[1:], grain=0.8),
        ("pink", "pink", "magenta", "white", "orange", "yellow", "red", "lilac"),
        veins=0.25,
    ),
)
_GARDEN = (
    Species(
        "carnation",
        tuple(
            Ring(
                (7, 9),
                length=1 - 0.2 * k,
                width=1.15,
                base=0.7,
                tip=0.13,
                teeth=0.16,
                ruffle=0.07,
                cup=0.3 + 0.2 * k,
                height=0.06 * k,
                tint=_darker(0.05 * k),
            )
            for k in range(4)
        ),
        Centre((0.0, 0.0), _GREEN_DISC),
        ("pink", "red", "white", "magenta", "yellow", "lilac", "orange", "cream"),
    ),
    Species(
        "clematis",
        (Ring((6, 8), width=0.95, base=0.8, tip=0.75, cup=0.05),),
        Centre(
            (0.08, 0.13),
            _GREEN_DISC + _DARK_DISC,
            stamens=26,
            reach=0.33,
            stamen_colour=(0.85, 0.82, 0.7),
        ),
        ("violet", "blue", "lilac", "white", "pink", "magenta", "red", "cream"),
        veins=0.45,
    ),
    Species(
        "dahlia",
        tuple(
            Ring(
                (13 - k, 15 - k),
                length=1 - 0.165 * k,
                width=1.0,
                base=0.8,
                tip=0.55,
                cup=0.1 + 0.13 * k,
                height=0.05 * k,
                tint=_darker(0.05 * k),
            )
            for k in range(6)
        ),
        Centre((0.0, 0.06), _YELLOW_DISC),
        ("red", "orange", "yellow", "white", "pink", "magenta", "violet", "lilac"),
    ),
    Species(
        "hibiscus",
        (Ring((5, 5), width=1.35, base=0.65, tip=0.15, ruffle=0.04, cup=0.3),),
        Centre((0.05, 0.08), _YELLOW_DISC, stamens=9, reach=0.55),
        ("red", "pink", "orange", "yellow", "white", "magenta", "lilac", "cream"),
        throat=((0.45, 0.05, 0.15), 0.35),
        veins=0.3,
    ),
    Species(
        "lily",
        (
            Ring((3, 3), width=0.62, base=0.7, tip=0.75, cup=-0.1),
            Ring((3, 3), length=0.97, width=0.72, base=0.75, tip=0.65, cup=-0.05),
        ),
        Centre((0.05, 0.08), _GREEN_DISC, stamens=6, reach=0.5, stamen_colour=(0.55, 0.25, 0.08)),
        ("orange", "white", "pink", "yellow", "red", "cream", "magenta", "lilac"),
        throat=((0.75, 0.72, 0.35), 0.3),
        veins=0.4,
    ),
    Species(
        "narcissus",
        (
            Ring((6, 6), width=1.05, base=0.6, tip=0.5, cup=0.0),
            Ring(
                (9, 12),
                length=0.42,
                width=1.5,
                base=0.3,
                tip=0.1,
                ruffle=0.08,
                cup=0.7,
                height=0.12,
                tint=(0.97, 0.72, 0.5),
            ),
        ),
        Centre(
            (0.16, 0.22), ((0.6, 0.38, 0.08), (0.5, 0.4, 0.12)), grain=0.2, stamens=6, reach=0.12
        ),
        ("yellow", "white", "cream", "orange", "pink", "lilac", "blue", "red"),
    ),
    Species(
        "pansy",
        (Ring((5, 5), width=1.25, base=0.7, tip=0.13, cup=0.1),),
        Centre((0.05, 0.08), _YELLOW_DISC),
        ("violet", "blue", "yellow", "white", "orange", "red", "lilac", "magenta"),
        blotch=0.85,
        uneven=0.22,
    ),
    Species(
        "rose",
        tuple(
            Ring(
                (5, 6),
                length=1 - 0.165 * k,
                width=1.4,
                base=0.5,
                tip=0.12,
                cup=0.35 + 0.2 * k,
                height=0.07 * k,
                tint=_darker(0.08 * k),
            )
            for k in range(6)
        ),
        Centre((0.0, 0.04), _YELLOW_DISC),
        ("red", "pink", "white", "yellow", "orange", "cream", "magenta", "lilac"),
    ),
    Species(
        "sunflower",
        (
            Ring((18, 24), width=0.9, base=0.45, tip=0.6, cup=0.05),
            Ring((18, 24), length=0.88, width=0.85, base=0.45, tip=0.6, cup=0.15),
        ),
        Centre((0.42, 0.54), _DARK_DISC + _YELLOW_DISC[1:], grain=1.0),
        ("yellow", "yellow", "orange", "red", "cream", "white", "pink", "magenta"),
    ),
    Species(
        "tulip",
        (
            Ring((3, 3), width=1.15, base=0.55, tip=0.42, cup=0.55),
            Ring((3, 3), length=0.93, width=1.2, base=0.55, tip=0.42, cup=0.7),
        ),
        Centre(
            (0.06, 0.1),
            _GREEN_DISC + _DARK_DISC,
            stamens=6,
            reach=0.22,
            stamen_colour=(0.2, 0.15, 0.15),
        ),
        ("red", "yellow", "pink", "white", "orange", "violet", "magenta", "lilac"),
        throat=((0.7, 0.65, 0.25), 0.2),
    ),
)
FAMILIES: dict[str, tuple[Species, ...]] = {"meadow": _MEADOW, "garden": _GARDEN}
"""The species of each family; a data set of n species has the first n of them."""
