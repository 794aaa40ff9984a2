"""General preference models: Hugging Face sequence classifiers whose outputs are an embedding of the response."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scipy.special import expit

from magnetar.errors import JudgeError
from magnetar.judges.base import collect
from magnetar.judges.checks import FloatArray, IndexArray
from magnetar.judges.function import check_temperature
from magnetar.judges.models.card import card_of_kind
from magnetar.judges.models.classifier import SequenceClassifier, reading_summary
from magnetar.judges.pointwise import PointwiseJudge
from magnetar.judges.prompts import response_text
from magnetar.modeling.devices import are_apart
from magnetar.modeling.general_preference import skew_score, unit_length
from magnetar.types import Prompt

__all__ = ["GeneralPreferenceJudge"]


class GeneralPreferenceJudge(PointwiseJudge):
    """A sequence classifier with D outputs as a judge that can prefer in circles, at one reading a response.

    The outputs for a response are its embedding v, and ``P(i beats j) = σ(s(v_i, v_j) / temperature)`` with the
    skew-symmetric score s of `magnetar.modeling.general_preference.skew_score`. What is read is as for
    `RewardModelJudge`. `stats` adds what `reading_summary` says.

    Source: arXiv:2410.02197.
    """

    def __init__(
        self,
        classifier: SequenceClassifier,
        *,
        temperature: float = 1.0,
        normalize: bool = True,
        name: str = "general",
    ) -> None:
        """Take a loaded classifier.

        Args:
            classifier: Has an even number D of outputs.
            temperature: Score that gives odds of e to 1; positive.
            normalize: Whether embeddings are scaled to unit length, which bounds the score by ±1.
            name: What reports call the judge.

        Raises:
            JudgeError: If the number of outputs is odd, or the temperature is not positive.
        """
        if classifier.num_labels < 2 or classifier.num_labels % 2:
            raise JudgeError(
                f"judge {name!r} has {classifier.num_labels} outputs, expected an even number: the dimensions of an "
                "embedding; a model with one output is named reward:MODEL"
            )
        self.classifier = classifier
        self.temperature = check_temperature(temperature)
        self.normalize = normalize
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
        normalize: bool | None = None,
        max_length: int | None = None,
        name: str | None = None,
        **options: Any,
    ) -> "GeneralPreferenceJudge":
        """Load a general preference model.

        Args:
            source: Folder or hub name.
            temperature: Score that gives odds of e to 1; positive. What the model's card says if None, or 1.
            normalize: Whether embeddings are scaled to unit length; what the card says if None, or true.
            max_length: Longest input in tokens; what the card says if None, or the model's own limit.
            name: What reports call the judge.
            **options: Options of `SequenceClassifier.from_pretrained`.

        Returns:
            The judge.

        Raises:
            JudgeError: If it was trained as another kind or cannot be loaded.
        """
        card = card_of_kind(source, "general")
        temperature = check_temperature(card.temperature if temperature is None else temperature)
        classifier = SequenceClassifier.from_pretrained(source, max_length=max_length or card.max_length, **options)
        return cls(
            classifier,
            temperature=temperature,
            normalize=card.normalize if normalize is None else normalize,
            name=name or f"general:{source}",
        )

    def text(self, prompt: Prompt, response: str) -> str:
        """The text that the model reads for one response."""
        return response_text(self.classifier.tokenizer, prompt, response)

    def compare(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Win probability of one embedding over another, shapes (..., D)."""
        return expit(skew_score(first, second) / self.temperature)

    def comparison(self) -> Mapping[str, Any]:
        """The skew-symmetric score, with the temperature."""
        return {"rule": "general", "temperature": self.temperature}

    def _features(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        return collect(self._iter_features(prompts, responses), len(prompts), self.classifier.num_labels)

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
            yield index, unit_length(logits) if self.normalize else logits

    def _identity(self) -> Mapping[str, Any]:
        return {**self.classifier.identity(), "temperature": self.temperature, "normalize": self.normalize}

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        return reading_summary(counters)
