"""The one source of chance. It uses nothing but `random()`, whose numbers are the same on every machine and Python."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Throws that a seed repeats. It also serves the core, which draws its election timeouts from it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random
        """Return a number in [0, 1)."""

    def below(self, end: int) -> int:
        """Return an integer in [0, end)."""
        return int(self.random() * end)

    randrange = below

    def between(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Return True that often."""
        return self.random() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of `choices`."""
        return choices[int(self.random() * len(choices))]

    def some(self, choices: Sequence[T], count: int) -> list[T]:
        """Return `count` different ones of `choices`, or all of them when there are fewer."""
        left = list(choices)
        return [left.pop(int(self.random() * len(left))) for _ in range(min(count, len(left)))]
