"""A Hugging Face sequence classifier that reads many texts fast: what model judges share.

Texts are tokenised whole. A decoder then reads what its inputs have in common once, as token trees; any other model
reads padded rows. Either way, inputs of similar length come together, up to a budget of tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from magnetar.errors import JudgeError, ModelError, unknown_name
from magnetar.judges.checks import FloatArray, IndexArray, short_text
from magnetar.judges.models.fitting import Question, fit_questions
from magnetar.modeling.classifier_files import ClassifierSource, digest_of_model, load_classifier
from magnetar.modeling.classifiers import even_length, read_padded, read_rows, tree_obstacle
from magnetar.modeling.token_trees import RowPlan, TokenArray, plan_rows

__all__ = ["ON_LONG", "OnLong", "SequenceClassifier", "check_model_source", "reading_summary"]

OnLong = Literal["middle", "left", "error"]
ON_LONG: tuple[OnLong, ...] = ("middle", "left", "error")
BUDGET, CPU_BUDGET = 8192, 1024  # tokens
LONGEST_ROW = 4096  # tokens in a tree; its mask has the square of it
TEXTS_AT_ONCE = 1024  # tokenised; Python's lists of token ids take much memory

Count = Callable[[str, float], None]


class SequenceClassifier:
    """A sequence classification model with its tokenizer, in evaluation mode and without gradients.

    Attributes:
        obstacle: Why this model cannot read shared beginnings once, in words; None if it does.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
        tokens_per_batch: int | None = None,
        on_long: OnLong = "middle",
        share_beginnings: bool = True,
        source: ClassifierSource | None = None,
    ) -> None:
        """Take a loaded model.

        Args:
            model: A model with a sequence classification head.
            tokenizer: Its tokenizer.
            max_length: Longest input in tokens; the model's or tokenizer's own limit when None.
            tokens_per_batch: Budget of one forward pass in tokens, padding included; when None, 8,192 on an accelerator
                and 1,024 on a CPU, which gains nothing from more and loses by the padding.
            on_long: What becomes of longer inputs: "middle" cuts the longest part, a prompt at its beginning and a
                response in its middle (see `fit_questions`); "left" cuts the whole text at its beginning; "error".
            share_beginnings: Whether a decoder reads what inputs have in common once; the answers are the same.
            source: Files that the model was loaded from, for `identity`; None for a model made in memory.

        Raises:
            JudgeError: If a limit is not positive, or neither model nor tokenizer names a padding token.
        """
        if tokens_per_batch is not None and tokens_per_batch < 1:
            raise JudgeError(f"tokens_per_batch = {tokens_per_batch}, expected at least 1")
        if max_length is not None and max_length < 1:
            raise JudgeError(f"max_length = {max_length}, expected at least 1 token")
        if on_long not in ON_LONG:
            raise JudgeError(unknown_name("on_long", str(on_long), ON_LONG))
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length = max_length or _own_limit(model, tokenizer)
        self.tokens_per_batch = tokens_per_batch or (CPU_BUDGET if model.device.type == "cpu" else BUDGET)
        # Memory bounds what is asked for; a tree beyond the CPU's own choice is a batch of its own.
        self._longest_row = min(LONGEST_ROW, tokens_per_batch or LONGEST_ROW)
        self.on_long: OnLong = on_long
        self.source = source
        config = model.config.get_text_config()
        if config.pad_token_id is None:
            # Decoder classifiers read the score at the last token that is not padding, so the model must know the id.
            config.pad_token_id = _padding_of(tokenizer)
        self.pad_token_id: int = config.pad_token_id
        self.obstacle = tree_obstacle(model) if share_beginnings else "share_beginnings is off"
        self._even_length = even_length(model) if self.obstacle is None else 1.0

    @classmethod
    def from_pretrained(
        cls, source: str, *, device: str | None = None, dtype: str = "auto", **options: Any
    ) -> "SequenceClassifier":
        """Load a model and its tokenizer from a folder or a hub name.

        Args:
            source: Folder or hub name of a model, or of a LoRA adapter, which is merged into its base.
            device: Where to run; the current accelerator, or the CPU where there is none, when None.
            dtype: Floating-point type of the weights, "auto" for the type they were saved in.
            **options: Options of the constructor.

        Returns:
            The classifier.

        Raises:
            JudgeError: If the model cannot be loaded, or has no trained classification head.
        """
        try:
            model, tokenizer, files = load_classifier(source, dtype=dtype)
        except ModelError as error:
            raise JudgeError(f"judge model {source!r} cannot be loaded: {error}") from error
        model = cast(Any, model).to(device or _default_device())
        return cls(model, tokenizer, source=files, **options)

    def __repr__(self) -> str:
        how = "shared beginnings read once" if self.obstacle is None else f"padded rows, because {self.obstacle}"
        return f"SequenceClassifier({type(self.model).__name__}, max_length={self.max_length}, {how})"

    @property
    def num_labels(self) -> int:
        """Number of outputs of the classification head."""
        return int(self.model.config.num_labels or 0)

    def identity(self) -> dict[str, Any]:
        """What decides a logit: weights, tokenizer, precision and what becomes of long inputs.

        Raises:
            JudgeError: If the files that the model was loaded from are not what they were.
        """
        try:
            digest = self.source.digest() if self.source else digest_of_model(self.model, self.tokenizer)
        except ModelError as error:
            raise JudgeError(f"the judge's answers cannot be kept: {error}") from error
        dtype = str(self.model.dtype).removeprefix("torch.")
        return {"model": digest, "dtype": dtype, "max_length": self.max_length, "on_long": self.on_long}

    def read(
        self,
        questions: Sequence[Question],
        render: Callable[..., str],
        *,
        add_special_tokens: bool = True,
        count: Count,
        judge: str = "judge",
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        """Read N questions; equal ones once.

        Args:
            questions: Prompts with the responses that are read together.
            render: From a prompt and its responses to the text that the model reads.
            add_special_tokens: Whether the tokenizer adds its special tokens; not after a chat template.
            count: Takes the counters that `reading_summary` turns into statistics.
            judge: Name of the judge, for messages.

        Yields:
            Indices into the questions and their logits, shape (n, labels), batch by batch.

        Raises:
            JudgeError: If an input is too long and may not or cannot be cut, or the tokenizer is not the model's.
        """

        def tokens_of(some: Sequence[Question]) -> list[TokenArray]:
            return self._tokenize([render(prompt, *responses) for prompt, responses in some], add_special_tokens)

        inputs = tokens_of(questions)
        long = [at for at, tokens in enumerate(inputs) if len(tokens) > self.max_length]
        if long and self.on_long == "error":
            raise JudgeError(
                f"judge {judge!r} reads at most {self.max_length} tokens, and {len(long)} of {len(inputs)} inputs are "
                f"longer, the first with {len(inputs[long[0]])} tokens for the response "
                f"{short_text(questions[long[0]][1][0])}; raise max_length, or cut them with on_long='middle'"
            )
        if long and self.on_long == "middle":
            cut = fit_questions(
                [questions[at] for at in long], lambda some: list(map(len, tokens_of(some))), self.max_length, judge
            )
            for at, tokens in zip(long, tokens_of(cut), strict=True):
                inputs[at] = tokens
        count("truncated", len(long))
        count("readings", len(inputs))
        places: dict[bytes, list[int]] = {}
        for at, tokens in enumerate(inputs):
            inputs[at] = self._as_read(tokens)
            places.setdefault(inputs[at].tobytes(), []).append(at)
        different = [inputs[same[0]] for same in places.values()]
        count("tokens_alone", sum(map(len, inputs)))
        where = list(places.values())
        for members, logits in self._logits(different, count):
            index = [at for member in members for at in where[member]]
            repeats = [len(where[member]) for member in members]
            yield np.array(index, dtype=np.intp), np.repeat(logits, repeats, axis=0)

    def _tokenize(self, texts: Sequence[str], add_special_tokens: bool) -> list[TokenArray]:
        vocabulary = cast(nn.Embedding, self.model.get_input_embeddings()).num_embeddings
        found: list[TokenArray] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = list(texts[start : start + TEXTS_AT_ONCE])
            encoded = self.tokenizer(part, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
            found += [np.array(ids or [self._anything()], dtype=np.int32) for ids in cast(list[list[int]], encoded)]
        largest = max((int(tokens.max()) for tokens in found), default=0)
        if largest >= vocabulary:
            raise JudgeError(
                f"the tokenizer gave token {largest} and {type(self.model).__name__} knows {vocabulary}: they do not "
                "belong together; save the tokenizer that the model was trained with into its folder"
            )
        return found

    def _anything(self) -> int:
        """What stands for a text without tokens."""
        known = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return next((token for token in known if isinstance(token, int)), self.pad_token_id)

    def _as_read(self, tokens: TokenArray) -> TokenArray:
        """What the model looks at: cut from the left if asked, and without padding tokens at the end."""
        if len(tokens) > self.max_length:
            # Behind the leading special tokens.
            special = set(self.tokenizer.all_special_ids)
            keep = next((at for at, token in enumerate(tokens.tolist()) if token not in special), 0)
            keep = min(keep, self.max_length - 1)
            tokens = np.concatenate([tokens[:keep], tokens[keep + len(tokens) - self.max_length :]])
        if self.obstacle is None:
            # Where the end of a turn is the padding token, decoder classifiers read the score at the token before.
            other = np.flatnonzero(tokens != self.pad_token_id)
            tokens = tokens[: other[-1] + 1] if other.size else tokens[:1]
        return tokens

    def _logits(self, inputs: Sequence[TokenArray], count: Count) -> Iterator[tuple[IndexArray, FloatArray]]:
        """Logits of different inputs, batch by batch."""
        rows = (
            plan_rows(inputs, self._longest_row, self._even_length)
            if self.obstacle is None
            else [RowPlan((at,), (0,), len(tokens)) for at, tokens in enumerate(inputs)]
        )
        # Rows of one input need no mask, which is faster.
        for part in ([row for row in rows if row.is_tree], [row for row in rows if not row.is_tree]):
            for batch in _batches(part, self.tokens_per_batch):
                count("tokens", sum(row.length for row in batch))
                count("slots", len(batch) * max(row.length for row in batch))
                if self.obstacle is None:
                    logits, members = read_rows(self.model, inputs, batch, pad_token_id=self.pad_token_id)
                else:
                    members = np.array([row.members[0] for row in batch])
                    logits = read_padded(self.model, [inputs[at] for at in members], pad_token_id=self.pad_token_id)
                yield members, _to_numpy(logits)


def reading_summary(counters: dict[str, float]) -> dict[str, float]:
    """Turn what `SequenceClassifier.read` counted into statistics.

    Args:
        counters: Of a judge.

    Returns:
        The others as they were; `tokens` (given to the model, padding left out), `truncated_share` (of the inputs),
        `shared_share` (of the inputs' tokens: not read, because they had been), `padding_share` (of what was read).
    """
    rest = dict(counters)
    truncated, readings = rest.pop("truncated", 0.0), rest.pop("readings", 0.0)
    alone, slots = rest.pop("tokens_alone", 0.0), rest.pop("slots", 0.0)
    if readings:
        rest["truncated_share"] = truncated / readings
    if slots:
        rest["shared_share"] = 1.0 - rest["tokens"] / alone
        rest["padding_share"] = 1.0 - rest["tokens"] / slots
    return rest


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
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
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


def _batches(rows: Sequence[RowPlan], budget: int) -> list[list[RowPlan]]:
    """Cut rows, longest first, into batches whose padded size keeps to the budget."""
    batches: list[list[RowPlan]] = []
    for row in sorted(rows, key=lambda row: -row.length):
        # Sorted, so the first row of a batch is its longest and sets the padded length.
        if not batches or (len(batches[-1]) + 1) * batches[-1][0].length > budget:
            batches.append([])
        batches[-1].append(row)
    return batches


def _to_numpy(logits: Tensor) -> FloatArray:
    return logits.double().cpu().numpy()


def _own_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    # Tokenizers without a limit say 1e30, which `min` never picks over a model's.
    limits = [int(tokenizer.model_max_length)]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions:
        limits.append(int(positions))
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            # RoBERTa counts positions from behind its padding token's.
            limits.append(module.num_embeddings - module.padding_idx - 1)
    return min(limits)


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
