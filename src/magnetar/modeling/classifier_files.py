"""Sequence classifiers from a folder, the Hub or a LoRA adapter, and digests of what they were loaded from."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, TaskType, load_peft_weights
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from magnetar.errors import ModelError
from magnetar.modeling.loading import ModelSource, explained, locate_model, repository_file, tokenizer_of

__all__ = ["ClassifierSource", "digest_of_model", "load_classifier"]

WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")
SETTINGS = ("config.json", "adapter_config.json", "tokenizer_config.json")
TOKENIZER = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
TEMPLATES = ("chat_template.*", "additional_chat_templates/*")
NAMES = {"_name_or_path", "name_or_path", "base_model_name_or_path", "transformers_version", "peft_version", "revision"}
"""Settings that say where files lie or what wrote them, and decide nothing."""
HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
HASH_THREADS = 4


@dataclass(frozen=True)
class ClassifierSource:
    """What a classifier was loaded from.

    Attributes:
        commits: Repositories on the Hub with the commit that was loaded.
        files: Local files that decide an answer, with size and time of change when they were loaded.
    """

    commits: tuple[str, ...]
    files: tuple[tuple[Path, int, int], ...]

    def digest(self) -> str:
        """Digest of the files' contents, wherever they lie, and of the commits.

        Returns:
            32 hexadecimal digits.

        Raises:
            ModelError: If a file has changed since the model was loaded, so that it no longer says what was.
        """
        for path, size, time in self.files:
            if not path.is_file() or (path.stat().st_size, path.stat().st_mtime_ns) != (size, time):
                raise ModelError(f"{str(path)!r} changed after the model was loaded; load it again")
        with ThreadPoolExecutor(HASH_THREADS) as pool:
            contents = list(pool.map(_digest_of_file, [path for path, _, _ in self.files]))
        digest = hashlib.blake2b(digest_size=16)
        for part in sorted([*self.commits, *contents]):
            digest.update(part.encode())
        return digest.hexdigest()


def load_classifier(
    model: str, *, dtype: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, ClassifierSource]:
    """Load a trained sequence classifier.

    Args:
        model: Folder or Hub id of a classifier, or of a LoRA adapter, which is merged into its base.
        dtype: Floating-point type of the weights as torch names it; "auto" for what they were saved in.

    Returns:
        The model, its tokenizer, and where they came from.

    Raises:
        ModelError: There is no such model, it is damaged or no classifier, or weights, such as its head, are missing.
    """
    place = locate_model(model, None)
    # First: a wrong tokenizer is then known before gigabytes of weights are read.
    tokenizer = tokenizer_of(place, False)
    base = place.base or place
    adapter = _adapter_weights(place) if place.base else {}
    options = {"num_labels": _adapter_labels(place, adapter)} if place.base else {}
    given = {name: value for name, value in options.items() if value is not None}
    with explained(f"the model {base.name!r}"):
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            base.place, revision=base.revision or "main", dtype=dtype, output_loading_info=True, **given
        )
    classifier, info = loaded
    missing = set(info["missing_keys"])
    if place.base:
        missing -= set(adapter)
    if missing:
        # transformers fills these with random numbers.
        shown = ", ".join(sorted(missing)[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        fix = "train the adapter with its head in modules_to_save" if place.base else "save the whole model again"
        raise ModelError(
            f"{model!r} lacks trained weights for {shown}; it is not a trained sequence classification model, or not "
            f"all of one: {fix}"
        )
    if place.base:
        with explained(f"the adapter {model!r}"):
            adapted: Any = PeftModel.from_pretrained(classifier, place.place)
            classifier = adapted.merge_and_unload(safe_merge=True)
            classifier = classifier.to(classifier.dtype)  # a head trained in float32, as the rest
    return classifier.eval(), tokenizer, _source_of(place, classifier)


def digest_of_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of a model in memory: its configuration, every weight, and its tokenizer.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(_without_names(model.config.to_dict()))
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    for part in _tokenizer_parts(tokenizer):
        digest.update(part.encode())
    return digest.hexdigest()


def _tokenizer_parts(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # How it padded or cut last is kept in there too, and means nothing for the next call.
        yield json.dumps({**json.loads(backend.to_str()), "padding": None, "truncation": None}, sort_keys=True)
    else:
        yield type(tokenizer).__name__ + json.dumps(tokenizer.get_vocab(), sort_keys=True)
    yield json.dumps(tokenizer.chat_template, sort_keys=True)
    yield json.dumps({name: str(token) for name, token in tokenizer.special_tokens_map.items()}, sort_keys=True)


def _adapter_weights(place: ModelSource) -> Mapping[str, torch.Tensor]:
    """Weights of an adapter by the names that the base model gives them."""
    with explained(f"the adapter {place.name!r}"):
        config = PeftConfig.from_pretrained(place.place, revision=place.revision)
        weights = load_peft_weights(place.place, device="cpu")
    if config.task_type not in (TaskType.SEQ_CLS, None):
        raise ModelError(
            f"the adapter {place.name!r} was trained for {config.task_type}, expected SEQ_CLS: it is not a judge's"
        )
    return {name.removeprefix("base_model.model."): weight for name, weight in weights.items()}


def _adapter_labels(place: ModelSource, weights: Mapping[str, torch.Tensor]) -> int | None:
    """Outputs of the head that an adapter brings; None if it brings none."""
    heads = [weights[name] for name in HEADS if name in weights]
    if heads:
        return len(heads[0])
    file = repository_file(place, "config.json")
    if file is None:
        return None
    with explained(f"the configuration of {place.name!r}"):
        labels = json.loads(Path(file).read_text(encoding="utf-8")).get("id2label")
    return len(labels) if labels else None


def _source_of(place: ModelSource, model: PreTrainedModel) -> ClassifierSource:
    commits, files = [], []
    for part in (place, place.base):
        if part is None:
            continue
        folder = Path(part.place)
        if folder.is_dir():
            files += _deciding_files(folder)
        else:
            file = repository_file(part, "adapter_config.json" if part.base else "config.json")
            # Files in the Hub's cache lie in a folder named after the commit.
            commits.append(f"{part.name}@{Path(cast(str, file)).parent.name}")
    return ClassifierSource(tuple(commits), tuple((p, p.stat().st_size, p.stat().st_mtime_ns) for p in files))


def _deciding_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for pattern in (*WEIGHTS, *SETTINGS, *TOKENIZER, *TEMPLATES)
        for path in folder.glob(pattern)
        if path.is_file()
    )


def _digest_of_file(path: Path) -> str:
    if path.name in SETTINGS:
        content = _without_names(json.loads(path.read_text(encoding="utf-8")))
        return f"{path.name} {hashlib.blake2b(content, digest_size=16).hexdigest()}"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return f"{path.name} {found.hexdigest()}"


def _without_names(settings: Mapping[str, Any]) -> bytes:
    kept = {name: value for name, value in settings.items() if name not in NAMES}
    return json.dumps(kept, sort_keys=True, default=str).encode()
