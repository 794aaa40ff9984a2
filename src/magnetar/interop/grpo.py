"""Any judge as a reward function of TRL's GRPO and RLOO trainers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from magnetar.errors import JudgeError
from magnetar.evaluation.judging import count_cycles, group_payoffs
from magnetar.interop.text import completion_text, prompt_of_trl
from magnetar.judges import Judge, build_judge
from magnetar.judges.checks import short_text
from magnetar.types import Prompt

__all__ = ["GroupReward", "grpo_reward"]

Reward = float | None
_T = TypeVar("_T")


def grpo_reward(
    judge: "str | Mapping[str, Any] | Judge | Callable[..., object]",
    *,
    opponent_column: str | None = None,
    name: str | None = None,
    **options: Any,
) -> "GroupReward":
    r"""Turn a judge into a reward function for TRL's `GRPOTrainer` or `RLOOTrainer`.

    The reward of a completion is its mean win probability against the other completions of the same prompt,
    ``q̂_i = 1/(G − 1) Σ_{j≠i} P(y_i beats y_j)``, wherever these were sampled: a group that is split over processes is
    put together first. With ``opponent_column`` it is the probability to beat an answer from the dataset instead.

    Args:
        judge: A judge, or whatever `magnetar.judges.build_judge` takes.
        opponent_column: Column of the training set with an answer to beat; None to play within the group.
        name: What the trainer's logs call the reward; the judge's name when None.
        **options: Options of the judge, when it is named by a spec.

    Returns:
        A function for ``reward_funcs``. Where the judge left every comparison of a completion unanswered its reward is
        None, which TRL leaves out.

    Raises:
        JudgeError: If the judge cannot be built.
    """
    return GroupReward(build_judge(judge, **options), opponent_column=opponent_column, name=name)


class GroupReward:
    """The reward function that `grpo_reward` returns."""

    def __init__(self, judge: Judge, *, opponent_column: str | None = None, name: str | None = None) -> None:
        """Wrap a judge.

        Args:
            judge: The judge.
            opponent_column: Column with an answer to beat; None to play within the group.
            name: What logs call it.
        """
        self.judge = judge
        self.opponent_column = opponent_column
        self.__name__ = name or judge.name  # what TRL's logs show
        self._cycles = np.zeros(2, dtype=np.int64)  # cyclic triples, triples

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[Reward]:
        """Reward the completions of this process.

        Args:
            prompts: One for each completion, as the trainer hands them over: text or chat turns.
            completions: Text, or the assistant's turns.
            log_metric: TRL's hook for figures; gets, under the prefix ``judge/``, the judge's counters, the share of
                cyclic triples in groups of three and more, and the share of completions without a reward.
            **columns: The other columns of the training set, and whatever else the trainer passes.

        Returns:
            One reward for each completion, in [0, 1], or None.

        Raises:
            JudgeError: If the judge fails on any process, the opponents' column is missing, or a group has one
                completion.
        """
        reward = self._against_group if self.opponent_column is None else self._against_column
        rewards = reward(prompts, completions, columns)
        if log_metric is not None:
            for key, value in self._figures(rewards).items():
                log_metric(f"judge/{key}", value)
        return rewards

    def _figures(self, rewards: list[Reward]) -> dict[str, float]:
        figures = {"unanswered": sum(reward is None for reward in rewards) / max(len(rewards), 1)}
        cyclic, triples = self._cycles.tolist()
        if triples:
            figures["cyclic_triples"] = cyclic / triples
        self._cycles[:] = 0
        return figures | self.judge.stats()

    def _against_group(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
    ) -> list[Reward]:
        del columns
        state = PartialState()
        shares = self._on_every_process(lambda: _asked(prompts, completions))
        everyone = [pair for share in shares for pair in share]
        groups = _groups([prompt for prompt, _ in everyone])
        # Each process asks about its share of the groups; the answers are put together again.
        mine = groups[state.process_index :: state.num_processes]
        found = self._on_every_process(lambda: self._group_rewards(mine, everyone))
        rewards = {place: reward for part in found for place, reward in part.items()}
        start = sum(len(share) for share in shares[: state.process_index])
        return [rewards[place] for place in range(start, start + len(prompts))]

    def _against_column(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
    ) -> list[Reward]:
        if self.opponent_column not in columns:
            raise JudgeError(
                f"the training set has no column {self.opponent_column!r} with answers to beat; it has "
                f"{', '.join(sorted(columns)) or 'no other columns'}"
            )

        def ask() -> list[Reward]:
            pairs = _asked(prompts, completions)
            opponents = [completion_text(answer) for answer in columns[str(self.opponent_column)]]
            answers = self.judge.pair_win_prob([prompt for prompt, _ in pairs], [text for _, text in pairs], opponents)
            return [None if np.isnan(answer) else float(answer) for answer in answers]

        return self._on_every_process(ask)[PartialState().process_index]

    def _group_rewards(self, groups: list[list[int]], everyone: list[tuple[Prompt, str]]) -> dict[int, Reward]:
        """Rewards of these groups by place."""
        by_size: dict[int, list[list[int]]] = {}
        for group in groups:
            by_size.setdefault(len(group), []).append(group)
        rewards: dict[int, Reward] = {}
        for size, same in by_size.items():
            if size < 2:
                raise JudgeError(
                    f"prompt {short_text(everyone[same[0][0]][0])} has one completion, which has no other to beat; set "
                    "num_generations (and num_generations_eval) to at least 2, or name an opponent_column"
                )
            prompts = [everyone[group[0]][0] for group in same]
            matrices = self.judge.group_win_prob(prompts, [[everyone[at][1] for at in group] for group in same])
            self._cycles += np.sum([count_cycles(matrix) for matrix in matrices], axis=0)
            for group, matrix in zip(same, matrices, strict=True):
                payoffs = [None if np.isnan(payoff) else float(payoff) for payoff in group_payoffs(matrix)]
                rewards |= dict(zip(group, payoffs, strict=True))
        return rewards

    def _on_every_process(self, compute: Callable[[], _T]) -> list[_T]:
        """Results of all processes, in their order; an error on one is raised on all, or the others would wait."""
        result, error = None, None
        try:
            result = compute()
        except Exception as caught:
            error = caught
        told = None if error is None else f"{type(error).__name__}: {error}"
        gathered = gather_object([(result, told)])
        if error is not None:
            raise error
        for process, (_, failure) in enumerate(gathered):
            if failure is not None:
                raise JudgeError(f"the judge {self.judge.name!r} failed on process {process}: {failure}")
        return [value for value, _ in gathered]


def _asked(prompts: Sequence[Any], completions: Sequence[Any]) -> list[tuple[Prompt, str]]:
    return [
        (prompt_of_trl(prompt), completion_text(completion))
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def _groups(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Places of neighbours with equal prompts: TRL lays the completions of a prompt side by side over all processes."""
    groups: list[list[int]] = []
    for place, prompt in enumerate(prompts):
        if place and prompt == prompts[place - 1]:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups
