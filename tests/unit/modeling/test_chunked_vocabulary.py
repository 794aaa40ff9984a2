"""Numbers read off the vocabulary in chunks equal those read off whole logits, in value and gradient."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PreTrainedConfig,
)

from magnetar.modeling import vocabulary
from magnetar.modeling.logprobs import TokenLogProbs, chunking_support, exact_kl, response_logprobs
from magnetar.modeling.output_layers import frozen_output_layer, gathered_output_layer
from magnetar.modeling.roles import Roles, make_roles
from magnetar.modeling.vocabulary import FrozenStates
from tiny_models import SIZES

PROMPTS = [[5, 9, 4, 7, 31, 6], [12], [3, 90, 41]]
RESPONSES = [[[8, 1], [9], [14, 6, 77, 5]], [[2, 50], [3, 4, 4], [96]], [[7], [11, 12, 13, 2], [60, 2]]]
TEMPERATURE = 0.7
CHUNK = 7  # tokens; the batch has 20

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "untied": lambda: LlamaConfig(**SIZES, tie_word_embeddings=False),
    "tied": lambda: LlamaConfig(**SIZES, tie_word_embeddings=True),
    "with a bias": lambda: PhiConfig(**{**SIZES, "num_key_value_heads": 4}),
    "divided": lambda: GraniteConfig(**SIZES, logits_scaling=3.0),
    "multiplied": lambda: CohereConfig(**SIZES, logit_scale=0.3),
}


@pytest.fixture(autouse=True)
def few_tokens_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vocabulary.CHUNK_LOGITS, "cpu", CHUNK * SIZES["vocab_size"])


@pytest.fixture
def make(tiny: Callable[..., Any]) -> Callable[..., Any]:
    """A random model with one kind of output layer."""

    def build(kind: str, dtype: torch.dtype = torch.float64) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            if kind == "soft-capped":
                return tiny("gemma2", "eager", dtype)
            if kind in CONFIGS:
                model = AutoModelForCausalLM.from_config(CONFIGS[kind](), dtype=dtype).eval()
                if kind == "with a bias":
                    nn.init.normal_(model.get_output_embeddings().bias)
                return model
            model = AutoModelForCausalLM.from_config(CONFIGS["untied"](), dtype=dtype)
            if kind == "frozen":
                model.get_output_embeddings().requires_grad_(False)
                return model.eval()
            extra = {
                "below an adapter": {"target_modules": ["q_proj", "up_proj"]},
                "adapted": {"target_modules": ["q_proj", "lm_head"]},
                "trained beside an adapter": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
            }[kind]
            peft = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, **cast(Any, extra))).to(dtype)
            stir(peft, 1)
            return peft.eval()

    return build


KINDS = [*CONFIGS, "soft-capped", "frozen", "below an adapter", "adapted", "trained beside an adapter"]


@torch.no_grad()
def stir(model: nn.Module, seed: int) -> None:
    """Move what learns, so that no adapter is without effect."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)


def measure(model: nn.Module, layout: str = "packed", **options: Any) -> TokenLogProbs:
    return response_logprobs(
        model,
        PROMPTS,
        RESPONSES,
        temperature=TEMPERATURE,
        layout=layout,  # type: ignore[arg-type]
        pad_token_id=0,
        **options,
    )


def weighed(*values: Tensor) -> Tensor:
    """A loss that treats every token and every kind of value differently."""
    return sum(
        ((value * torch.linspace(-1 + k, 2, value.numel(), dtype=value.dtype).view_as(value)).sum()
        for k, value in enumerate(values)),
        start=torch.zeros((), dtype=values[0].dtype),
    )  # fmt: skip


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def frozen_relative(model: nn.Module) -> tuple[Roles, FrozenStates, Tensor]:
    """A magnet that is not where the policy is: its states and layer, and its whole distributions."""
    roles = make_roles(model)
    roles.add("magnet")
    stir(roles.current, 2)
    with roles.use("magnet") as magnet, torch.no_grad():
        hidden = measure(magnet, chunked=True, states=True).hidden_NH
        full = measure(magnet, full=True).full_NV
        layer = frozen_output_layer(magnet)
    assert hidden is not None and full is not None
    return roles, FrozenStates(hidden, layer), full


