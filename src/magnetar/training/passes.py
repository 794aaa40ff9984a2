"""How log-probability passes run."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from magnetar.modeling.critic import Critic
from magnetar.modeling.logprobs import TokenLogProbs, response_logprobs, split_micro_batches
from magnetar.modeling.vocabulary import FrozenStates

__all__ = ["PassSettings"]


@dataclass(frozen=True)
class PassSettings:
    """How log-probability passes run.

    Attributes:
        temperature: The policy is the model at this temperature.
        layout: "packed" or "padded".
        max_tokens: Token budget of one pass.
        pad_token_id: Of the tokenizer.
        chunked: Whether the output layer is applied to a few tokens at a time.
    """

    temperature: float
    layout: str
    max_tokens: int
    pad_token_id: int
    chunked: bool = False

    def micro_batches(self, prompt_ids: list[list[int]], response_ids: list[list[list[int]]]) -> list[list[int]]:
        """Split groups into passes within the token budget: lists of prompt indices."""
        return [
            list(part)
            for part in split_micro_batches(prompt_ids, response_ids, self.max_tokens, self.layout)  # type: ignore[arg-type]
        ]

    def values(self, critic: Critic, prompt_ids: list[list[int]], response_ids: list[list[list[int]]]) -> Tensor:
        """A critic's value of the state before each response token in one pass, shape (B, G, T)."""
        return critic.values(
            prompt_ids,
            response_ids,
            layout=self.layout,  # type: ignore[arg-type]
            pad_token_id=self.pad_token_id,
        )

    def run(
        self,
        model: nn.Module,
        prompt_ids: list[list[int]],
        response_ids: list[list[list[int]]],
        *,
        full: bool = False,
        entropy: bool = True,
        against: Mapping[str, FrozenStates] | None = None,
        states: bool = False,
    ) -> TokenLogProbs:
        """Log-probabilities of responses in one pass; see `magnetar.modeling.logprobs.response_logprobs`.

        ``full`` keeps the whole next-token distributions, and so never goes in chunks.
        """
        return response_logprobs(
            model,
            prompt_ids,
            response_ids,
            temperature=self.temperature,
            layout=self.layout,  # type: ignore[arg-type]
            full=full,
            entropy=entropy,
            pad_token_id=self.pad_token_id,
            chunked=self.chunked and not full,
            against=against,
            states=states,
        )
