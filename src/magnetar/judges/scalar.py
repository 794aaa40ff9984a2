"""Reward and cost models: Hugging Face sequence classifiers with one output."""

from collections.abc import Sequence
from typing import Any

from magnetar.data.prompts import prompt_text
from magnetar.errors import JudgeError
from magnetar.judges.checks import FloatArray
from magnetar.judges.classifier import SequenceClassifier
from magnetar.judges.function import check_temperature
from magnetar.judges.pointwise import ScalarJudge
from magnetar.judges.prompts import as_messages
from magnetar.types import Prompt

__all__ = ["RewardModelJudge"]


class RewardModelJudge(ScalarJudge):
    """A sequence classifier with one output as a judge: ``P(i beats j) = σ(±(logit_i − logit_j) / temperature)``.

    Where the tokenizer has a chat template it is applied to the prompt and the response as chat turns (a text prompt
    counts as one turn of the user). Otherwise the model reads prompt and response as one text; a prompt of chat turns
    is set apart from the response by an empty line. `stats` adds `truncated_share`.
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
                "is named pairwise:MODEL, one of several classes cannot be a judge"
            )
        self.classifier = classifier
        self.temperature = check_temperature(temperature)
        self.sign = -1.0 if lower_is_better else 1.0
        self.name = name

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        *,
        temperature: float = 1.0,
        lower_is_better: bool = False,
        name: str | None = None,
        **options: Any,
    ) -> "RewardModelJudge":
        """Load a reward or cost model.

        Args:
            source: Folder or hub name.
            temperature: Difference in logit that gives odds of e to 1; positive.
            lower_is_better: True for a cost model.
            name: What reports call the judge.
            **options: Options of `SequenceClassifier.from_pretrained`.

        Returns:
            The judge.
        """
        name = name or f"{'cost' if lower_is_better else 'reward'}:{source}"
        check_temperature(temperature)
        classifier = SequenceClassifier.from_pretrained(source, **options)
        return cls(classifier, temperature=temperature, lower_is_better=lower_is_better, name=name)

    def text(self, prompt: Prompt, response: str) -> str:
        """The text that the model reads for one response."""
        tokenizer = self.classifier.tokenizer
        if tokenizer.chat_template:
            turns = [*as_messages(prompt), {"role": "assistant", "content": response}]
            return str(tokenizer.apply_chat_template(turns, tokenize=False))
        separator = "" if isinstance(prompt, str) else "\n\n"
        return prompt_text(prompt) + separator + response

    def _scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        texts = [self.text(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        # A chat template writes the special tokens itself.
        answer = self.classifier(texts, add_special_tokens=not self.classifier.tokenizer.chat_template)
        self._count("truncated", answer.truncated)
        self._count("tokens", answer.tokens)
        return self.sign * answer.logits[:, 0]

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        truncated = counters.pop("truncated", 0.0)
        return counters | ({"truncated_share": truncated / counters["responses"]} if "responses" in counters else {})
