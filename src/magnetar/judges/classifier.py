"""A Hugging Face sequence classifier that reads texts in batches of a token budget: what model judges share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from magnetar.errors import JudgeError
from magnetar.judges.checks import FloatArray

__all__ = ["ClassifierAnswer", "SequenceClassifier", "check_model_source"]


@dataclass(frozen=True)
class ClassifierAnswer:
    """Logits of a batch of texts, in the order asked.

    Attributes:
        logits: Shape (N, L), float64.
        truncated: How many of the N texts were longer than the limit and lost their beginning.
        tokens: Tokens read, padding left out.
    """

    logits: FloatArray
    truncated: int
    tokens: int


class SequenceClassifier:
    """A sequence classification model with its tokenizer, in evaluation mode and without gradients."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
        tokens_per_batch: int = 8192,
    ) -> None:
        """Take a loaded model.

        Args:
            model: A model with a sequence classification head.
            tokenizer: Its tokenizer.
            max_length: Longest input in tokens; the model's or tokenizer's own limit when None.
            tokens_per_batch: Budget of one forward pass in tokens, padding included.

        Raises:
            JudgeError: If a limit is not positive, or neither model nor tokenizer names a padding token.
        """
        if tokens_per_batch < 1:
            raise JudgeError(f"tokens_per_batch = {tokens_per_batch}, expected at least 1")
        if max_length is not None and max_length < 1:
            raise JudgeError(f"max_length = {max_length}, expected at least 1 token")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length = max_length or _own_limit(model, tokenizer)
        self.tokens_per_batch = tokens_per_batch
        config = model.config.get_text_config()
        if config.pad_token_id is None:
            # Decoder classifiers read the score at the last token that is not padding, so the model must know the id.
            config.pad_token_id = _padding_of(tokenizer)
        self.pad_token_id: int = config.pad_token_id

    @classmethod
    def from_pretrained(
        cls, source: str, *, device: str | None = None, dtype: str = "auto", **options: Any
    ) -> "SequenceClassifier":
        """Load a model and its tokenizer from a folder or a hub name.

        Args:
            source: Folder or hub name.
            device: Where to run; the current accelerator, or the CPU where there is none, when None.
            dtype: Floating-point type of the weights, "auto" for the type they were saved in.
            **options: Options of the constructor.

        Returns:
            The classifier.

        Raises:
            JudgeError: If the model cannot be loaded, or has no trained classification head.
        """
        try:
            # Read first: a wrong tokenizer is then known before gigabytes of weights are.
            tokenizer = AutoTokenizer.from_pretrained(source)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                source, dtype=dtype, output_loading_info=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise JudgeError(
                f"judge model {source!r} cannot be loaded: {error}; give a folder or hub name of a Hugging Face "
                "sequence classification model with its tokenizer"
            ) from error
        if info["missing_keys"]:
            # transformers would fill these with random numbers, and the judge would judge at random.
            raise JudgeError(
                f"judge model {source!r} lacks trained weights for {', '.join(sorted(info['missing_keys']))}; "
                "it is not a trained sequence classification model"
            )
        return cls(model.to(device or _default_device()), tokenizer, **options)

    @property
    def num_labels(self) -> int:
        """Number of outputs of the classification head."""
        return int(self.model.config.num_labels or 0)

    def __call__(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> ClassifierAnswer:
        """Read N texts.

        Args:
            texts: N texts.
            add_special_tokens: Whether the tokenizer adds its special tokens; not after a chat template.

        Returns:
            The logits, in the order of the texts.
        """
        encoded = self.tokenizer(list(texts), add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
        rows = [self._shorten(ids) for ids in encoded]
        truncated = sum(len(row) < len(ids) for row, ids in zip(rows, encoded, strict=True))
        logits = np.zeros((len(rows), self.num_labels))
        for batch in self._batches([len(row) for row in rows]):
            logits[batch] = self._forward([rows[at] for at in batch])
        return ClassifierAnswer(logits, truncated, sum(map(len, rows)))

    def _shorten(self, ids: list[int]) -> list[int]:
        """Cut from the left, behind the leading special tokens: the end holds the response and is what is judged."""
        excess = len(ids) - self.max_length
        if excess <= 0:
            return ids
        special = set(self.tokenizer.all_special_ids)
        keep = next((at for at, token in enumerate(ids) if token not in special), 0)
        keep = min(keep, self.max_length - 1)
        return ids[:keep] + ids[keep + excess :]

    def _batches(self, lengths: list[int]) -> list[list[int]]:
        """Cut the rows, longest first, into batches whose padded size keeps to the budget."""
        batches: list[list[int]] = []
        for at in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
            # Sorted, so the first row of a batch is its longest and sets the padded length.
            if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > self.tokens_per_batch:
                batches.append([])
            batches[-1].append(at)
        return batches

    @torch.inference_mode()
    def _forward(self, rows: list[list[int]]) -> FloatArray:
        width = max(1, max(map(len, rows)))
        input_ids = torch.full((len(rows), width), self.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for at, row in enumerate(rows):
            input_ids[at, : len(row)] = torch.tensor(row, dtype=torch.long)
            attention_mask[at, : len(row)] = 1
        device = self.model.device
        output = self.model(input_ids=input_ids.to(device), attention_mask=attention_mask.to(device))
        return output.logits.double().cpu().numpy()


def check_model_source(source: str) -> None:
    """Check what can be known of a model's name without loading it.

    Args:
        source: Folder or hub name.

    Raises:
        JudgeError: If a folder is meant that is missing or holds no configuration, or the name cannot be a hub name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    folder = Path(source).expanduser()
    if folder.exists():
        if not (folder / "config.json").is_file():
            raise JudgeError(
                f"judge model {source!r} exists but holds no config.json; give a Hugging Face model folder"
            )
        return
    if source.startswith((".", "/", "~")):
        raise JudgeError(f"judge model {source!r}: there is no such folder")
    try:
        validate_repo_id(source)
    except HFValidationError as error:
        raise JudgeError(f"judge model {source!r} is neither a folder nor a hub name: {error}") from error


def _own_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    # Tokenizers without a limit say 1e30, which `min` never picks over a model's.
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(int(tokenizer.model_max_length), positions or int(tokenizer.model_max_length))


def _padding_of(tokenizer: PreTrainedTokenizerBase) -> int:
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(token_id, int):
            return token_id
    raise JudgeError(
        "the judge's tokenizer has neither a padding nor an end-of-sequence token, so texts cannot be batched; "
        "set `pad_token` in its tokenizer_config.json"
    )


def _default_device() -> str:
    # The current device, not the first: in a distributed run each process has its own.
    if torch.accelerator.is_available():
        return f"{torch.accelerator.current_accelerator()}:{torch.accelerator.current_device_index()}"
    return "cpu"
