"""The weights that an inference engine is given make, in a plain model, the policy that the trainer computes."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoraConfig, TaskType, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from magnetar.errors import ModelError
from magnetar.modeling.roles import make_roles
from magnetar.rollout.vllm.ledger import WeightLedger
from magnetar.rollout.vllm.weights import engine_weights, fusion_group

TOKENS = torch.arange(3, 23).reshape(2, 10)
ADAPTERS = {
    "attention": LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type=TaskType.CAUSAL_LM),
    "all linear": LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", use_rslora=True),
    "head": LoraConfig(r=4, target_modules=["o_proj"], modules_to_save=["lm_head"]),
    "dora": LoraConfig(r=4, target_modules=["q_proj", "down_proj"], use_dora=True),
    "embedding": LoraConfig(r=4, target_modules=["embed_tokens", "k_proj"]),
    "lora bias": LoraConfig(r=4, target_modules=["q_proj"], lora_bias=True),
    "loha": LoHaConfig(r=4, target_modules=["q_proj", "up_proj"]),
}


def moved(model: nn.Module, seed: int = 0) -> nn.Module:
    """Each trained weight away from where it started."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def plain_logits(model: nn.Module, config) -> torch.Tensor:
    """What a fresh model of the architecture computes with the weights that an engine would be given."""
    plain = AutoModelForCausalLM.from_config(deepcopy(config)).eval()
    with torch.no_grad():
        given = {weight.name: weight.make() for weight in engine_weights(model)}
        left = plain.load_state_dict(given, strict=False)
        assert not left.unexpected_keys
        assert set(left.missing_keys) <= ({"lm_head.weight"} if config.tie_word_embeddings else set())
        return plain(TOKENS).logits


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gemma3"])
@pytest.mark.parametrize("tied", [True, False])
def test_all_weights_of_a_fully_trained_model_with_tied_ones_once(tiny, kind, tied):
    config = deepcopy(tiny(kind).config)
    config.tie_word_embeddings = tied
    model = moved(AutoModelForCausalLM.from_config(config).eval())
    names = [weight.name for weight in engine_weights(model)]
    assert len(names) == len(set(names)) == len(list(model.parameters()))
    torch.testing.assert_close(plain_logits(model, config), logits(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapters_merged_weights_are_its_policy(tiny, name):
    base = tiny("qwen2" if name == "lora bias" else "llama")
    base_logits = logits(base)
    model = moved(get_peft_model(base, ADAPTERS[name])).eval()
    expected = logits(model)
    assert (expected - base_logits).abs().max() > 0.1
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.testing.assert_close(plain_logits(model, base.config), expected, rtol=0, atol=2e-4)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items()), "the model was changed"


def test_each_role_gives_its_own_weights(tiny):
    base = tiny("llama")
    model = moved(get_peft_model(base, ADAPTERS["attention"]), 1).eval()
    roles = make_roles(model)
    roles.add("magnet")
    moved(model, 2)
    seen = []
    for role in ("current", "magnet", "reference"):
        with roles.use(role) as played:
            seen.append(logits(played))
            torch.testing.assert_close(plain_logits(played, base.config), seen[-1], rtol=0, atol=2e-4)
    assert (seen[0] - seen[1]).abs().max() > 0.1


def test_a_bare_reference_is_the_base_model(tiny):
    base = tiny("llama")
    expected = logits(base)
    model = get_peft_model(base, ADAPTERS["attention"]).eval()
    roles = make_roles(model)
    moved(model)
    with roles.use("reference") as reference:
        assert torch.equal(plain_logits(reference, base.config), expected)


@pytest.mark.parametrize("where", ["target_modules", "modules_to_save"])
def test_an_adapter_may_change_embeddings_and_head_together(tiny, where):
    config = deepcopy(tiny("llama").config)
    config.tie_word_embeddings = True
    chosen: dict[str, Any] = {"target_modules": ["q_proj"]} | {where: ["embed_tokens"]}
    adapter = LoraConfig(r=4, ensure_weight_tying=True, task_type=TaskType.CAUSAL_LM, **chosen)
    model = moved(get_peft_model(AutoModelForCausalLM.from_config(config), adapter)).eval()
    assert sum("lm_head" in weight.name or "embed_tokens" in weight.name for weight in engine_weights(model)) == 1
    torch.testing.assert_close(plain_logits(model, config), logits(model), rtol=0, atol=2e-4)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_a_head_that_an_adapter_unties_is_refused(tiny):
    config = deepcopy(tiny("llama").config)
    config.tie_word_embeddings = True
    for adapter in ("head", "embedding"):
        model = moved(get_peft_model(AutoModelForCausalLM.from_config(config), deepcopy(ADAPTERS[adapter])))
        with pytest.raises(ModelError, match=r"ties lm_head to model.embed_tokens, but an adapter changes them apart"):
            engine_weights(model)


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
def test_an_adapter_that_cannot_be_merged_is_refused(tiny):
    model = moved(get_peft_model(tiny("llama"), deepcopy(ADAPTERS["lora bias"])))
    with pytest.raises(ModelError, match=r"the Linear adapter at model.layers.0.self_attn.q_proj cannot be merged"):
        [weight.make() for weight in engine_weights(model)]


def test_a_weight_that_cannot_be_read_is_refused(tiny):
    model = tiny("llama")
    model.model.layers[0].mlp.up_proj.weight = nn.Parameter(torch.ones(48, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match=r"layers.0.mlp.up_proj.weight is stored as torch.int8 by Linear"):
        [weight.make() for weight in engine_weights(model)]


def test_a_small_update_of_a_half_precision_model_is_rounded_once(tiny):
    model = get_peft_model(tiny("llama", torch.bfloat16), ADAPTERS["attention"]).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(1e-4)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    (weight,) = [w.make() for w in engine_weights(model) if w.name.endswith("layers.0.self_attn.q_proj.weight")]
    expected = layer.base_layer.weight.double() + layer.get_delta_weight("default").double()
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight.double(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("model.layers.3.self_attn.q_proj.weight", "model.layers.3.self_attn"),
        ("model.layers.11.mlp.experts.5.gate_proj.weight", "model.layers.11.mlp"),
        ("transformer.h.0.attn.c_attn.bias", "transformer.h.0.attn"),
        ("model.embed_tokens.weight", "model.embed_tokens"),
        ("lm_head.weight", "lm_head"),
    ],
)
def test_what_an_engine_may_fuse_goes_together(name, group):
    assert fusion_group(name) == group


def outdated(ledger: WeightLedger, model: nn.Module) -> set[str]:
    """Names that are to be sent; they are taken as sent."""
    weights, marks = ledger.outdated(model)
    ledger.remember(marks)
    return {weight.name for weight in weights}


def test_only_groups_that_changed_are_sent_again(tiny):
    model, ledger = tiny("llama"), WeightLedger()
    everything = {weight.name for weight in engine_weights(model)}
    assert outdated(ledger, model) == everything
    assert outdated(ledger, model) == set()
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight[0, 0] += 1e-6
    changed = outdated(ledger, model)
    assert changed == {name for name in everything if ".layers.1.self_attn." in name}
    assert outdated(ledger, model) == set()
    ledger.forget()
    assert outdated(ledger, model) == everything


def test_every_way_to_change_a_weight_is_noticed(tiny):
    model, ledger = tiny("llama"), WeightLedger()
    weight, norm = model.lm_head.weight, model.model.norm.weight
    outdated(ledger, model)

    def by_data() -> None:
        norm.data = norm.data + 1.0  # all elements alike, and an even number of them

    def by_optimiser() -> None:
        weight.grad = torch.ones_like(weight)
        torch.optim.SGD([weight], lr=1e-3).step()

    for change in (by_data, by_optimiser):
        change()
        assert outdated(ledger, model), change.__name__


def test_roles_that_take_turns_are_noticed_and_the_frozen_base_is_not_sent_again(tiny):
    model, ledger = moved(get_peft_model(tiny("llama"), ADAPTERS["attention"])), WeightLedger()
    roles = make_roles(model)
    roles.add("magnet")
    outdated(ledger, model)
    attention = {w.name for w in engine_weights(model) if ".self_attn." in w.name}
    with roles.use("magnet") as magnet:
        assert outdated(ledger, magnet) == set(), "equal adapters are equal weights"
    moved(model, 3)
    assert outdated(ledger, model) == attention
    with roles.use("magnet") as magnet:
        assert outdated(ledger, magnet) == attention
    roles.move("magnet", "current")
    assert outdated(ledger, model) == attention
    with roles.use("magnet") as magnet:
        assert outdated(ledger, magnet) == set()