@pytest.mark.parametrize(
    ("kind", "layout"),
    # Transformers' mask of padded rows with a window gives NaN in float64, in chunks or not.
    [
        (kind, layout)
        for kind in KINDS
        for layout in ("packed", "padded")
        if (kind, layout) != ("soft-capped", "padded")
    ],
)
def test_log_probabilities_and_their_gradients_equal_those_of_whole_logits(make, kind, layout) -> None:
    model = make(kind)
    assert chunking_support(model) is None
    plain, chunked = measure(model, layout), measure(model, layout, chunked=True)
    for name in ("logp_BGT", "entropy_BGT"):
        torch.testing.assert_close(getattr(chunked, name), getattr(plain, name), atol=1e-10, rtol=0)
    assert not chunked.entropy_BGT.requires_grad
    expected, actual = gradients(model, weighed(plain.logp_BGT)), gradients(model, weighed(chunked.logp_BGT))
    assert expected.keys() == actual.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, atol=1e-10, rtol=1e-10, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_kl_to_a_frozen_role_equals_that_of_whole_distributions(make, kind) -> None:
    roles, states, other_full = frozen_relative(make(kind))
    model = roles.current
    plain = measure(model, full=True)
    assert plain.full_NV is not None
    expected_kl = exact_kl(plain.full_NV, other_full, plain.mask_BGT)
    assert float(expected_kl.detach().max()) > 1e-2, "the roles differ, or this test says nothing"
    expected = gradients(model, weighed(plain.logp_BGT, expected_kl))

    chunked = measure(model, chunked=True, against={"magnet": states})
    torch.testing.assert_close(chunked.kl_BGT["magnet"], expected_kl, atol=1e-10, rtol=0)
    actual = gradients(model, weighed(chunked.logp_BGT, chunked.kl_BGT["magnet"]))
    assert expected.keys() == actual.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, atol=1e-10, rtol=1e-10, msg=name)


@pytest.mark.parametrize("kind", ["tied", "frozen", "adapted", "soft-capped"])
def test_in_half_precision_chunks_round_no_worse_than_whole_logits(make, kind) -> None:
    exact = make(kind)
    half = make(kind, torch.bfloat16)
    exact.load_state_dict({name: value.double() for name, value in half.state_dict().items()})
    truth = gradients(exact, weighed(measure(exact).logp_BGT))
    plain = gradients(half, weighed(measure(half).logp_BGT))
    chunked = gradients(half, weighed(measure(half, chunked=True).logp_BGT))
    for name, expected in truth.items():
        errors = [float((found[name].double() - expected).norm() / expected.norm()) for found in (plain, chunked)]
        assert errors[1] <= 1.25 * errors[0] + 1e-3, (name, errors)


