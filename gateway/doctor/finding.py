"""What a check says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "warning", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table: `remedy` is what to do about a warning or what is bad."""

    about: str
    level: Level
    says: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.about}: {self.says}" + (f"; {self.remedy}" if self.remedy else "")


def good(about: str, says: str) -> Finding:
    return Finding(about, "good", says)


def warning(about: str, says: str, remedy: str) -> Finding:
    """Works, but not as well as it could, or could not be found out."""
    return Finding(about, "warning", says, remedy)


def bad(about: str, says: str, remedy: str) -> Finding:
    """Challenges will not be answered, or not be paid."""
    return Finding(about, "bad", says, remedy)


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level among them; good for none."""
    order: tuple[Level, ...] = ("good", "warning", "bad")
    return max((finding.level for finding in findings), key=order.index, default="good")
