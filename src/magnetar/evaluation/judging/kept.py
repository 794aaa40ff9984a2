"""How much of what a judge is asked is kept already."""

from itertools import combinations
from pathlib import Path

from magnetar.evaluation.judging.pairs import Pairs
from magnetar.evaluation.judging.questions import GroupQuestions, PairQuestions
from magnetar.judges import Judge, PointwiseJudge, Symmetrized
from magnetar.judges.wrappers.keys import question_keys
from magnetar.judges.wrappers.relay import Questions
from magnetar.judges.wrappers.store import AnswerStore

__all__ = ["kept_answers"]


def kept_answers(judge: Judge, path: Path, questions: PairQuestions | GroupQuestions) -> str | None:
    """Say how many of the answers to some questions are kept; a judge of pairs is asked in both orders.

    Args:
        judge: The judge.
        path: Where its answers are kept.
        questions: What it is asked.

    Returns:
        Such as "12 of 40 answers about 20 pairs are kept in PATH"; None where none is.

    Raises:
        JudgeError: If the file cannot be read.
    """
    if not path.exists():
        return None
    pairs = questions.pairs if isinstance(questions, PairQuestions) else _pairs_within(questions)
    prompts, first, second = list(pairs.prompts), list(pairs.first), list(pairs.second)
    inner = judge.judge if isinstance(judge, Symmetrized) else judge
    both = ([*first, *second],) if isinstance(inner, PointwiseJudge) else ([*first, *second], [*second, *first])
    keys = set(question_keys(inner.identity(), Questions([*prompts, *prompts], both)))
    kept = len(AnswerStore(path).get(keys))
    return f"{kept:,} of {len(keys):,} answers about {len(pairs):,} pairs are kept in {path}" if kept else None


def _pairs_within(questions: GroupQuestions) -> Pairs:
    rows = [
        (prompt, first, second)
        for prompt, group in zip(questions.prompts, questions.responses, strict=True)
        for first, second in combinations(group, 2)
        if first != second
    ]
    return Pairs([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
