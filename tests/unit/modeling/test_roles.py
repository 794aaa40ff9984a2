"""Roles differ exactly when they should, judged by their log-probabilities and never by a flag."""

import copy
import warnings
from itertools import combinations
from typing import cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from magnetar.errors import CheckpointError, ModelError
from magnetar.modeling.roles import AdapterRoles, FrozenCopyRoles, Roles, make_roles

# PEFT asks transformers for a property by its old name whenever it wraps a model.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOKENS = torch.tensor([[5, 17, 40, 3, 96, 8, 8, 21]])
KINDS = ["lora", "lora_trained", "lora_heads", "dora", "full", "full_on_cpu"]


def make(tiny, kind: str) -> tuple[nn.Module, Roles]:
    model = tiny("llama")
    if kind.startswith("full"):
        return model, make_roles(model, keep_on_cpu=kind == "full_on_cpu")
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        lora_dropout=0.3,
        modules_to_save=["lm_head"] if kind == "lora_heads" else None,
        use_dora=kind == "dora",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config)
    if kind == "lora_trained":
        step(model)
    return model, make_roles(model)


def step(model: nn.Module, size: float = 0.05) -> None:
    """Move every trained weight at random, as an optimiser would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def logp(model: nn.Module) -> torch.Tensor:
    was_training = model.training
    model.eval()
    with torch.no_grad():
        result = model(input_ids=TOKENS).logits.log_softmax(-1)
    model.train(was_training)
    return result


def role_logp(roles: Roles, role) -> torch.Tensor:
    with roles.use(role) as module:
        return logp(module)


def differs(roles: Roles, a, b) -> bool:
    """Whether two roles' log-probabilities differ; `Roles.same` must agree."""
    gap = (role_logp(roles, a) - role_logp(roles, b)).abs().max().item()
    assert gap == 0.0 or gap > 1e-4, f"{a} and {b} differ by rounding only: {gap}"
    assert roles.same(a, b) == (gap == 0.0)
    return gap > 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_roles_differ_exactly_when_they_should(tiny, kind):
    model, roles = make(tiny, kind)
    assert not roles.has("magnet")
    roles.add("magnet")
    roles.add("behavior")
    names = ["current", "behavior", "magnet", "reference"]
    start = logp(model)
    for a, b in combinations(names, 2):
        assert not differs(roles, a, b), (a, b)

    step(model)
    for name in names[1:]:
        assert differs(roles, "current", name), name
        assert torch.equal(role_logp(roles, name), start), name

    roles.move("magnet")
    assert not differs(roles, "magnet", "current")
    assert differs(roles, "magnet", "reference")
    assert differs(roles, "current", "reference")
    moved = logp(model)

    step(model)
    assert differs(roles, "current", "magnet")
    assert differs(roles, "magnet", "reference")
    assert not differs(roles, "behavior", "reference")
    roles.move("behavior")
    assert not differs(roles, "behavior", "current")
    assert torch.equal(role_logp(roles, "magnet"), moved)

    roles.move("magnet", rate=0.5)
    for name in ("current", "reference"):
        assert differs(roles, "magnet", name)
    assert not torch.equal(role_logp(roles, "magnet"), moved)
    assert torch.equal(role_logp(roles, "reference"), start)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_ema_move_is_the_weighted_mean_of_the_weights(tiny, kind):
    model, roles = make(tiny, kind)
    roles.add("magnet")
    before = roles.state_dict()["magnet"]
    step(model)
    roles.add("behavior")
    after = roles.state_dict()["behavior"]
    roles.move("magnet", rate=0.25)
    for name, tensor in roles.state_dict()["magnet"].items():
        torch.testing.assert_close(tensor, 0.75 * before[name] + 0.25 * after[name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_role_can_return_to_the_reference(tiny, kind):
    model, roles = make(tiny, kind)
    roles.add("magnet")
    step(model)
    roles.move("magnet")
    roles.move("magnet", "reference")
    assert not differs(roles, "magnet", "reference")
    roles.move("current", "reference")
    assert not differs(roles, "current", "reference")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fails", [False, True])
def test_use_leaves_the_policy_as_it_was(tiny, kind, fails):
    model, roles = make(tiny, kind)
    roles.add("magnet")
    step(model)
    expected = logp(model)
    model.train()
    list(model.modules())[-1].eval()  # one part alone in eval mode
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    assert any(flags.values()) and any(modes.values())
    for role in ("magnet", "reference", "current"):
        try:
            with roles.use(role) as module:
                if role != "current":
                    assert not module.training
                    assert not module(input_ids=TOKENS).logits.requires_grad
                if fails:
                    raise KeyError(role)
        except KeyError:
            assert fails
        assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
        assert {name: module.training for name, module in model.named_modules()} == modes
        assert torch.is_grad_enabled()
    assert torch.equal(logp(model), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_pass_between_forward_and_backward_changes_no_gradient(tiny, kind):
    model, roles = make(tiny, kind)
    roles.add("magnet")
    step(model)

    def gradients(interrupt: bool) -> dict[str, torch.Tensor]:
        model.zero_grad()
        loss = model(input_ids=TOKENS).logits.log_softmax(-1)[..., 3].sum()
        if interrupt:
            for role in ("magnet", "reference"):
                role_logp(roles, role)
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    model.eval()
    plain, interrupted = gradients(False), gradients(True)
    assert plain.keys() == interrupted.keys() and plain
    assert all(torch.equal(plain[name], interrupted[name]) for name in plain)


@pytest.mark.parametrize("kind", KINDS)
def test_training_steps_reach_the_policy_alone(tiny, kind):
    model, roles = make(tiny, kind)
    roles.add("magnet")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    start = logp(model)
    for _ in range(2):
        role_logp(roles, "magnet")
        model(input_ids=TOKENS).logits.log_softmax(-1)[..., 3].sum().neg().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert differs(roles, "current", "magnet")
    assert torch.equal(role_logp(roles, "magnet"), start)
    assert torch.equal(role_logp(roles, "reference"), start)


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_restores_every_role_bit_for_bit(tiny, kind):
    model, roles = make(tiny, kind)
    roles.add("magnet")
    step(model)
    roles.move("magnet", rate=0.3)
    step(model)
    roles.add("behavior")
    state = copy.deepcopy(roles.state_dict())
    expected = {name: role_logp(roles, name) for name in ("behavior", "magnet", "reference")}

    fresh_model, fresh = make(tiny, kind)
    step(fresh_model, 0.2)
    fresh.add("magnet")
    fresh.load_state_dict(state)
    for name, value in expected.items():
        assert torch.equal(role_logp(fresh, name), value), name

    with pytest.raises(CheckpointError, match="lacks the role 'magnet'"):
        fresh.load_state_dict({name: state[name] for name in ("behavior", "reference")})
    first = next(iter(state["magnet"]))
    state["magnet"][first] = state["magnet"][first][..., :1]
    with pytest.raises(CheckpointError, match="in the checkpoint"):
        fresh.load_state_dict(state)


def test_a_checkpoint_decides_whether_the_reference_is_the_bare_base(tiny):
    _, bare = make(tiny, "lora")
    trained_model, trained = make(tiny, "lora_trained")
    bare_state, trained_state = bare.state_dict(), trained.state_dict()
    base_logp, trained_logp = role_logp(bare, "reference"), logp(trained_model)
    assert not torch.equal(base_logp, trained_logp)
    trained.load_state_dict(bare_state)
    assert torch.equal(role_logp(trained, "reference"), base_logp)
    bare.load_state_dict(trained_state)
    assert torch.equal(role_logp(bare, "reference"), trained_logp)


def test_fresh_lora_needs_no_copy_for_the_reference(tiny):
    model, roles = make(tiny, "lora")
    assert set(cast(PeftModel, model).peft_config) == {"default"}
    assert sum(tensor.numel() for tensor in roles.state_dict()["reference"].values()) == 1
    trained_model, _ = make(tiny, "lora_trained")
    assert set(cast(PeftModel, trained_model).peft_config) == {"default", "reference"}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_adding_a_role_leaves_the_random_numbers_of_the_run_alone(tiny, kind):
    _, roles = make(tiny, kind)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    roles.add("magnet")
    assert torch.equal(torch.rand(4), expected)


def test_initialisations_that_change_the_base_do_so_only_once(tiny):
    model = get_peft_model(tiny("llama"), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa"))
    start = logp(model)
    roles = make_roles(model)
    roles.add("magnet")
    for role in ("current", "magnet", "reference"):
        assert torch.equal(role_logp(roles, role), start), role


def test_adapters_in_bfloat16_keep_their_type(tiny):
    model = tiny("llama", dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"), autocast_adapter_dtype=False)
    step(model)
    roles = make_roles(model)
    roles.add("magnet")
    assert not differs(roles, "magnet", "current")
    assert {tensor.dtype for tensor in roles.state_dict()["magnet"].values()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_misuse_is_refused_with_the_fix(tiny, kind):
    _, roles = make(tiny, kind)
    with pytest.raises(ModelError, match=r"call roles.add\('magnet'\)"), roles.use("magnet"):
        pass
    with pytest.raises(ModelError, match="unknown role 'magnett'; did you mean 'magnet'"):
        roles.move("magnett")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelError, match="never moves"):
        roles.move("reference")
    roles.add("magnet")
    with pytest.raises(ModelError, match="0 < rate <= 1"):
        roles.move("magnet", rate=0.0)


def test_models_whose_adapters_cannot_play_roles_are_refused(tiny):
    config = LoraConfig(r=4, target_modules=["q_proj"])
    model = get_peft_model(tiny("llama"), config, adapter_name="magnet")
    with pytest.raises(ModelError, match="already has an adapter named 'magnet'"):
        make_roles(model)

    model = get_peft_model(tiny("llama"), config)
    model.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(ModelError, match=r"embed_tokens.* is not part of adapter 'default'"):
        make_roles(model)

    model = get_peft_model(tiny("qwen2"), LoraConfig(r=4, target_modules=["q_proj"], bias="all"))
    with pytest.raises(ModelError, match="use bias='none'"):
        make_roles(model)

    model = get_peft_model(tiny("llama"), config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.merge_adapter()
    with pytest.raises(ModelError, match="unmerge_adapter"):
        make_roles(model)


def test_make_roles_chooses_by_the_model(tiny):
    assert isinstance(make(tiny, "lora")[1], AdapterRoles)
    assert isinstance(make(tiny, "lora")[0], PeftModel)
    assert isinstance(make(tiny, "full")[1], FrozenCopyRoles)