@pytest.mark.parametrize("kind", ["tied", "frozen"])
def test_under_mixed_precision_both_applications_of_the_layer_are_rounded(make, kind) -> None:
    model = make(kind, torch.float32)
    head = model.get_output_embeddings()
    seen: list[torch.dtype] = []
    original = head.forward

    def watched(hidden: Tensor) -> Tensor:
        output = original(hidden)
        seen.append(output.dtype)
        return output

    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = measure(model)
    expected = gradients(model, weighed(plain.logp_BGT))
    head.forward = watched
    with torch.autocast("cpu", dtype=torch.bfloat16):
        chunked = measure(model, chunked=True)
    assert head.forward is watched, "what was in place of the layer's own function is back"
    actual = gradients(model, weighed(chunked.logp_BGT))
    chunks = -(-20 // CHUNK)
    assert seen == [torch.bfloat16] * (chunks if kind == "frozen" else 2 * chunks)
    assert chunked.logp_BGT.dtype == torch.float32
    torch.testing.assert_close(chunked.logp_BGT, plain.logp_BGT, atol=1e-5, rtol=0)
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(actual[name] / scale, gradient / scale, atol=2e-2, rtol=0, msg=name)


class Largest(TorchDispatchMode):
    """The most numbers that any tensor holds which an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.numbers = max([self.numbers, *sizes])
        return result


@pytest.mark.parametrize("trained", [True, False])
def test_no_tensor_ever_holds_the_logits_of_the_batch(monkeypatch, trained: bool) -> None:
    words, width, tokens = 3000, 8, 60
    config = LlamaConfig(**{**SIZES, "vocab_size": words, "hidden_size": width, "intermediate_size": 8})
    model = LlamaForCausalLM(config)
    model.lm_head.requires_grad_(trained)
    monkeypatch.setitem(vocabulary.CHUNK_LOGITS, "cpu", 4 * words)
    responses = [[[k % words for k in range(17 * g, 17 * g + 20)] for g in range(3)]]
    found = {}
    for chunked in (True, False):
        with Largest() as largest:
            out = response_logprobs(
                model, [[1, 2]], responses, temperature=1.0, layout="packed", pad_token_id=0, chunked=chunked
            )
            out.logp_BGT.sum().backward()
        found[chunked] = largest.numbers
    assert found[False] >= tokens * words
    assert found[True] <= max(4 * words, words * width), "a chunk, or the weights and their gradient"


def test_chunks_through_distributed_wrappers_leave_as_the_models_output(make, tmp_path) -> None:
    """Finding unused weights and the static graph both follow the output of the wrapped model."""
    plain_model = make("untied")
    expected = gradients(plain_model, weighed(measure(plain_model).logp_BGT))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        choices: list[dict[str, Any]] = [{}, {"find_unused_parameters": True}, {"static_graph": True}]
        for options in choices:
            model = make("untied")
            wrapped = DistributedDataParallel(model, **options)
            reduced: list[str] = []
            for name, parameter in model.named_parameters():
                parameter.register_post_accumulate_grad_hook(lambda _, name=name, seen=reduced: seen.append(name))
            calls: list[int] = []
            wrapped.register_forward_hook(lambda *_, calls=calls: calls.append(1))
            actual = gradients(model, weighed(measure(wrapped, chunked=True).logp_BGT))
            assert calls == [1]
            assert sorted(reduced) == sorted(expected), "once for each weight, however many chunks it took part in"
            for name, gradient in expected.items():
                torch.testing.assert_close(actual[name], gradient, atol=1e-10, rtol=1e-10, msg=name)
    finally:
        torch.distributed.destroy_process_group()


def test_dropout_in_the_output_layer_is_the_same_both_times(make) -> None:
    """The gradient of a trained layer with dropout is that of the values which were returned."""
    model = AutoModelForCausalLM.from_config(CONFIGS["untied"](), dtype=torch.float64)
    config = LoraConfig(r=3, lora_dropout=0.5, target_modules=["lm_head"])
    model = get_peft_model(model, config).to(torch.float64).train()
    stir(model, 1)
    weight = next(p for name, p in model.named_parameters() if "lm_head.lora_B" in name)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)

    def loss(shift: float) -> Tensor:
        torch.manual_seed(11)
        with torch.no_grad():
            weight.add_(direction, alpha=shift)
        value = weighed(measure(model, chunked=True).logp_BGT)
        with torch.no_grad():
            weight.sub_(direction, alpha=shift)
        return value

    value = loss(0.0)
    after = torch.get_rng_state()
    name = next(name for name, parameter in model.named_parameters() if parameter is weight)
    slope = float((gradients(model, value)[name] * direction).sum())
    assert torch.equal(torch.get_rng_state(), after), "drawing again leaves no trace"
    step = 1e-5
    with torch.no_grad():
        numeric = float((loss(step) - loss(-step)) / (2 * step))
        assert slope == pytest.approx(numeric, rel=1e-6)
        torch.manual_seed(12)
        other = float(weighed(measure(model, chunked=True).logp_BGT))
    assert other != pytest.approx(value.item()), "there is dropout"


def test_impossible_tokens_make_neither_entropy_nor_divergence_infinite(make) -> None:
    model = make("with a bias")
    with torch.no_grad():
        model.get_output_embeddings().bias[[20, 21]] = float("-inf")
    _, states, _ = frozen_relative(model)
    out = measure(model, chunked=True, against={"magnet": states})
    values = (out.logp_BGT, out.entropy_BGT, out.kl_BGT["magnet"])
    assert all(bool(value.isfinite().all()) for value in values)
    found = gradients(model, weighed(out.logp_BGT, out.kl_BGT["magnet"]))
    assert all(bool(gradient.isfinite().all()) for gradient in found.values())


def test_a_frozen_layer_is_the_roles_own_after_another_adapter_is_active(make) -> None:
    roles, states, _ = frozen_relative(make("adapted"))
    assert isinstance(roles.current, PeftModel) and states.layer is not None
    own = cast(Any, roles.current).get_output_embeddings()
    assert not torch.allclose(cast(Any, states.layer)(states.hidden_NH), own(states.hidden_NH))
    storages = {p.data_ptr() for p in roles.current.parameters()}
    assert {p.data_ptr() for p in cast(nn.Module, states.layer).parameters()} <= storages, "no weight is copied"


def test_adapters_that_leave_the_output_layer_alone_share_it(make) -> None:
    assert frozen_output_layer(make("below an adapter")) is None


class Doubling(LlamaForCausalLM):
    """Does something to its logits that its configuration does not say."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output: Any = super().forward(*args, **kwargs)
        output.logits = output.logits * 2
        return output


class Mixing(nn.Linear):
    """An output layer that looks at the other tokens."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input + input.mean(-2, keepdim=True))


def with_mixing(config: LlamaConfig) -> LlamaForCausalLM:
    model = LlamaForCausalLM(config)
    model.lm_head = Mixing(config.hidden_size, config.vocab_size, bias=False)
    return model


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (Doubling, "Doubling changes what its output layer gives in a way that its configuration does not say"),
        (with_mixing, "the output layer of LlamaForCausalLM does not treat each token by itself"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_whose_logits_cannot_be_chunked_are_found_out_by_running_them(build, reason, dtype) -> None:
    model = build(LlamaConfig(**{**SIZES, "initializer_range": 0.02})).to(dtype)
    assert chunking_support(model) == reason
    assert not model.get_output_embeddings()._forward_hooks


@pytest.fixture
def saved_on_disk() -> Iterator[Any]:
    """Hooks that put a copy in place of every tensor that is kept for the backward pass."""
    yield torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor)


@pytest.mark.parametrize("kind", ["tied", "frozen", "adapted"])
def test_chunks_work_where_saved_tensors_are_moved_elsewhere(make, kind, saved_on_disk) -> None:
    model = make(kind)
    found = []
    for context in (nullcontext(), saved_on_disk):
        with context:
            logp_BGT = measure(model, chunked=True).logp_BGT
        found.append(gradients(model, weighed(logp_BGT)))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_options_that_exclude_each_other_are_refused(make) -> None:
    with pytest.raises(ValueError, match="a chunked pass never holds whole distributions"):
        measure(make("untied"), full=True, chunked=True)
    with pytest.raises(ValueError, match="only it answers questions about frozen policies"):
        measure(make("untied"), states=True)


@pytest.mark.parametrize("kind", ["untied", "with a bias", "frozen"])
def test_a_gathered_output_layer_is_the_models_own(make: Callable[..., Any], kind: str) -> None:
    model = make(kind)
    head = model.get_output_embeddings()
    seen: list[str] = []
    names = {id(p): name for name, p in head.named_parameters()}

    def whole(weight: Tensor) -> Tensor:
        seen.append(names[id(weight)])
        return weight.clone()

    layer = gathered_output_layer(model, whole, torch.float64)
    assert layer is not None and seen == list(names.values()), "each weight is gathered once"
    hidden = torch.randn(3, head.in_features, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(hidden), head(hidden))
    half = gathered_output_layer(model, whole, torch.bfloat16)
    assert half is not None and half(hidden.bfloat16()).dtype == torch.bfloat16
    assert not any(p.requires_grad for p in layer.parameters())


def test_one_that_is_more_than_a_linear_map_is_not_gathered(make: Callable[..., Any]) -> None:
    for kind in ("adapted", "trained beside an adapter"):
        assert gathered_output_layer(make(kind), lambda weight: weight, torch.float64) is None, kind
