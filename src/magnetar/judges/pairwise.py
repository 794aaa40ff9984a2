"""Pairwise models: Hugging Face sequence classifiers that read a prompt and both responses."""

from collections.abc import Sequence
from string import Formatter
from typing import Any

import numpy as np
from scipy.special import expit

from magnetar.data.prompts import prompt_text
from magnetar.errors import JudgeError
from magnetar.judges.base import Judge
from magnetar.judges.checks import FloatArray
from magnetar.judges.classifier import SequenceClassifier
from magnetar.types import Prompt

__all__ = ["DEFAULT_TEMPLATE", "PairwiseModelJudge"]

DEFAULT_TEMPLATE = "{prompt}\n\nResponse A:\n{first}\n\nResponse B:\n{second}"
"""What a pairwise model reads unless told otherwise: `{prompt}`, `{first}` and `{second}` are filled in."""
FIELDS = {"prompt", "first", "second"}


class PairwiseModelJudge(Judge):
    """A sequence classifier that reads a prompt and two responses as a judge.

    With one output, its logit is that of the first response winning, ``P = σ(logit)``; with two, ``P`` is the softmax
    of the one named by `first_label`. Such models favour a place, so wrap the judge in `Symmetrized` (`build_judge`
    does it). `stats` adds `truncated_share`.
    """

    def __init__(
        self,
        classifier: SequenceClassifier,
        *,
        template: str = DEFAULT_TEMPLATE,
        first_label: int = 0,
        name: str = "pairwise",
    ) -> None:
        """Take a loaded classifier.

        Args:
            classifier: Has one or two outputs.
            template: Text with the fields `{prompt}`, `{first}` and `{second}`, each exactly once.
            first_label: Index of the output that says "the first response is better", 0 or 1, when there are two.
            name: What reports call the judge.

        Raises:
            JudgeError: If template, label or number of outputs are not as said.
        """
        check_template(template)
        if classifier.num_labels not in (1, 2):
            raise JudgeError(f"judge {name!r} has {classifier.num_labels} outputs, expected 1 or 2")
        if not 0 <= first_label < classifier.num_labels:
            raise JudgeError(
                f"first_label = {first_label}, but judge {name!r} has {classifier.num_labels} outputs, numbered from 0"
            )
        self.classifier = classifier
        self.template = template
        self.first_label = first_label
        self.name = name

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        *,
        template: str = DEFAULT_TEMPLATE,
        first_label: int = 0,
        name: str | None = None,
        **options: Any,
    ) -> "PairwiseModelJudge":
        """Load a pairwise model.

        Args:
            source: Folder or hub name.
            template: Text with the fields `{prompt}`, `{first}` and `{second}`.
            first_label: Index of the output that says "the first response is better", when there are two.
            name: What reports call the judge.
            **options: Options of `SequenceClassifier.from_pretrained`.

        Returns:
            The judge, which keeps the order it is asked in.
        """
        check_template(template)
        classifier = SequenceClassifier.from_pretrained(source, **options)
        return cls(classifier, template=template, first_label=first_label, name=name or f"pairwise:{source}")

    def text(self, prompt: Prompt, first: str, second: str) -> str:
        """The text that the model reads for one pair."""
        return self.template.format(prompt=prompt_text(prompt), first=first, second=second)

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        answer = self.classifier([self.text(*pair) for pair in zip(prompts, first, second, strict=True)])
        self._count("truncated", answer.truncated)
        self._count("tokens", answer.tokens)
        if self.classifier.num_labels == 1:
            return expit(answer.logits[:, 0])
        difference = answer.logits[:, self.first_label] - answer.logits[:, 1 - self.first_label]
        return np.asarray(expit(difference))

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        truncated = counters.pop("truncated", 0.0)
        asked = counters.get("comparisons", 0.0)
        return counters | ({"truncated_share": truncated / asked} if asked else {})


def check_template(template: str) -> None:
    """Raise a `JudgeError` unless the template names prompt, first and second exactly once each."""
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise JudgeError(f"template {template!r} is not a format string: {error}; write {{{{ for a brace") from error
    if sorted(fields) != sorted(FIELDS):
        raise JudgeError(
            f"template {template!r} has the fields {sorted(fields)}, expected {sorted(FIELDS)}, each exactly once"
        )
