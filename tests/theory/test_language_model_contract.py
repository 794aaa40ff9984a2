"""One contract for every method that language models can be trained with, on a model whose responses can be listed."""

import inspect
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from language_model_situations import scene
from language_model_table import CASES, FIELDS_OF, SETTING_VALUES, TRAINABLE, Case

from magnetar.errors import ConfigError
from magnetar.methods import METHODS, MagnetClock
from magnetar.training import NashConfig

ALL = [(method, label) for method, cases in CASES.items() for label in cases]
# At a second or two each, one of each kind of loss and of opponent; the others are as long again.
QUICK = {
    ("mpo", "sampled KL"),
    ("mpo", "clipping"),
    ("mpo_rt", "exact KL"),
    ("sppo", "preset"),
    ("inpo", "soft labels"),
    ("online_ipo", "payoff"),
    ("nash_md", "preset"),
    ("egpo", "regression"),
    ("omwu", "policy gradient"),
    ("online_dpo", "best and worst, hard labels"),
    ("ppo", "every option"),
    ("rloo", "summed"),
    ("grpo", "preset"),
}
RESPONSES, BATCHES, DIRECTIONS = 128, 24, 12  # responses of a batch
THOROUGH = 10  # times as many batches


def test_every_method_that_language_models_can_be_trained_with_has_its_expectations():
    missing, left_over = set(TRAINABLE) - set(CASES), set(CASES) - set(TRAINABLE)
    assert not missing, f"add to CASES in tests/theory/language_model_table.py: {sorted(missing)}"
    assert not left_over, f"remove from CASES in tests/theory/language_model_table.py: {sorted(left_over)}"


@pytest.mark.parametrize("method", CASES)
def test_every_option_of_a_method_has_a_case(method: str):
    for name, parameter in inspect.signature(METHODS[method]).parameters.items():
        options = get_args(parameter.annotation) if get_origin(parameter.annotation) is Literal else ()
        if parameter.annotation is bool:
            options = (True, False)
        used = {case.settings.get(name, parameter.default) for case in CASES[method].values()}
        assert set(options) <= used, f"CASES[{method!r}] has no case with {name} in {sorted(set(options) - used)}"


@pytest.mark.parametrize(("method", "label"), ALL)
def test_the_gradient_with_enumerated_weights_is_that_of_the_exact_formula(tmp_path, method: str, label: str):
    case = CASES[method][label]
    at = scene(tmp_path, method=method, **case.settings)
    ours = at.gradient(at.experience([1]))
    _assert_same_gradient(ours, at.exact_gradient(case.formula))


def _assert_same_gradient(ours: torch.Tensor, exact: torch.Tensor) -> None:
    scale = exact.abs().max()
    assert scale > 1e-3, "a vanishing gradient would make the comparison empty"
    # Relative to the largest entry: the model's normalisation layers compute in float32.
    torch.testing.assert_close(ours / scale, exact / scale, atol=1e-6, rtol=0)


def _sampled_mean(folder: Any, method: str, case: Case, batches: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of sampled gradients along some directions in units of their standard error, less the expected ones."""
    at = scene(folder, sampled=True, group=case.group, method=method, **case.settings)
    if case.unbiased_at_first_step:
        at.go_to_first_step()
    exact = at.exact_gradient(case.sampled or case.formula)
    generator = torch.Generator().manual_seed(4)
    directions = torch.randn(len(exact), DIRECTIONS, generator=generator, dtype=torch.float64)
    directions[:, 0] = exact  # along it the gradient stands out most from the noise
    directions /= directions.norm(dim=0)
    prompts, means = RESPONSES // case.group, []
    for batch in range(batches):
        positions = range(1 + batch * prompts, 1 + (batch + 1) * prompts)
        means.append(at.gradient(at.experience(positions)) @ directions)
    samples = torch.stack(means)
    error = samples.std(0) / batches**0.5
    expected = exact @ directions
    return (samples.mean(0) - expected) / error, expected / error


@pytest.mark.parametrize(("method", "label"), sorted(QUICK))
def test_sampled_gradients_are_unbiased(tmp_path, method: str, label: str):
    _assert_unbiased(*_sampled_mean(tmp_path, method, CASES[method][label], BATCHES))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "label"), ALL)
def test_sampled_gradients_are_unbiased_over_many_batches(tmp_path, method: str, label: str):
    _assert_unbiased(*_sampled_mean(tmp_path, method, CASES[method][label], THOROUGH * BATCHES))


def _assert_unbiased(deviation: torch.Tensor, signal: torch.Tensor) -> None:
    assert deviation.abs().max() < 4
    assert signal[0] > 12, "the test must be able to tell the gradient from one that is too short or too long"


@pytest.mark.parametrize(("method", "label"), ALL)
def test_a_bias_is_known_with_its_reason_or_there_is_none(method: str, label: str):
    case = CASES[method][label]
    biased = case.sampled is not None or case.unbiased_at_first_step
    assert biased == bool(case.bias), "say why sampling is biased, or that it is not"


def _fields(method: str) -> list[str]:
    """Fields of `NashConfig` that set the parameters of a method."""
    return [field for name in inspect.signature(METHODS[method]).parameters for field in FIELDS_OF.get(name, (name,))]


def _values(method: str, field: str) -> tuple[Any, Any, dict[str, Any]]:
    found = SETTING_VALUES.get((method, field), SETTING_VALUES.get(field))
    assert found is not None, f"add two values of {field!r} to SETTING_VALUES in tests/theory/language_model_table.py"
    return found


def _observed(folder: Any, method: str, settings: dict[str, Any]) -> tuple[torch.Tensor, list[float]]:
    """All that a setting of a method can change: the gradient on samples, and when the magnet moves."""
    at = scene(folder, sampled=True, method=method, **settings)
    clocks = [MagnetClock(update, move=update / 13, first_move=1.0) for update in range(1, 13)]
    moves = [at.trainer.method.magnet.rate(clock) for clock in clocks]
    return at.gradient(at.experience([1, 2])), moves


@pytest.mark.parametrize(("method", "field"), [(method, field) for method in CASES for field in _fields(method)])
def test_every_setting_of_a_method_changes_the_gradient_or_the_schedule(tmp_path, method: str, field: str):
    one, other, base = _values(method, field)
    before, moves_before = _observed(tmp_path / "one", method, {**base, field: one})
    after, moves_after = _observed(tmp_path / "other", method, {**base, field: other})
    scale = float(before.abs().max())
    assert moves_before != moves_after or float((before - after).abs().max()) > 1e-4 * scale


@pytest.mark.parametrize("method", CASES)
def test_settings_of_other_methods_are_refused_with_their_owners(tmp_path, method: str):
    own = set(_fields(method))
    for field in sorted({field for other in CASES for field in _fields(other)} - own):
        owners = [other for other in CASES if field in _fields(other)]
        _, value, base = _values(owners[0], field)
        others = {name: set_to for name, set_to in base.items() if name in own}
        with pytest.raises(ConfigError) as refusal:
            NashConfig(
                output_dir=str(tmp_path), method=method, use_cpu=True, report_to="none", **others, **{field: value}
            )
        message = str(refusal.value)
        assert "\n" not in message and message.count(". ") <= 1, f"{field}: expected one sentence: {message}"
        parameter = next((name for name, fields in FIELDS_OF.items() if field in fields), field)
        assert repr(method) in message and (field in message or parameter in message), message
        assert any(owner in message for owner in owners), message
