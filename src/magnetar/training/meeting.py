"""Who meets whom: the responses of some prompts, their opponents, and what the judge says of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from magnetar.errors import JudgeError
from magnetar.judges import Judge, cyclic_triple_share, group_scores, require_scores
from magnetar.methods import Method, group_opponent_weights, leave_out_unanswered
from magnetar.rollout import Rollouts
from magnetar.training.experience import Experience
from magnetar.training.ledger import Ledger, counted_answers, counted_responses
from magnetar.types import Prompt, Role

__all__ = ["OPPONENT_ROLES", "Answer", "Meeting", "OpponentRole", "OpponentShare", "Questions", "check_answered"]

OpponentRole = Role | Literal["mixture"]
OPPONENT_ROLES: tuple[OpponentRole, ...] = (*get_args(Role), "mixture")


@dataclass(frozen=True)
class OpponentShare:
    """One opponent of the responses and the weight of the payoff against it; weights of one update sum to one.

    Attributes:
        weight: Negative for an opponent that an optimistic prediction leads away from.
        role: "current" is the group itself; other roles and the mixture draw responses of their own.
    """

    weight: float
    role: OpponentRole


@dataclass(frozen=True)
class Questions:
    """What the judge is asked about: prompts and a group of responses to each, with exact weights if enumerated."""

    positions: list[int]
    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    texts: list[list[str]]
    weight_BG: Tensor | None


@dataclass(frozen=True)
class Answer:
    """What the judge said about the responses and one opponent.

    Attributes:
        win_prob_BGH: P(response g beats opponent h), NaN where it abstained.
        reward_BG: Scores, for a method that maximises them.
    """

    win_prob_BGH: np.ndarray
    reward_BG: np.ndarray | None = None


@dataclass(frozen=True)
class Meeting:
    """Responses and those that they meet, drawn and not yet judged.

    Attributes:
        questions: The responses.
        opponents: Whom they meet, with the responses of each; None for the group itself.
    """

    questions: Questions
    opponents: Sequence[tuple[OpponentShare, Rollouts | None]]

    def ask(self, judge: Judge, method: Method) -> list[Answer]:
        """Ask the judge about each opponent in turn; no model of the policy is touched, so a thread may do it.

        Args:
            judge: Who answers.
            method: Says whether scores are needed.

        Returns:
            An answer for each opponent.

        Raises:
            JudgeError: The judge failed, or its answer is not a matrix of win probabilities.
        """
        if method.sampled_objective.needs_reward:
            return [self._scored(judge, method) for _ in self.opponents]
        return [Answer(self._judged(judge, rollouts)) for _, rollouts in self.opponents]

    def outcome(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """What the answers mean: fields of `Experience`.

        Args:
            answers: As `ask` returned them.

        Returns:
            Win probabilities with the weights of opponents and responses, rewards, cycles, and what was spent.
        """
        b, g = len(self.questions.prompts), len(self.questions.texts[0])
        win_probs, weights, response_weights = [], [], []
        cyclic, reward, spent = float("nan"), None, Ledger()
        own = self.questions.weight_BG
        response_weight = own if own is not None else torch.full((b, g), 1.0 / g, dtype=torch.float64)
        for (share, rollouts), answer in zip(self.opponents, answers, strict=True):
            win_prob, reward = answer.win_prob_BGH, answer.reward_BG
            if rollouts is None:
                spent += Ledger(comparisons=counted_answers(b, g, None, rewards_only=reward is not None))
                cyclic = float(cyclic_triple_share(win_prob)) if g >= 3 else float("nan")
                # With a critic a response may be alone, and then ties with itself.
                alone = g == 1 and own is None
                weight = torch.ones(b, 1, 1, dtype=torch.float64) if alone else group_opponent_weights(own, (b, g))
            else:
                h = win_prob.shape[-1]
                spent += Ledger(comparisons=counted_answers(b, g, h)) + counted_responses(rollouts.response_ids)
                weight_BH = rollouts.weight_BG if rollouts.weight_BG is not None else np.full((b, h), 1.0 / h)
                weight = torch.as_tensor(weight_BH, dtype=torch.float64)[:, None, :].expand(b, g, h)
            filled, weight, heard = leave_out_unanswered(
                torch.as_tensor(win_prob, dtype=torch.float64), weight, response_weight
            )
            win_probs.append(filled)
            weights.append(share.weight * weight)
            response_weights.append(heard)
        return {
            "win_prob_BGH": torch.cat(win_probs, dim=-1),
            "opponent_weight_BGH": torch.cat(weights, dim=-1),
            "response_weight_BG": _heard_by_all(response_weights, response_weight),
            "cyclic_triples": cyclic,
            "reward_BG": None if reward is None else torch.as_tensor(reward, dtype=torch.float64),
            "spent": spent,
        }

    def _scored(self, judge: Judge, method: Method) -> Answer:
        with _failing_as_judge(judge):
            scoring = require_scores(judge, method.name)
            reward, win_prob = group_scores(scoring, self.questions.prompts, self.questions.texts)
        return Answer(win_prob, reward)

    def _judged(self, judge: Judge, opponents: Rollouts | None) -> np.ndarray:
        prompts, texts = self.questions.prompts, self.questions.texts
        against = texts if opponents is None else opponents.texts
        expected = (len(prompts), len(texts[0]), len(against[0]))
        with _failing_as_judge(judge):
            if opponents is None:
                win_prob = judge.group_win_prob(prompts, texts)
            else:
                win_prob = judge.cross_win_prob(prompts, texts, opponents.texts)
        if win_prob.shape != expected:
            raise JudgeError(
                f"judge {judge.name!r} answered with shape {win_prob.shape}, expected {expected} "
                "(prompts, responses, opponents); return one win probability per pair"
            )
        return win_prob


def check_answered(judge: str, parts: Sequence[Experience]) -> None:
    """Check that the judge has said something to learn from.

    Args:
        judge: Its name.
        parts: Everything that it was asked about at a time.

    Raises:
        JudgeError: It abstained from every pair.
    """
    if not any(bool((part.response_weight_BG > 0).any()) for part in parts):
        prompts = sum(len(part.prompts) for part in parts)
        raise JudgeError(
            f"judge {judge!r} answered none of the pairs of {prompts} prompts, so there is nothing to learn from; look "
            "at its answers with `magnetar judge`"
        )


@contextmanager
def _failing_as_judge(judge: Judge) -> Iterator[None]:
    try:
        yield
    except JudgeError:
        raise
    except Exception as error:  # a user's function may fail in any way, and the run must still be saved
        raise JudgeError(f"judge {judge.name!r} failed: {type(error).__name__}: {error}") from error


def _heard_by_all(weights: list[Tensor], whole: Tensor) -> Tensor:
    """Weights of the responses that every opponent's part of the payoff has an answer for."""
    heard = torch.stack([weight > 0 for weight in weights]).all(0)
    kept = torch.where(heard, whole, 0.0)
    total = kept.sum(-1, keepdim=True)
    return torch.where(total > 0, kept / total.clamp(min=torch.finfo(kept.dtype).tiny), 0.0)
