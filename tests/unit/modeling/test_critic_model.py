"""The critic: a copy of the policy with a value head, which shares what does not learn."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM

from magnetar.errors import CheckpointError, ModelError
from magnetar.evaluation.enumerable import EnumerableGame
from magnetar.modeling.critic import Critic, make_critic

GAME = EnumerableGame.build()
PROMPTS = [[1, 2, 3], [4]]
RESPONSES = [[[1, 0], [2, 3, 4]], [[0], [3, 3, 0]]]


def adapted(seed: int = 0) -> Any:
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return get_peft_model(GAME.model(seed), config)  # type: ignore[arg-type]


def values(critic: Critic, layout: Any = "packed", pad: int = 0) -> Tensor:
    return critic.values(PROMPTS, RESPONSES, layout=layout, pad_token_id=pad)


def with_head(critic: Critic) -> Critic:
    head = critic.model.get_output_embeddings().linear  # type: ignore[union-attr, operator]
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(1))
    return critic


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_values_begin_at_zero_and_are_the_head_of_the_last_hidden_state(lora: bool) -> None:
    policy: Any = adapted() if lora else GAME.model(0)
    critic = make_critic(policy)
    assert values(critic).shape == (2, 2, 3) and not values(critic).any()
    with_head(critic)
    head = critic.model.get_output_embeddings().linear  # type: ignore[union-attr, operator]
    base = policy.get_base_model() if lora else policy
    for b, prompt in enumerate(PROMPTS):
        for g, response in enumerate(RESPONSES[b]):
            with torch.no_grad():
                hidden = base.model(torch.tensor([prompt + response])).last_hidden_state[0]
            expected = (hidden @ head.weight.T + head.bias)[len(prompt) - 1 : -1, 0]
            torch.testing.assert_close(values(critic)[b, g, : len(response)], expected, atol=1e-5, rtol=1e-4)
            assert not values(critic)[b, g, len(response) :].any()


def test_values_do_not_depend_on_layout_or_padding() -> None:
    critic = with_head(make_critic(GAME.model(0)))
    packed = values(critic)
    for layout, pad in (("packed", 3), ("padded", 0), ("padded", 3)):
        torch.testing.assert_close(values(critic, layout, pad), packed, atol=1e-5, rtol=1e-4)


def test_with_an_adapter_the_base_is_shared_and_nothing_that_learns_is() -> None:
    policy = adapted()
    critic = make_critic(policy)
    own = {id(p) for p in policy.parameters() if p.requires_grad}
    assert not own & {id(p) for p in critic.trained().values()}
    assert all("lora_" in name or "linear" in name for name in critic.trained())
    shared = {p.data_ptr() for p in policy.parameters() if not p.requires_grad}
    frozen = [p for p in critic.parameters() if not p.requires_grad]
    assert frozen and all(p.data_ptr() in shared for p in frozen)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    optimizer = torch.optim.SGD(critic.trained().values(), lr=1.0)
    for _ in range(2):  # the head begins at zero, so that the adapter learns from the second step on
        optimizer.zero_grad()
        (values(critic) - 1.0).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(p, before[name]) for name, p in policy.named_parameters())
    assert all(p.grad is not None for p in critic.trained().values())


def test_in_full_fine_tuning_all_weights_are_copies() -> None:
    policy = GAME.model(0)
    critic = make_critic(policy)
    assert not {p.data_ptr() for p in policy.parameters()} & {p.data_ptr() for p in critic.parameters()}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    critic = with_head(make_critic(adapted()))
    critic.save(tmp_path / "critic.safetensors")
    other = make_critic(adapted())
    other.load(tmp_path / "critic.safetensors")
    torch.testing.assert_close(values(other), values(critic), atol=0, rtol=0)
    with pytest.raises(CheckpointError, match="critic of another model or adapter"):
        make_critic(GAME.model(0)).load(tmp_path / "critic.safetensors")
    (tmp_path / "critic.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        other.load(tmp_path / "critic.safetensors")


def test_classes_that_cannot_be_critics_are_one_clear_error() -> None:
    config = Gemma2Config(
        vocab_size=5, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, head_dim=4
    )
    with pytest.raises(ModelError, match=r"Gemma2ForCausalLM rescales .*final_logit_softcapping.*'rloo' or 'grpo'"):
        make_critic(Gemma2ForCausalLM(config))
    with pytest.raises(ModelError, match="LlamaModel has no output layer"):
        make_critic(GAME.model(0).model)
