"""A language model in this process, through transformers: batches of a token budget, exact probabilities."""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from magnetar.errors import JudgeError
from magnetar.judges.language_model.answers import choice_of_token
from magnetar.judges.language_model.backends.base import Asking, Backend, Reply
from magnetar.judges.language_model.templates import Choices
from magnetar.modeling.devices import are_apart
from magnetar.types import Message

__all__ = ["TransformersBackend"]

OTHERS = "\0"
"""Before the likeliest token that belongs to no choice, which stands for all of them; no choice begins so."""
SHORTEST_SHARED = 16
"""From so many common tokens on they are read once for all questions."""


class TransformersBackend(Backend):
    """A causal language model of transformers, asked in batches.

    The probabilities of the choices are those of the next token over the whole vocabulary, so nothing is missing from
    them. Rows are padded on the left, only the last position's logits are computed, and what
    all questions of a call begin with is read once.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        tokens_per_batch: int = 8192,
    ) -> None:
        """Take a loaded model.

        Args:
            model: A causal language model.
            tokenizer: Its tokenizer.
            name: What it is called.
            tokens_per_batch: Budget of one forward pass in tokens, padding included.

        Raises:
            JudgeError: If the budget is not positive.
        """
        if isinstance(tokens_per_batch, bool) or not isinstance(tokens_per_batch, int) or tokens_per_batch < 1:
            raise JudgeError(f"tokens_per_batch = {tokens_per_batch!r}, expected an integer of at least 1")
        self.model = name
        self.network = model.eval()
        self.tokenizer = tokenizer
        self.tokens_per_batch = tokens_per_batch
        self._digest: str | None = None
        takes_keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if takes_keep else {}
        # Sliding windows and recurrent states cannot be taken up after padding.
        layers = getattr(model.config.get_text_config(), "layer_types", None) or ()
        self._can_share = all(kind == "full_attention" for kind in layers)
        self._choice_ids: dict[Choices, torch.Tensor] = {}

    def leaves_free(self, device: str) -> bool:
        """Whether the model runs elsewhere."""
        return are_apart(self.network.device, device)

    @classmethod
    def from_pretrained(
        cls, source: str, *, device: str | None = None, dtype: str = "auto", tokens_per_batch: int = 8192
    ) -> "TransformersBackend":
        """Load a model.

        Args:
            source: "demo", a folder or a hub name; also of a PEFT adapter.
            device: Where to run; the current accelerator, or the CPU where there is none, when None.
            dtype: Floating-point type of the weights, "auto" for the type they were saved in.
            tokens_per_batch: Budget of one forward pass in tokens, padding included.

        Returns:
            The backend.

        Raises:
            ModelError: If the model cannot be loaded.
        """
        from magnetar.modeling.loading import load_policy

        model, tokenizer = load_policy(source, dtype=dtype)
        if device is None:
            device = "cpu"
            if torch.accelerator.is_available():
                # The current device, not the first: in a distributed run each process has its own.
                device = f"{torch.accelerator.current_accelerator()}:{torch.accelerator.current_device_index()}"
        network: Any = model.to(device)  # type: ignore[arg-type]
        return cls(network, tokenizer, name=source, tokens_per_batch=tokens_per_batch)

    def identity(self) -> Mapping[str, Any]:
        """The weights in memory, with their floating-point type, and the tokenizer with its chat template."""
        if self._digest is None:
            from magnetar.modeling.classifier_files import digest_of_model

            self._digest = digest_of_model(self.network, self.tokenizer)
        return {"backend": "transformers", "weights": self._digest}

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def count_question(self, question: Sequence[Message]) -> int:
        """Number of tokens that the model will read."""
        return len(self.token_ids(question))

    def longest_input(self) -> int | None:
        """The model's own limit, less a reply's first token."""
        limit = getattr(self.network.config.get_text_config(), "max_position_embeddings", None)
        known = [value for value in (limit, self.tokenizer.model_max_length) if value is not None and value < 10**9]
        return int(min(known)) - 1 if known else None

    def control_tokens(self) -> tuple[str, ...]:
        """Special tokens of the tokenizer."""
        added = self.tokenizer.added_tokens_decoder.values()
        return tuple(dict.fromkeys(str(token) for token in added if token.special and str(token).strip()))

    def token_ids(self, question: Sequence[Message]) -> list[int]:
        """What the model reads: the chat template's tokens, or plain paragraphs where a model has no template."""
        turns = [dict(turn) for turn in question]
        if self.tokenizer.chat_template is None:
            text = "\n\n".join(turn["content"] for turn in turns) + "\n\nAnswer:"
            return list(self.tokenizer(text, verbose=False)["input_ids"])
        try:
            return self._templated(turns)
        except jinja2.TemplateError:
            # Some models know no system turn; its text goes before the question.
            text = "\n\n".join(turn["content"] for turn in turns)
            return self._templated([{"role": "user", "content": text}])

    def _templated(self, turns: list[dict[str, str]]) -> list[int]:
        encoded = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)
        return list(encoded["input_ids"])  # type: ignore[index]

    def replies(self, questions: Sequence[Sequence[Message]], asking: Asking) -> Iterator[tuple[int, Reply]]:
        """Ask batch by batch, longest first; see `Backend.replies`."""
        rows = [self.token_ids(question) for question in questions]
        probable = asking.logprobs != "never"
        shared = _common_start(rows) if probable and self._can_share else 0
        past = self._read_once(rows[0][:shared]) if shared >= SHORTEST_SHARED else None
        shared = shared if past is not None else 0
        room = 0 if probable else asking.max_new_tokens
        for batch in _batches([len(row) - shared + room for row in rows], self.tokens_per_batch):
            if asking.enough.is_set():
                return
            asking.count("calls", len(batch))
            asking.count("tokens_in", sum(len(rows[at]) for at in batch))
            asked = [rows[at][shared:] for at in batch]
            answers = self._probable(asked, asking, past, shared) if probable else self._written(asked, asking)
            yield from zip(batch, answers, strict=True)

    @torch.inference_mode()
    def _read_once(self, ids: list[int]) -> DynamicCache | None:
        """Keys and values of what all questions begin with: the system text, and whatever the template puts first."""
        past = self.network(
            input_ids=torch.tensor([ids], device=self.network.device), use_cache=True, **self._last_only
        ).past_key_values
        return past if isinstance(past, DynamicCache) else None

    @torch.inference_mode()
    def _probable(self, rows: list[list[int]], asking: Asking, past: DynamicCache | None, shared: int) -> list[Reply]:
        """Probabilities of the choices at the first place of the reply."""
        input_ids, mask = self._padded(rows)
        positions = (mask.cumsum(-1) - 1).clamp(min=0) + shared
        if past is not None:
            past = copy.deepcopy(past)
            past.batch_repeat_interleave(len(rows))
            mask = torch.cat([mask.new_ones(len(rows), shared), mask], dim=-1)
        output = self.network(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=past is not None,
            **self._last_only,
        )
        logp = output.logits[:, -1].float().log_softmax(-1).cpu()
        words = asking.choices.words
        belongs = self._belongs(asking.choices, logp.shape[-1])
        # One entry for each choice and one for all else, so that a reply stays small.
        parts = [torch.logsumexp(logp[:, belongs == at], dim=-1) for at in range(len(words))]
        others = logp[:, belongs < 0]
        parts.append(torch.logsumexp(others, dim=-1))
        likeliest = self.tokenizer.batch_decode(torch.nonzero(belongs < 0)[others.argmax(-1)])
        table = torch.stack(parts, dim=-1).double().clamp(max=0.0).tolist()
        return [
            Reply("", dict(zip((*words, OTHERS + text), row, strict=True)))
            for text, row in zip(likeliest, table, strict=True)
        ]

    @torch.inference_mode()
    def _written(self, rows: list[list[int]], asking: Asking) -> list[Reply]:
        """The likeliest reply as text."""
        input_ids, mask = self._padded(rows)
        generated = self.network.generate(  # type: ignore[operator]
            input_ids=input_ids,
            attention_mask=mask,
            max_new_tokens=asking.max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        new = generated[:, input_ids.shape[1] :]
        asking.count("tokens_out", int((new != self.tokenizer.pad_token_id).sum()))
        return [Reply(text) for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]

    def _belongs(self, choices: Choices, size: int) -> torch.Tensor:
        """For each token of the vocabulary the choice that it is or begins, −1 for none; shape (V,)."""
        if choices not in self._choice_ids:
            texts = self.tokenizer.batch_decode([[at] for at in range(len(self.tokenizer))])
            found = [choice_of_token(text, choices) for text in texts[:size]]
            table = torch.tensor([-1 if at is None else at for at in found])
            # Models may have more logits than their tokenizer has tokens.
            table = torch.nn.functional.pad(table, (0, size - len(table)), value=-1)
            for at, word in enumerate(choices.words):
                if not bool((table == at).any()):
                    raise JudgeError(f"model {self.model!r} has no token that begins the choice {word!r}; use another")
            self._choice_ids[choices] = table
        return self._choice_ids[choices]

    def _padded(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of one width, padded on the left, and where they are not padding; both of shape (N, width)."""
        width = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        ids = torch.full((len(rows), width), 0 if pad is None else int(pad))  # type: ignore[arg-type]
        mask = torch.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, width - len(row) :] = torch.tensor(row, dtype=torch.long)
            mask[at, width - len(row) :] = 1
        return ids.to(self.network.device), mask.to(self.network.device)


def _common_start(rows: list[list[int]]) -> int:
    """How many tokens all rows begin with; each keeps at least one of its own."""
    if len(rows) < 2:
        return 0
    low, high = min(rows), max(rows)
    limit = min(map(len, rows)) - 1
    return next((at for at in range(limit) if low[at] != high[at]), limit)


def _batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Cut the rows, longest first, into batches whose padded size keeps to the budget."""
    batches: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        # Sorted, so the first row of a batch is its longest and sets the padded length.
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > budget:
            batches.append([])
        batches[-1].append(at)
    return batches
