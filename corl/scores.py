"""How a trained policy did."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import DataError


@dataclass(frozen=True)
class PolicyScores:
    """Successes of `episodes`: of the best evaluation, of the last one, and of the best checkpoint on fresh starts.

    Raises `DataError` where those cannot be.
    """

    episodes: int
    best_solved: int
    best_return: float
    last_solved: int
    last_return: float
    fresh_episodes: int = 0
    fresh_solved: int = 0
    fresh_return: float = 0.0

    def __post_init__(self) -> None:
        counts = ((self.best_solved, self.episodes), (self.last_solved, self.episodes))
        for solved, episodes in (*counts, (self.fresh_solved, self.fresh_episodes)):
            if not 0 <= solved <= episodes:
                raise DataError(f"{solved} of {episodes} episodes solved: expected 0 to all of them")
        if self.episodes < 1:
            raise DataError(f"an evaluation of {self.episodes} episodes: expected 1 or more")

    @property
    def solved(self) -> int:
        """Successes that the selection counts: on fresh episodes where there are some, else the best evaluation's."""
        return self.fresh_solved if self.fresh_episodes else self.best_solved

    @property
    def trials(self) -> int:
        return self.fresh_episodes or self.episodes

    @property
    def score(self) -> float:
        """The best mean return."""
        return self.fresh_return if self.fresh_episodes else self.best_return
