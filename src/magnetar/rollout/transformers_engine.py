"""Rollouts with the training model itself, through transformers.

The loop is our own rather than `model.generate`, for three reasons: a prompt is encoded once for its whole group, rows
that have ended leave the batch, and each token is decided by a number that belongs to its place and to nothing else.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, get_args

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn

from magnetar.errors import ConfigError
from magnetar.modeling.decoding_weights import MergeChoice, decoding_weights
from magnetar.modeling.modes import eval_mode
from magnetar.rollout.base import MixtureMember, Rollouts, SamplingParams, check_request
from magnetar.rollout.decoding import Continuation, Decoding, MixedDecoding, active_member
from magnetar.rollout.ending import end_token_ids
from magnetar.rollout.sampling import draw_tokens, draw_uniforms

__all__ = ["TransformersEngine"]

logger = logging.getLogger(__name__)

# Ended rows leave the batch when they are at least this share of it: each leave copies the cache once.
DROP_SHARE = 1 / 8


class Decoder(Protocol):
    """The part of a tokenizer that the engine needs."""

    eos_token_id: Any

    def batch_decode(self, sequences: Any, *, skip_special_tokens: bool = False) -> Any:
        """Turn tokens into texts."""
        ...


class TransformersEngine:
    """Draws responses with a Hugging Face causal language model, bare or with a PEFT adapter.

    The sampling settings in the model's own generation config are not used, only its end-of-sequence tokens: what is
    not in `SamplingParams` would make the responses come from another policy than the one that is trained.
    """

    def __init__(
        self,
        tokenizer: Decoder,
        sampling: SamplingParams,
        max_batch_responses: int | None = None,
        *,
        eos_token_ids: Sequence[int] | None = None,
        merge: MergeChoice = "auto",
        share_prompts: bool = True,
    ) -> None:
        """Set how responses are drawn.

        Args:
            tokenizer: Decodes responses, and names the end-of-sequence token when the model's generation config
                names none.
            sampling: Length, temperature and truncation.
            max_batch_responses: Responses generated at a time, in whole groups, at least one group; None: all.
            eos_token_ids: Tokens that end a response; None: those of the model's generation config.
            merge: Whether adapters are merged into copies of the weights for the length of a call; "auto": where these
                take at most a quarter of the device's memory. Mixtures are drawn without merging.
            share_prompts: Whether the responses of a group read their prompt's cache from one place, where the model's
                attention allows it; else each has a copy.

        Raises:
            ConfigError: `max_batch_responses` is below 1, or an unknown `merge`.
        """
        if max_batch_responses is not None and max_batch_responses < 1:
            raise ConfigError(f"max_batch_responses = {max_batch_responses}, expected at least 1, or None for no limit")
        if merge not in get_args(MergeChoice):
            raise ConfigError(f"merge = {merge!r}, expected one of {', '.join(get_args(MergeChoice))}")
        self._merge: MergeChoice = merge
        self._share_prompts = share_prompts
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._max_batch_responses = max_batch_responses
        self._eos_token_ids = eos_token_ids
        self._announced: set[str] = set()

    @property
    def sampling(self) -> SamplingParams:
        """How responses are drawn."""
        return self._sampling

    @torch.no_grad()
    def generate(
        self, model: nn.Module, prompt_ids: list[list[int]], group_size: int, seeds: Sequence[int]
    ) -> Rollouts:
        """Draw `group_size` responses to each prompt; see `RolloutEngine.generate`.

        Raises:
            ValueError: An empty prompt, a group size below 1 or another number of seeds than of prompts.
            ModelError: The model keeps no key-value cache.
        """
        inner = extract_model_from_parallel(model)
        rows = min(len(prompt_ids) * group_size, self._max_batch_responses or len(prompt_ids) * group_size)
        with eval_mode(inner), decoding_weights(inner, self._merge, max(1, rows)):
            return self._generate(
                lambda prompts: self._prefill(inner, prompts, group_size),
                self._end_tokens(inner),
                prompt_ids,
                group_size,
                seeds,
            )

    @torch.no_grad()
    def generate_mixture(
        self, members: Sequence[MixtureMember], prompt_ids: list[list[int]], group_size: int, seeds: Sequence[int]
    ) -> Rollouts:
        """Draw from a geometric mixture of policies, each with a cache of its own; see `MixtureEngine`.

        Raises:
            ValueError: As `generate`, or weights that do not sum to one.
            ModelError: A model keeps no key-value cache.
        """
        if not members or abs(sum(member.weight for member in members) - 1.0) > 1e-9:
            raise ValueError(f"weights {[member.weight for member in members]}, expected a sum of 1")
        with members[0].activate() as first:
            eos = self._end_tokens(extract_model_from_parallel(first))

        def start(prompts: list[list[int]]) -> MixedDecoding:
            states = []
            for member in members:
                with active_member(member) as model:
                    states.append(self._prefill(model, prompts, group_size))
            return MixedDecoding(list(members), states)

        return self._generate(start, eos, prompt_ids, group_size, seeds)

    def _generate(
        self,
        start: Callable[[list[list[int]]], Continuation],
        eos: frozenset[int],
        prompt_ids: list[list[int]],
        group_size: int,
        seeds: Sequence[int],
    ) -> Rollouts:
        """Draw the responses part by part, short prompts first."""
        check_request(prompt_ids, group_size, seeds)
        order = sorted(range(len(prompt_ids)), key=lambda b: (len(prompt_ids[b]), b))
        at_once = len(order) if self._max_batch_responses is None else max(1, self._max_batch_responses // group_size)
        responses: list[list[list[int]]] = [[] for _ in order]
        logp: list[list[list[float]]] = [[] for _ in order]
        for begin in range(0, len(order), at_once):
            part = order[begin : begin + at_once]
            tokens, values = self._continue(
                start([prompt_ids[b] for b in part]), group_size, [seeds[b] for b in part], eos
            )
            for i, b in enumerate(part):
                responses[b] = tokens[i * group_size : (i + 1) * group_size]
                logp[b] = values[i * group_size : (i + 1) * group_size]
        return Rollouts(
            prompt_ids=[list(prompt) for prompt in prompt_ids],
            response_ids=responses,
            texts=[list(self._tokenizer.batch_decode(group, skip_special_tokens=True)) for group in responses],
            sampling_logp=logp,
            truncated_BG=np.array([[response[-1] not in eos for response in group] for group in responses]),
        )

    def _continue(
        self, state: Continuation, group_size: int, seeds: Sequence[int], eos: frozenset[int]
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Tokens and log-probabilities of B·G responses, row by row."""
        device = state.logits.device
        length = self._sampling.max_new_tokens
        uniform_rt = draw_uniforms(seeds, group_size, length).to(device)
        end_e = torch.tensor(sorted(eos), device=device, dtype=torch.long)
        rows = uniform_rt.shape[0]
        tokens_rt = torch.zeros((rows, length), dtype=torch.long, device=device)
        logp_rt = torch.zeros((rows, length), dtype=torch.float32, device=device)
        length_r = torch.full((rows,), length, device=device)
        row_k = torch.arange(rows, device=device)  # which response each row of the shrinking batch is
        ended_k = torch.zeros(rows, dtype=torch.bool, device=device)
        for t in range(length):
            token_k, logp_k = draw_tokens(state.logits, uniform_rt[row_k, t], self._sampling)
            tokens_rt[row_k, t], logp_rt[row_k, t] = token_k, logp_k
            just_ended_k = torch.isin(token_k, end_e) & ~ended_k
            length_r[row_k[just_ended_k]] = t + 1
            ended_k |= just_ended_k
            ended = int(ended_k.sum())
            if ended == len(row_k) or t + 1 == length:
                break
            if ended >= DROP_SHARE * len(row_k) and state.can_drop:
                keep = (~ended_k).nonzero().squeeze(-1)
                state.keep(keep)
                row_k, ended_k, token_k = row_k[keep], ended_k[keep], token_k[keep]
            state.step(token_k)
        lengths = length_r.tolist()
        tokens = [row[:n] for row, n in zip(tokens_rt.tolist(), lengths, strict=True)]
        logps = [row[:n] for row, n in zip(logp_rt.tolist(), lengths, strict=True)]
        return tokens, logps

    def _prefill(self, model: nn.Module, prompts: list[list[int]], group_size: int) -> Decoding:
        """Encode each prompt once and give its group G copies of the cache."""
        device = next(model.parameters()).device
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        state = Decoding.start(model, ids, mask)
        if group_size == 1 or (self._share_prompts and state.share(group_size, self._sampling.max_new_tokens)):
            return state
        if not state.can_repeat:
            self._announce(
                f"{type(model).__name__} keeps a cache ({type(state.cache).__name__}) whose rows cannot be repeated: "
                "every prompt is encoded once for each of its responses, which takes longer"
            )
            return Decoding.start(model, ids.repeat_interleave(group_size, 0), mask.repeat_interleave(group_size, 0))
        state.repeat(group_size)
        return state

    def _announce(self, message: str) -> None:
        if message not in self._announced:
            self._announced.add(message)
            logger.warning(message)

    def _end_tokens(self, model: nn.Module) -> frozenset[int]:
        """The tokens that end a response; none when neither the model nor the tokenizer names one."""
        if self._eos_token_ids is not None:
            return frozenset(self._eos_token_ids)
        return end_token_ids(model, self._tokenizer)
