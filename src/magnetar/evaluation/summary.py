"""The figures of a match-up: win rate with interval, ties, lengths, degeneracy, each overall and by category."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from magnetar.errors import DataError, JudgeError
from magnetar.evaluation.asking import OrderRecord, order_record
from magnetar.evaluation.degeneracy import Degeneracy, degeneracy
from magnetar.evaluation.intervals import Estimate, estimate_mean
from magnetar.evaluation.judging.resampling import Resampling
from magnetar.evaluation.length_control import length_controlled_rate
from magnetar.evaluation.matchup import Matchup, Responses, answered_comparisons

__all__ = ["CategorySummary", "MatchupSummary", "SideSummary", "side_summary", "summarize"]

_TIE = 1e-9


@dataclass(frozen=True)
class SideSummary:
    """One player's responses in figures.

    Attributes:
        name: What the player is called.
        responses_per_prompt: Size of its groups.
        tokens: Mean length in its own tokens; None when unknown.
        characters: Mean length in characters.
        truncated: Share of responses cut off for want of room; None when unknown.
        degeneracy: Emptiness and repetition.
    """

    name: str
    responses_per_prompt: int
    tokens: float | None
    characters: float
    truncated: float | None
    degeneracy: Degeneracy


@dataclass(frozen=True)
class CategorySummary:
    """The match-up on the prompts of one category.

    Attributes:
        prompts: Number of prompts of which the judge answered a pair.
        win_rate: Mean over prompts of the mean win probability, with interval. The intervals of several categories
            are not adjusted for looking at several.
        wins: Share of comparisons with win probability above one half.
        ties: Share of comparisons with win probability one half (within 1e-9).
        losses: Share of comparisons with win probability below one half.
        policy: The policy's responses.
        opponent: The opponent's responses.
    """

    prompts: int
    win_rate: Estimate
    wins: float
    ties: float
    losses: float
    policy: SideSummary
    opponent: SideSummary


@dataclass(frozen=True)
class MatchupSummary(CategorySummary):
    """The whole match-up: the same figures over all prompts, and those of each category.

    Attributes:
        judge: Specification of the judge.
        comparisons: Number of judged pairs.
        masked: Number of pairs that the judge left unanswered; no figure counts them.
        bootstrap: Number of resamples behind the intervals.
        seed: Seed of the resampling.
        categories: Figures by category, in alphabetical order; empty without categories.
        orders: What the order of the responses does; None where both were not asked for by themselves.
        length_controlled: Win rate at equal length; None where it was not asked for or cannot be had.
        no_length_control: Why there is none although it was asked for.
    """

    judge: str
    comparisons: int
    masked: int
    bootstrap: int
    seed: int
    categories: dict[str, CategorySummary]
    orders: OrderRecord | None = None
    length_controlled: Estimate | None = None
    no_length_control: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MatchupSummary":
        """Read what `to_dict` wrote; keys that are not the summary's (settings, versions) are left alone.

        Raises:
            DataError: If a key is missing or a part has the wrong form.
        """
        try:
            return cls(
                **_category_fields(values),
                judge=values["judge"],
                comparisons=values["comparisons"],
                masked=values.get("masked", 0),  # files written before judges could leave a pair unanswered
                bootstrap=values["bootstrap"],
                seed=values["seed"],
                categories={name: CategorySummary(**_category_fields(v)) for name, v in values["categories"].items()},
                orders=_orders(values.get("orders")),
                length_controlled=_estimate(values.get("length_controlled")),
                no_length_control=values.get("no_length_control"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"not an evaluation summary ({type(error).__name__}: {error}); expected the JSON that "
                "`magnetar eval --json` writes"
            ) from error


def summarize(
    matchup: Matchup,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    length_control: bool = False,
) -> MatchupSummary:
    r"""Reduce a match-up to its figures.

    The win rate is ``(1/B) Σ_b mean_{g,h} P(y_bg beats y'_bh)``. Prompts are the unit of resampling: responses to one
    prompt resemble each other, so counting them as independent would make intervals too narrow.

    Args:
        matchup: The match-up, at least one prompt.
        bootstrap: Number of resamples, at least 100.
        confidence: Nominal coverage of the intervals, in (0, 1).
        seed: Seed of the resampling.
        length_control: Whether the win rate at equal length is wanted too.

    Returns:
        Overall figures and those of each category in which the judge answered anything.

    Raises:
        ConfigError: If ``bootstrap`` or ``confidence`` is out of range.
        JudgeError: If the judge answered no pair at all.
    """
    masked = int(np.isnan(matchup.win_prob_BGH).sum())
    if masked == matchup.win_prob_BGH.size:
        raise JudgeError(
            f"judge {matchup.judge!r} answered none of {masked} pairs, so there is no win rate; look at its answers "
            "with `magnetar judge`"
        )

    def fields(part: Matchup) -> dict[str, Any]:
        by_prompt = part.win_prob_B[~np.isnan(part.win_prob_B)]
        rate = estimate_mean(by_prompt, bootstrap=bootstrap, confidence=confidence, seed=seed)
        win_prob = part.win_prob_BGH[~np.isnan(part.win_prob_BGH)]
        ties = np.abs(win_prob - 0.5) <= _TIE
        return {
            "prompts": len(by_prompt),
            "win_rate": rate,
            "wins": float(((win_prob > 0.5) & ~ties).mean()),
            "ties": float(ties.mean()),
            "losses": float(((win_prob < 0.5) & ~ties).mean()),
            "policy": side_summary(part.policy_name, part.policy),
            "opponent": side_summary(part.opponent_name, part.opponent),
        }

    resampling = Resampling(bootstrap, confidence, seed)
    controlled = None
    if length_control:
        controlled = length_controlled_rate(
            *answered_comparisons(matchup.policy, matchup.opponent, matchup.win_prob_BGH), resampling
        )
    answered = {name: part for name, part in matchup.by_category().items() if not np.isnan(part.win_prob_B).all()}
    return MatchupSummary(
        **fields(matchup),
        judge=matchup.judge,
        comparisons=int(matchup.win_prob_BGH.size) - masked,
        masked=masked,
        bootstrap=bootstrap,
        seed=seed,
        categories={name: CategorySummary(**fields(part)) for name, part in answered.items()},
        orders=None if matchup.judged is None else order_record([matchup.judged], resampling),
        length_controlled=controlled if isinstance(controlled, Estimate) else None,
        no_length_control=controlled if isinstance(controlled, str) else None,
    )


def side_summary(name: str, responses: Responses) -> SideSummary:
    """Reduce one player's responses to figures.

    Args:
        name: What the player is called.
        responses: Its responses.

    Returns:
        The figures.
    """
    texts = [text for group in responses.texts for text in group]
    return SideSummary(
        name=name,
        responses_per_prompt=responses.shape[1],
        tokens=None if responses.tokens_BG is None else float(responses.tokens_BG.mean()),
        characters=sum(map(len, texts)) / len(texts),
        truncated=None if responses.truncated_BG is None else float(responses.truncated_BG.mean()),
        degeneracy=degeneracy(responses.texts),
    )


def _estimate(values: dict[str, Any] | None) -> Estimate | None:
    return None if values is None else Estimate(**values)


def _orders(values: dict[str, Any] | None) -> OrderRecord | None:
    return None if values is None else OrderRecord(**{**values, "first_place": Estimate(**values["first_place"])})


def _category_fields(values: dict[str, Any]) -> dict[str, Any]:
    sides = {
        side: SideSummary(**{**values[side], "degeneracy": Degeneracy(**values[side]["degeneracy"])})
        for side in ("policy", "opponent")
    }
    plain = {key: values[key] for key in ("prompts", "wins", "ties", "losses")}
    return {**plain, "win_rate": Estimate(**values["win_rate"]), **sides}
