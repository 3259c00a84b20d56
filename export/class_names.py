"""Which class of the contract a class of somebody's weights is, by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping

from export.errors import WeightsError
from touchline.contract import BALL, CLASS_NAMES, GOALKEEPER, PLAYER, REFEREE

IGNORED = -1
"""Stands in a class map for a class of the weights that the contract does not know."""

ALIASES: dict[str, int] = {
    "goalkeeper": GOALKEEPER, "goalkeepers": GOALKEEPER, "keeper": GOALKEEPER, "goalie": GOALKEEPER, "gk": GOALKEEPER,
    "referee": REFEREE, "referees": REFEREE, "ref": REFEREE, "linesman": REFEREE, "umpire": REFEREE,
    "player": PLAYER, "players": PLAYER, "person": PLAYER, "footballer": PLAYER,
    "ball": BALL, "football": BALL, "soccerball": BALL,
}  # fmt: skip
"""Words of a class name, most telling first: "goalkeeper team left" is a goalkeeper, "football player" a player."""

BESIDE_BALL = frozenset(
    ["a", "the", "ball", "football", "foot", "soccer", "soccerball", "sport", "sports", "match", "game"]
)
"""What may stand beside "ball": a football field, goal or ball boy is no ball."""

NO_PERSON = frozenset(
    ["area", "bench", "board", "boot", "boots", "box", "card", "coach", "face", "flag", "glove", "gloves", "hand",
     "head", "jersey", "kit", "no", "non", "not", "number", "shadow", "shirt", "shoe", "shoes", "shorts", "socks",
     "tunnel", "whistle", "zone"]
)  # fmt: skip
"""What may not stand beside a word for a person: a player's shadow or number is none."""

PEOPLE = tuple(name for name in CLASS_NAMES if name != CLASS_NAMES[BALL])
"""One of these a player model must have."""

NONE = "none"
"""What --map-class says of a class that is to be left out."""


def map_classes(names: list[str], class_names: Mapping[str, str] | None = None) -> tuple[int, ...]:
    """The contract's class of each class name, IGNORED for none: what `class_names` says, else by its words.

    WeightsError for an entry of `class_names` that names a class which neither side has.
    """
    explicit = {name.strip().lower(): label.strip().lower() for name, label in (class_names or {}).items()}
    known = {name.strip().lower() for name in names}
    for name, label in explicit.items():
        if name not in known:
            raise WeightsError(f"there is no class '{name}' in these weights: they have {', '.join(names)}.")
        if label not in (*CLASS_NAMES, NONE):
            raise WeightsError(
                f"'{label}' is no class of the contract: those are {', '.join(CLASS_NAMES)}; {NONE} leaves it out."
            )

    def label_of(name: str) -> int:
        name = name.strip().lower()
        if name in explicit:
            return IGNORED if explicit[name] == NONE else CLASS_NAMES.index(explicit[name])
        return class_of(name)

    return tuple(label_of(name) for name in names)


def class_of(name: str) -> int:
    """The contract's class of a class name by all of its words, IGNORED for none."""
    words = {word for word in re.split(r"[^a-z]+", name.strip().lower()) if word}
    label = next((label for alias, label in ALIASES.items() if alias in words), IGNORED)
    if label == BALL:
        return BALL if words <= BESIDE_BALL else IGNORED
    # A ball person fetches the ball; a player with the ball plays.
    fetches = label == PLAYER and "ball" in words and "player" not in words
    return IGNORED if words & NO_PERSON or fetches else label
