"""Pairwise models: Hugging Face sequence classifiers that read a prompt and both responses."""

from collections.abc import Iterator, Mapping, Sequence
from string import Formatter
from typing import Any

import numpy as np
from scipy.special import expit

from magnetar.data.prompts import prompt_text
from magnetar.errors import JudgeError
from magnetar.judges.base import Judge, collect
from magnetar.judges.checks import FloatArray, IndexArray
from magnetar.judges.models.card import card_of_kind
from magnetar.judges.models.classifier import SequenceClassifier, reading_summary
from magnetar.modeling.devices import are_apart
from magnetar.types import Prompt

__all__ = ["DEFAULT_TEMPLATE", "PairwiseModelJudge"]

DEFAULT_TEMPLATE = "{prompt}\n\nResponse A:\n{first}\n\nResponse B:\n{second}"
"""What a pairwise model reads unless told otherwise: `{prompt}`, `{first}` and `{second}` are filled in."""
FIELDS = {"prompt", "first", "second"}


class PairwiseModelJudge(Judge):
    """A sequence classifier that reads a prompt and two responses as a judge.

    With one output, its logit is that of the first response winning, ``P = σ(logit)``; with two, ``P`` is the softmax
    of the one named by `first_label`. Such models favour a place, so wrap the judge in `Symmetrized` (`build_judge`
    does it). `stats` adds what `reading_summary` says.
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

    def leaves_free(self, device: str) -> bool:
        """Whether the model runs elsewhere."""
        return are_apart(self.classifier.model.device, device)

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        *,
        template: str | None = None,
        first_label: int = 0,
        max_length: int | None = None,
        name: str | None = None,
        **options: Any,
    ) -> "PairwiseModelJudge":
        """Load a pairwise model.

        Args:
            source: Folder or hub name.
            template: Text with the fields `{prompt}`, `{first}` and `{second}`; what the model's card says if None, or
                `DEFAULT_TEMPLATE`.
            first_label: Index of the output that says "the first response is better", when there are two.
            max_length: Longest input in tokens; what the card says if None, or the model's own limit.
            name: What reports call the judge.
            **options: Options of `SequenceClassifier.from_pretrained`.

        Returns:
            The judge, which keeps the order it is asked in.

        Raises:
            JudgeError: If it was trained as another kind or cannot be loaded.
        """
        card = card_of_kind(source, "pairwise")
        template = template or card.template or DEFAULT_TEMPLATE
        check_template(template)
        classifier = SequenceClassifier.from_pretrained(source, max_length=max_length or card.max_length, **options)
        return cls(classifier, template=template, first_label=first_label, name=name or f"pairwise:{source}")

    def text(self, prompt: Prompt, first: str, second: str) -> str:
        """The text that the model reads for one pair."""
        return self.template.format(prompt=prompt_text(prompt), first=first, second=second)

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        return collect(self._iter_pair_win_prob(prompts, first, second), len(prompts))

    def _iter_pair_win_prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        for index, logits in self.classifier.read(
            [(prompt, (a, b)) for prompt, a, b in zip(prompts, first, second, strict=True)],
            self.text,
            count=self._count,
            judge=self.name,
        ):
            if self.classifier.num_labels == 1:
                yield index, expit(logits[:, 0])
            else:
                yield index, np.asarray(expit(logits[:, self.first_label] - logits[:, 1 - self.first_label]))

    def _identity(self) -> Mapping[str, Any]:
        return {**self.classifier.identity(), "template": self.template, "first_label": self.first_label}

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        return reading_summary(counters)


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
