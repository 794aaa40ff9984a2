"""What a run has spent: judge comparisons, responses, tokens, updates and time; and budgets of them.

Runs of different methods are comparable when they spent the same. One update of one method may cost several times what
it costs another, so updates alone say little: the ledger counts what is paid for.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from magnetar.errors import CheckpointError, checked_integer

__all__ = [
    "LEDGER_FILE",
    "Budget",
    "BudgetUnit",
    "Ledger",
    "counted_answers",
    "counted_responses",
    "read_ledger",
    "write_ledger",
]

LEDGER_FILE = "ledger.json"
BudgetUnit = Literal["comparisons", "tokens", "updates"]


@dataclass(frozen=True)
class Ledger:
    """What a run has spent so far, summed over all processes.

    Attributes:
        updates: Finished updates.
        prompts: Prompts played; one that is played in two updates counts twice.
        comparisons: Unordered pairs of responses that the judge was asked about; see `counted_answers`.
        judged_responses: Responses that the judge had to read, the opponents' included, each once an update.
        generated_tokens: Tokens of all responses sampled, the opponents' and the end-of-sequence tokens included.
        generated_responses: Responses sampled, the opponents' included.
        seconds: Wall-clock time of training, evaluations during it included, summed over interruptions.
    """

    updates: int = 0
    prompts: int = 0
    comparisons: int = 0
    judged_responses: int = 0
    generated_tokens: int = 0
    generated_responses: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Ledger") -> "Ledger":
        """Both together."""
        return Ledger(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def counts(self) -> list[int]:
        """Everything but the seconds, in the order of the fields; what processes add up."""
        return [int(getattr(self, f.name)) for f in fields(self) if f.name != "seconds"]

    @classmethod
    def from_counts(cls, counts: Sequence[float]) -> "Ledger":
        """Inverse of `counts`, with no seconds."""
        return cls(*(int(count) for count in counts))

    def after(self, updates: int, seconds: float) -> "Ledger":
        """The same after so many updates and so many seconds more."""
        return replace(self, updates=updates, seconds=self.seconds + seconds)


def counted_answers(prompts: int, responses: int, opponents: int | None, *, rewards_only: bool = False) -> int:
    """Judge comparisons that one question costs.

    A comparison is one unordered pair of responses to the same prompt whose preference the method is given, however
    the judge arrives at it: asking in both orders, or scoring each response once, changes its price and not their
    number. A pair that the judge leaves unanswered was asked about, and counts. Where a method is given a reward for
    each response and no preferences, each rewarded response counts as one.

    ``B · G (G − 1) / 2`` within groups, ``B · G · H`` against opponents of another role, ``B · G`` rewards.

    Args:
        prompts: B.
        responses: G, to each prompt.
        opponents: H, to each prompt; None when the opponents are the group itself.
        rewards_only: Responses are scored, not compared.

    Returns:
        The number of comparisons.
    """
    if rewards_only:
        return prompts * responses
    return prompts * (responses * (responses - 1) // 2 if opponents is None else responses * opponents)


def counted_responses(response_ids: Sequence[Sequence[Sequence[int]]]) -> Ledger:
    """What sampling some responses, B × G lists of tokens, and having a judge read them costs; no comparison yet."""
    count = sum(len(group) for group in response_ids)
    return Ledger(
        judged_responses=count,
        generated_tokens=sum(len(tokens) for group in response_ids for tokens in group),
        generated_responses=count,
    )


@dataclass(frozen=True)
class Budget:
    """How much a run may spend; it ends after the update that reaches the amount.

    Attributes:
        unit: What is counted: "comparisons", "tokens" (generated), or "updates".
        amount: How many, at least 1.
    """

    unit: BudgetUnit
    amount: int

    def __post_init__(self) -> None:
        if self.unit not in get_args(BudgetUnit):
            raise ValueError(f"budget unit {self.unit!r}, expected one of {', '.join(get_args(BudgetUnit))}")
        checked_integer(f"budget of {self.unit}", self.amount, 1)

    def spent(self, ledger: Ledger) -> int:
        """What a run has spent of it."""
        return ledger.generated_tokens if self.unit == "tokens" else getattr(ledger, self.unit)

    def reached(self, ledger: Ledger) -> bool:
        """Whether it is used up."""
        return self.spent(ledger) >= self.amount


def write_ledger(folder: Path, ledger: Ledger, *, finished: bool, reason: str) -> None:
    """Write `ledger.json`, at once or not at all.

    Args:
        folder: Of a run, or of a policy kept along the way.
        ledger: What was spent.
        finished: Whether the run has ended.
        reason: Why it ended ("budget", or "max_steps or end of data"), or why the policy is kept.
    """
    unfinished = folder / f"{LEDGER_FILE}.part"
    record = {"finished": finished, "reason": reason, **ledger.to_dict()}
    unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(folder / LEDGER_FILE)


def read_ledger(folder: Path) -> Ledger:
    """Read what `write_ledger` wrote.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    path = folder / LEDGER_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Ledger(**{f.name: record[f.name] for f in fields(Ledger)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected the ledger of a finished run; resume the run to write it again"
        ) from error
