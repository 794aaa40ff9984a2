"""Layers with one matrix each compute what the layers with adapters do, and the model is left as it was."""

from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from magnetar.modeling.decoding_weights import decoding_weights
from magnetar.modeling.roles import AdapterRoles

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
TOKENS = torch.tensor([[3, 11, 7, 5, 2], [9, 1, 4, 8, 6]])


def with_lora(model: nn.Module, dtype: torch.dtype = torch.float32, **options) -> PeftModel:
    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules="all-linear", **options)
    return cast(PeftModel, get_peft_model(model.to(dtype), config).eval())


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(input_ids=TOKENS).logits.float()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_merged_layers_compute_what_the_adapter_adds(kind, dtype, tiny):
    model = with_lora(tiny(kind), dtype)
    expected = logits(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad(), decoding_weights(model, "on") as count:
        found = logits(model)
        # The layers themselves are not asked: their adapters could be anything.
        layer: Any = next(module for module in model.modules() if hasattr(module, "lora_B"))
        layer.lora_B["default"].weight.data += 100.0
        torch.testing.assert_close(logits(model), found, atol=0, rtol=0)
        layer.lora_B["default"].weight.data -= 100.0
    assert count >= sum(hasattr(module, "lora_B") for module in model.modules())
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=0)
    assert not any("forward" in module.__dict__ for module in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), before, atol=2e-5, rtol=0)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=0)


def test_every_role_is_merged_as_itself(tiny):
    model = with_lora(tiny("llama"))
    roles = AdapterRoles(model)
    roles.add("magnet")
    for tensor in (p for name, p in model.named_parameters() if ".lora_B.default" in name):
        tensor.data.mul_(-2.0)
    seen = []
    for role in ("current", "magnet", "reference"):
        with roles.use(role) as active:
            active.eval()
            expected = logits(active)
            with torch.no_grad(), decoding_weights(active, "on"):
                torch.testing.assert_close(logits(active), expected, atol=5e-5, rtol=0)
            seen.append(expected)
    assert (seen[0] - seen[1]).abs().max() > 1e-2
    with torch.no_grad(), model.disable_adapter(), decoding_weights(model, "on"):
        bare = logits(model)
    with torch.no_grad(), model.disable_adapter():
        torch.testing.assert_close(bare, logits(model), atol=5e-5, rtol=0)


def test_adapters_that_are_more_than_two_matrices_stay_as_they_are(tiny):
    model = with_lora(tiny("llama"), use_dora=True)
    expected = logits(model)
    with torch.no_grad(), decoding_weights(model, "on"):
        assert not any("forward" in module.__dict__ for module in model.modules() if hasattr(module, "lora_B"))
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)


def test_layers_whose_forward_pass_somebody_replaced_are_left_alone(tiny):
    model = tiny("llama").eval()
    head = model.get_output_embeddings()
    head.forward = lambda hidden: hidden.new_full((*hidden.shape[:-1], 41), 7.0)
    with torch.no_grad(), decoding_weights(model, "on"):
        assert logits(model).eq(7.0).all()
    assert head.forward(torch.zeros(1, 1)).eq(7.0).all()


def test_mixed_precision_multiplies_in_its_own_type_and_is_as_near_the_truth(tiny):
    model = with_lora(tiny("llama"))
    truth = logits(model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        apart = logits(model)
        with decoding_weights(model, "on"):
            merged = logits(model)
    assert 0.0 < float((merged - truth).abs().mean()) < 1.5 * float((apart - truth).abs().mean()) < 0.1


def test_off_replaces_nothing_and_auto_keeps_to_its_share_of_memory(tiny, monkeypatch):
    model = with_lora(tiny("llama"))
    with torch.no_grad(), decoding_weights(model, "off") as count:
        assert count == 0
    with torch.no_grad(), decoding_weights(model, "auto") as count:
        assert count > 0
    monkeypatch.setattr("magnetar.modeling.decoding_weights._device_memory", lambda device: 1000)
    with torch.no_grad(), decoding_weights(model, "auto") as count:
        assert count == 0
