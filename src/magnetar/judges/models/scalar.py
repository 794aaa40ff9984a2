"""Reward and cost models: Hugging Face sequence classifiers with one output."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from magnetar.errors import JudgeError
from magnetar.judges.base import collect
from magnetar.judges.checks import FloatArray, IndexArray
from magnetar.judges.function import check_temperature
from magnetar.judges.models.card import card_of_kind
from magnetar.judges.models.classifier import SequenceClassifier, reading_summary
from magnetar.judges.pointwise import ScalarJudge
from magnetar.judges.prompts import response_text
from magnetar.modeling.devices import are_apart
from magnetar.types import Prompt

__all__ = ["RewardModelJudge"]


class RewardModelJudge(ScalarJudge):
    """A sequence classifier with one output as a judge: ``P(i beats j) = σ(±(logit_i − logit_j) / temperature)``.

    Where the tokenizer has a chat template it is applied to the prompt and the response as chat turns (a text prompt
    counts as one turn of the user). Otherwise the model reads prompt and response as one text; a prompt of chat turns
    is set apart from the response by an empty line. `stats` adds what `reading_summary` says.
    """

    def __init__(
        self,
        classifier: SequenceClassifier,
        *,
        temperature: float = 1.0,
        lower_is_better: bool = False,
        name: str = "reward",
    ) -> None:
        """Take a loaded classifier.

        Args:
            classifier: Has one output.
            temperature: Difference in logit that gives odds of e to 1; positive.
            lower_is_better: True for a cost model.
            name: What reports call the judge.

        Raises:
            JudgeError: If the classifier has more than one output, or the temperature is not positive.
        """
        if classifier.num_labels != 1:
            raise JudgeError(
                f"judge {name!r} has {classifier.num_labels} outputs, expected 1; a model that reads both responses "
                "is named pairwise:MODEL, one whose outputs are an embedding general:MODEL, one of several classes "
                "cannot be a judge"
            )
        self.classifier = classifier
        self.temperature = check_temperature(temperature)
        self.sign = -1.0 if lower_is_better else 1.0
        self.name = name

    def leaves_free(self, device: str) -> bool:
        """Whether the model runs elsewhere."""
        return are_apart(self.classifier.model.device, device)

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        *,
        temperature: float | None = None,
        lower_is_better: bool = False,
        max_length: int | None = None,
        name: str | None = None,
        **options: Any,
    ) -> "RewardModelJudge":
        """Load a reward or cost model.

        Args:
            source: Folder or hub name.
            temperature: Difference in logit that gives odds of e to 1; positive. What the model's card says if None,
                or 1.
            lower_is_better: True for a cost model.
            max_length: Longest input in tokens; what the card says if None, or the model's own limit.
            name: What reports call the judge.
            **options: Options of `SequenceClassifier.from_pretrained`.

        Returns:
            The judge.

        Raises:
            JudgeError: If it was trained as another kind or cannot be loaded.
        """
        kind = "cost" if lower_is_better else "reward"
        card = card_of_kind(source, kind)
        temperature = check_temperature(card.temperature if temperature is None else temperature)
        classifier = SequenceClassifier.from_pretrained(source, max_length=max_length or card.max_length, **options)
        return cls(
            classifier, temperature=temperature, lower_is_better=lower_is_better, name=name or f"{kind}:{source}"
        )

    def text(self, prompt: Prompt, response: str) -> str:
        """The text that the model reads for one response."""
        return response_text(self.classifier.tokenizer, prompt, response)

    def _scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        return collect(self._iter_features(prompts, responses), len(prompts), 1)[:, 0]

    def _iter_features(
        self, prompts: Sequence[Prompt], responses: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        for index, logits in self.classifier.read(
            [(prompt, (response,)) for prompt, response in zip(prompts, responses, strict=True)],
            self.text,
            add_special_tokens=not self.classifier.tokenizer.chat_template,
            count=self._count,
            judge=self.name,
        ):
            yield index, self.sign * logits

    def _identity(self) -> Mapping[str, Any]:
        return {**self.classifier.identity(), "temperature": self.temperature, "sign": self.sign}

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        return reading_summary(counters)
