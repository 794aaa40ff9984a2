"""In place of vLLM: a plain transformers model of its own that only knows the weights it is given."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from magnetar.errors import RolloutError
from magnetar.rollout import TransformersEngine
from magnetar.rollout.vllm.backend import SIZES, EngineFacts, Sample, Sampling
from magnetar.training.sharding import loading_whole_models


class PlainDecoder:
    """A tokenizer of which only what an engine needs is there."""

    def __init__(self, eos_token_id: int | None = None) -> None:
        self.eos_token_id = eos_token_id

    def batch_decode(self, sequences: Any, *, skip_special_tokens: bool = False) -> list[str]:
        return [" ".join(str(token) for token in sequence) for sequence in sequences]


class ReferenceBackend:
    """Starts with random weights; `fail` names the method that fails next."""

    def __init__(self, config: Any, *, logprobs_mode: str = "processed_logprobs", **facts: Any) -> None:
        from transformers import AutoModelForCausalLM

        # As vLLM's, its weights are whole, however the trainer's are kept.
        with torch.random.fork_rng(), loading_whole_models():
            torch.manual_seed(12345)
            self.model = AutoModelForCausalLM.from_config(deepcopy(config)).float().eval()
        text = config.get_text_config()
        sizes = {name: facts.pop(name, getattr(text, name)) for name in SIZES}
        fixed = {"vllm": "0", "dtype": "float32", "max_model_len": 64, "model_type": text.model_type}
        self._facts: dict[str, Any] = fixed | {"sizes": sizes} | facts
        self._mode = logprobs_mode
        self.stamp: str | None = None
        self.sent: list[list[str]] = []
        self.whole: list[bool] = []
        self.fail: str | None = None
        self.asleep = False
        self.loses_weights = False

    def _may_fail(self, name: str) -> None:
        if self.fail == name:
            self.fail = None
            raise RolloutError(f"{name} failed")

    def facts(self) -> EngineFacts:
        self._may_fail("facts")
        return EngineFacts(logprobs_mode=self._mode, weights=self.stamp, **self._facts)

    def wake(self) -> bool:
        self.asleep = False
        if self.loses_weights:
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.fill_(float("nan"))
        return not self.loses_weights

    def load(self, weights: Iterable[tuple[str, Tensor]], stamp: str, *, whole: bool) -> None:
        assert not self.asleep
        given = {name: tensor.clone() for name, tensor in weights}
        self.stamp = None
        self._may_fail("load")
        left = self.model.load_state_dict(given, strict=False)
        tied = {"lm_head.weight"} if self.model.config.tie_word_embeddings else set()
        assert not left.unexpected_keys
        assert not whole or not set(left.missing_keys) - tied
        self.sent.append(list(given))
        self.whole.append(whole)
        self.stamp = stamp

    def sample(self, prompt_ids: list[list[int]], seeds: Sequence[int], sampling: Sampling) -> list[list[Sample]]:
        self._may_fail("sample")
        engine = TransformersEngine(PlainDecoder(), sampling.params, eos_token_ids=sampling.end_token_ids)
        drawn = engine.generate(self.model, prompt_ids, sampling.group_size, seeds)
        return [
            [Sample(tokens, logp) for tokens, logp in zip(*group, strict=True)]
            for group in zip(drawn.response_ids, drawn.sampling_logp, strict=True)
        ]

    def rest(self) -> None:
        self.asleep = True

    def close(self) -> None:
        self.stamp = None
