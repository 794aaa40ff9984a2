"""A language model in this process, through vLLM."""

import functools
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from magnetar.errors import JudgeError, MissingDependencyError
from magnetar.judges.language_model.backends.base import Asking, Backend, Reply
from magnetar.judges.language_model.backends.weights import weights_fingerprint
from magnetar.types import Message

__all__ = ["VllmBackend", "check_vllm"]

TOP_LOGPROBS = 20
"""vLLM's own limit unless its engine is told otherwise."""
CHUNK = 256
"""Questions handed to the engine at a time: enough to fill it, few enough that a killed run loses little."""


class VllmBackend(Backend):
    """A causal language model of vLLM; it does its own batching and keeps the prompts' common beginnings."""

    def __init__(self, engine: Any, *, name: str, fingerprint: Callable[[], str] | None = None) -> None:
        """Take an engine.

        Args:
            engine: A `vllm.LLM`.
            name: What the model is called.
            fingerprint: Says which weights these are; None when unknown, and then answers cannot be kept.
        """
        self.model = name
        self.engine = engine
        self.fingerprint = fingerprint
        self.tokenizer = engine.get_tokenizer()

    @classmethod
    def from_pretrained(cls, source: str, *, dtype: str = "auto", **engine_options: Any) -> "VllmBackend":
        """Load a model.

        Args:
            source: "demo", a folder or a hub name.
            dtype: Floating-point type of the weights, "auto" for the type they were saved in.
            **engine_options: Further arguments of `vllm.LLM`, such as gpu_memory_utilization.

        Returns:
            The backend.

        Raises:
            MissingDependencyError: If vLLM is not installed.
            JudgeError: If vLLM cannot load the model.
        """
        check_vllm()
        from vllm import LLM  # type: ignore[import-not-found]  # an extra

        place = source
        if source == "demo":
            from magnetar.modeling.loading import demo_model_folder

            place = str(demo_model_folder())
        try:
            engine = LLM(model=place, dtype=dtype, **engine_options)  # type: ignore[arg-type]
        except (OSError, ValueError, RuntimeError) as error:
            raise JudgeError(f"vLLM cannot load the model {source!r}: {type(error).__name__}: {error}") from error
        return cls(engine, name=source, fingerprint=functools.cache(functools.partial(weights_fingerprint, place)))

    def identity(self) -> Mapping[str, Any]:
        """The weights, their floating-point type, and how a chat is written."""
        if self.fingerprint is None:
            raise JudgeError(f"model {self.model!r} was given as an object, so that its answers cannot be kept")
        return {
            "backend": "vllm",
            "weights": self.fingerprint(),
            "dtype": str(self.engine.model_config.dtype),
            "chat_template": str(self.tokenizer.chat_template),
            "top_logprobs": TOP_LOGPROBS,
        }

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def longest_input(self) -> int | None:
        """The engine's limit, less a short reply."""
        return int(self.engine.model_config.max_model_len) - 16

    def control_tokens(self) -> tuple[str, ...]:
        """Special tokens of the tokenizer."""
        added = self.tokenizer.added_tokens_decoder.values()
        return tuple(dict.fromkeys(str(token) for token in added if token.special and str(token).strip()))

    def replies(self, questions: Sequence[Sequence[Message]], asking: Asking) -> Iterator[tuple[int, Reply]]:
        """Ask some hundred at a time; see `Backend.replies`."""
        from vllm import SamplingParams  # type: ignore[import-not-found]  # an extra

        probable = asking.logprobs != "never"
        parameters = SamplingParams(
            temperature=0.0,
            max_tokens=1 if probable else asking.max_new_tokens,
            logprobs=TOP_LOGPROBS if probable else None,
        )
        for start in range(0, len(questions), CHUNK):
            if asking.enough.is_set():
                return
            part: Any = [[dict(turn) for turn in question] for question in questions[start : start + CHUNK]]
            outputs = self.engine.chat(part, parameters, use_tqdm=False)
            asking.count("calls", len(part))
            for offset, output in enumerate(outputs):
                asking.count("tokens_in", len(output.prompt_token_ids))
                asking.count("tokens_out", len(output.outputs[0].token_ids))
                yield start + offset, _reply(output.outputs[0], probable)


def _reply(completion: Any, probable: bool) -> Reply:
    if not probable:
        return Reply(completion.text)
    # One token was written: its text alone is not a reply that could be read.
    return Reply("", {item.decoded_token: float(item.logprob) for item in completion.logprobs[0].values()})


def check_vllm() -> None:
    """Raise a `MissingDependencyError` unless vLLM is installed."""
    if importlib.util.find_spec("vllm") is None:
        raise MissingDependencyError(
            "backend 'vllm' needs the package vllm, not installed here; run: pip install \"magnetar[vllm]\", or use "
            "backend 'transformers', or a vLLM server by base_url"
        )
