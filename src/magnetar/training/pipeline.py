"""An optimiser step in parts: later ones are begun before earlier ones are finished, always in the same order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

__all__ = ["MicroBatch", "Part", "StepParts", "finished_in_order"]

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Part:
    """Some prompts of a micro-batch, whose responses are generated and judged together.

    Attributes:
        batch: Number of the micro-batch within its optimiser step.
        places: Where the prompts stand in it.
    """

    batch: int
    places: list[int]


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch and its parts.

    Attributes:
        positions: Its prompts' positions in the stream.
        parts: Together all its prompts.
    """

    positions: list[int]
    parts: list[Part]

    @classmethod
    def split(
        cls, number: int, positions: list[int], prompt_ids: Sequence[Sequence[int]], prompts_at_once: int | None
    ) -> "MicroBatch":
        """Split a micro-batch into parts of prompts of like length, short ones first, as engines generate them.

        Args:
            number: Of the micro-batch.
            positions: Of its prompts.
            prompt_ids: Their tokens.
            prompts_at_once: Most prompts of a part; None for all.
        """
        order = sorted(range(len(positions)), key=lambda b: (len(prompt_ids[b]), b))
        size = prompts_at_once or len(order)
        parts = [Part(number, sorted(order[begin : begin + size])) for begin in range(0, len(order), size)]
        return cls(positions, parts)


def finished_in_order(
    jobs: Iterable[Job], begin: Callable[[Job], Callable[[], Result]], limit: int
) -> Iterator[Result]:
    """Begin jobs ahead of the one that is finished next, and finish them in their order.

    What is begun and finished when depends on the jobs alone, never on the time that one takes; so whatever numbers are
    added up along the way are added in the same order, and processes that exchange something do it alike.

    Args:
        jobs: Taken one by one.
        begin: Begins a job; what it returns waits for its end.
        limit: Most jobs that are begun and not finished, at least 1.

    Yields:
        The results in the order of the jobs.
    """
    begun: deque[Callable[[], Result]] = deque()
    for job in jobs:
        begun.append(begin(job))
        if len(begun) >= limit:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


class StepParts(Generic[Result]):
    """The parts of an optimiser step, begun ahead across the borders of its micro-batches and handed out in order."""

    def __init__(
        self, batches: Sequence[MicroBatch], begin: Callable[[Part], Callable[[], Result]], limit: int
    ) -> None:
        """Begin nothing yet.

        Args:
            batches: The micro-batches of the step.
            begin: Begins a part; what it returns waits for its end.
            limit: As for `finished_in_order`.
        """
        self._left = deque(batches)
        self._results = finished_in_order([part for batch in batches for part in batch.parts], begin, limit)

    @property
    def done(self) -> bool:
        """Whether all parts were handed out."""
        return not self._left

    @property
    def next_batch(self) -> MicroBatch:
        """The micro-batch whose parts come next."""
        return self._left[0]

    def take(self) -> Iterator[Result]:
        """The parts of the next micro-batch, each as soon as it is finished."""
        yield from islice(self._results, len(self._left[0].parts))
        self._left.popleft()
