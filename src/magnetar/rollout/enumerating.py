"""An engine that lists every possible response with its exact probability, for models small enough to allow it."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from magnetar.errors import ConfigError
from magnetar.modeling.logprobs import TokenLogProbs, response_logprobs
from magnetar.numerics import masked_sum
from magnetar.rollout.base import MixtureMember, Rollouts

__all__ = ["EnumeratingEngine", "all_responses"]


def all_responses(word_ids: Sequence[int], eos_token_id: int, max_new_tokens: int) -> list[list[int]]:
    """Every response that sampling can give: ended by the end-of-sequence token, or cut at the length limit.

    Args:
        word_ids: The W tokens of the vocabulary other than the end of sequence.
        eos_token_id: The end-of-sequence token.
        max_new_tokens: L, at least 1.

    Returns:
        ``1 + W + … + W^L`` token lists; their probabilities sum to one under any policy.
    """
    ended = [[*words, eos_token_id] for length in range(max_new_tokens) for words in product(word_ids, repeat=length)]
    return ended + [list(words) for words in product(word_ids, repeat=max_new_tokens)]


class EnumeratingEngine:
    """Rollouts without sampling noise: all responses, weighted by their probability under the policy that plays.

    Args:
        tokenizer: Decodes the responses.
        responses: All responses, as `all_responses` lists them.
        temperature: The policy is the model at this temperature.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, responses: list[list[int]], temperature: float = 1.0
    ) -> None:
        self._tokenizer = tokenizer
        self._responses = responses
        self._temperature = temperature
        self._texts = [str(tokenizer.decode(r, skip_special_tokens=True)) for r in responses]

    @property
    def texts(self) -> list[str]:
        """The responses as the judge reads them."""
        return list(self._texts)

    def log_policy(self, model: nn.Module, prompt_ids: list[list[int]]) -> torch.Tensor:
        """Exact log-probability of every response to every prompt, shape (B, A), nats."""
        out = self._pass(model, prompt_ids)
        return masked_sum(out.logp_BGT, out.mask_BGT)

    def generate(
        self, model: nn.Module, prompt_ids: list[list[int]], group_size: int, seeds: Sequence[int]
    ) -> Rollouts:
        """List all responses to every prompt; the seeds have nothing to decide.

        Raises:
            ConfigError: The group size is not the number of responses.
        """
        self._check_size(group_size)
        with torch.no_grad():
            return self._listed(self.log_policy(model, prompt_ids), prompt_ids)

    @torch.no_grad()
    def generate_mixture(
        self, members: Sequence[MixtureMember], prompt_ids: list[list[int]], group_size: int, seeds: Sequence[int]
    ) -> Rollouts:
        """List all responses with their probabilities under the token-level mixture; see `MixtureEngine`.

        Raises:
            ConfigError: The group size is not the number of responses.
        """
        self._check_size(group_size)
        mixed, mask = None, torch.empty(0)
        for member in members:
            with member.activate() as model:
                out = self._pass(model, prompt_ids, full=True)
            assert out.full_NV is not None
            mixed, mask = member.weight * out.full_NV + (0.0 if mixed is None else mixed), out.mask_BGT
        assert mixed is not None
        targets = torch.tensor([token for _ in prompt_ids for response in self._responses for token in response])
        logp_n = mixed.log_softmax(-1).gather(-1, targets.to(mixed.device).unsqueeze(-1)).squeeze(-1)
        logp_BGT = torch.zeros(mask.shape, dtype=logp_n.dtype, device=logp_n.device).masked_scatter(mask, logp_n)
        return self._listed(masked_sum(logp_BGT, mask), prompt_ids)

    def _check_size(self, group_size: int) -> None:
        if group_size != len(self._responses):
            raise ConfigError(
                f"num_generations is {group_size}, expected {len(self._responses)}: an enumerating engine always gives "
                "every response"
            )

    def _pass(self, model: nn.Module, prompt_ids: list[list[int]], *, full: bool = False) -> TokenLogProbs:
        return response_logprobs(
            model,
            prompt_ids,
            [self._responses] * len(prompt_ids),
            temperature=self._temperature,
            layout="padded",
            full=full,
            pad_token_id=int(self._tokenizer.pad_token_id),  # type: ignore[arg-type]
        )

    def _listed(self, logp_BG: torch.Tensor, prompt_ids: list[list[int]]) -> Rollouts:
        weight_BG = logp_BG.double().exp()
        weight_BG = weight_BG / weight_BG.sum(-1, keepdim=True)  # rounding of a float32 model only
        b = len(prompt_ids)
        ended = [r[-1] == self._tokenizer.eos_token_id for r in self._responses]
        return Rollouts(
            prompt_ids=prompt_ids,
            response_ids=[[list(r) for r in self._responses] for _ in range(b)],
            texts=[list(self._texts) for _ in range(b)],
            sampling_logp=[[[] for _ in self._responses] for _ in range(b)],
            truncated_BG=np.tile(~np.array(ended), (b, 1)),
            weight_BG=weight_BG.cpu().numpy(),
        )
