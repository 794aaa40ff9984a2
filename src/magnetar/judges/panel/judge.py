"""The panel as a judge: one score per annotator and response, then a vote on every pair."""

from collections.abc import Sequence

import numpy as np

from magnetar.judges.base import FloatArray, Groups, Judge, fill_group
from magnetar.judges.panel.annotators import ANNOTATORS, defects
from magnetar.judges.panel.features import FeatureExtractor
from magnetar.judges.prompts import last_question
from magnetar.types import Prompt

__all__ = ["PanelJudge"]

SAME_SCORE = 1e-6
"""Scores that differ by less are a tie: the embedder rounds a text by some 1e-8 differently in another batch."""


class PanelJudge(Judge):
    """Five annotators of different tastes vote: ``P(i beats j)`` is the share of them that prefer i, ties half.

    Each annotator is transitive; their majority is not (Condorcet's paradox). A response is read once, so a group
    costs G readings. `stats` adds `defect_mean` (see `annotators.defects`) and `unanimous_share`, the share of
    compared pairs on which all annotators agree.
    """

    name = "panel"

    def __init__(self, device: str = "cpu") -> None:
        """Load what the annotators need; nothing is downloaded.

        Args:
            device: Where the sentence embedder runs.

        Raises:
            MissingDependencyError: If a package of the extra `panel` is missing.
        """
        self._read = FeatureExtractor(device)

    def annotator_scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> dict[str, FloatArray]:
        """Score N responses by each annotator.

        Args:
            prompts: N prompts.
            responses: N responses.

        Returns:
            Shape (N,) for each annotator's name, higher is better; scores of different annotators do not compare.
        """
        if not len(prompts):
            return {name: np.zeros(0) for name in ANNOTATORS}
        traits = self._read([last_question(prompt) for prompt in prompts], responses)
        self._count("responses", len(responses))
        self._count("defects", float(defects(traits).sum()))
        return {name: annotator(traits) for name, annotator in ANNOTATORS.items()}

    def _scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        return np.stack(list(self.annotator_scores(prompts, responses).values()), axis=-1)

    def _group_scores(self, prompts: Sequence[Prompt], groups: Groups) -> FloatArray:
        repeated = [prompt for prompt, group in zip(prompts, groups, strict=True) for _ in group]
        flat = self._scores(repeated, [text for group in groups for text in group])
        return flat.reshape(len(prompts), -1, len(ANNOTATORS))

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        both = self._scores([*prompts, *prompts], [*first, *second])
        return self._vote(both[: len(first)], both[len(first) :])

    def _group_win_prob(self, prompts: Sequence[Prompt], responses: Groups) -> FloatArray:
        scores = self._group_scores(prompts, responses)
        rows, columns = np.triu_indices(scores.shape[1], k=1)
        upper = self._vote(scores[:, rows], scores[:, columns])
        return fill_group(upper, rows, columns)

    def _cross_win_prob(self, prompts: Sequence[Prompt], responses: Groups, opponents: Groups) -> FloatArray:
        both = self._group_scores(
            prompts, [[*mine, *theirs] for mine, theirs in zip(responses, opponents, strict=True)]
        )
        size = len(responses[0])
        return self._vote(both[:, :size, None], both[:, None, size:])

    def _vote(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Mean over the annotators, the last axis, of 1 for first, 0 for second and 1/2 for a tie."""
        difference = first - second
        share = (0.5 + 0.5 * np.sign(np.where(np.abs(difference) < SAME_SCORE, 0.0, difference))).mean(-1)
        self._count("unanimous", float(np.sum((share == 0.0) | (share == 1.0))))
        self._count("votes", share.size)
        return share

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        found, unanimous = counters.pop("defects", 0.0), counters.pop("unanimous", 0.0)
        votes = counters.pop("votes", 0.0)
        if counters.get("responses"):
            counters["defect_mean"] = found / counters["responses"]
        if votes:
            counters["unanimous_share"] = unanimous / votes
        return counters
