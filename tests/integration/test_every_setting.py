"""Every field that `NashConfig` adds changes the run when it changes, or is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from test_judge_in_background import Watched
from tiny_runs import GAME, PROMPTS, make_config, make_trainer, read_lines, scoring_judge, snapshot

from magnetar.errors import ConfigError, DataError
from magnetar.rollout import SamplingParams, TransformersEngine
from magnetar.rollout.vllm import ColocatedSettings, ServerSettings, VllmEngine
from magnetar.rollout.vllm import start as engine_start
from magnetar.rollout.vllm.start import StartVllm
from magnetar.training import NashConfig
from magnetar.training.engines import make_engine
from magnetar.training.gathering import judging_for
from magnetar.training.rollout_config import RolloutFields
from vllm_reference import ReferenceBackend

LONG = [*PROMPTS, "rock paper scissors well"]
TWO_EPOCHS: dict[str, Any] = {"inner_epochs": 2, "max_steps": 4}
ROLE = {"opponent": "reference"}
DPO: dict[str, Any] = {"method": "online_dpo", "magnet_every": None, "magnet_strength": None}

PPO: dict[str, Any] = {"method": "ppo", "judge": scoring_judge(), "critic_learning_rate": 1e-2}
GRPO: dict[str, Any] = {"method": "grpo", "judge": scoring_judge()}

# field: (what it is called where the engine is started, a value)
COLOCATED: dict[str, tuple[str, Any]] = {
    "vllm_gpu_memory_utilization": ("gpu_memory_utilization", 0.5),
    "vllm_tensor_parallel_size": ("tensor_parallel_size", 2),
    "vllm_max_model_length": ("max_model_len", 99),
    "vllm_enforce_eager": ("enforce_eager", True),
    "vllm_dtype": ("dtype", "bfloat16"),
    "vllm_sync_folder": ("sync_folder", "/some/where"),
}
SERVED: dict[str, tuple[str, Any]] = {
    "vllm_server_base_url": ("base_url", "http://host:1"),
    "vllm_server_timeout": ("timeout_seconds", 9.0),
}

# field: (settings of both runs, two values); the runs, which depend on settings and seed alone, must
# end in other weights.
CHANGES_WEIGHTS: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "method": ({}, "mpo", "mpo_rt"),
    "step_size": (TWO_EPOCHS, 0.1, 10.0),
    "magnet_strength": ({}, 0.3, 3.0),
    "kl_coef": (DPO, 0.1, 1.0),
    "pairs": (DPO, "all", "best_worst"),
    "hard_labels": (DPO, True, False),
    "loss": ({}, "policy_gradient", "regression"),
    "target": ({"method": "online_ipo", "magnet_every": None}, "pair", "winner"),
    "magnet_schedule": ({"num_rounds": 2}, "round", "fixed"),
    "magnet_every": ({}, 1, 3),
    "magnet_shrink": ({"magnet_schedule": "adaptive"}, 0.01, 0.99),
    "sample_from": ({"num_rounds": 2}, "current", "round_start"),
    "reference_weight": ({"method": "nash_md_pg", "magnet_every": None, "magnet_strength": 1.0}, 0.05, 0.9),
    "scale_rewards": (GRPO, True, False),
    "token_average": (GRPO, True, False),
    "reward_clip": (PPO, 0.5, 5.0),
    "value_clip_range": (PPO | TWO_EPOCHS | {"max_steps": 8}, 0.01, 5.0),
    "discount": (PPO, 1.0, 0.5),
    "gae_lambda": (PPO, 1.0, 0.5),
    "critic_learning_rate": (PPO, 1e-2, 1e-3),
    "magnet_ema_rate": ({"magnet_schedule": "ema"}, 0.1, 0.9),
    "opponent": ({}, "current", "reference"),
    "num_opponents": (ROLE, 1, 5),
    "proximal": (TWO_EPOCHS, "kl", "clip"),
    "clip_range": ({"proximal": "clip"} | TWO_EPOCHS, 0.01, 0.9),
    "kl_estimator": ({}, "exact", "sampled"),
    "inner_epochs": ({"max_steps": 4}, 1, 2),
    "num_rounds": ({}, 1, 2),
    "num_generations": ({}, 4, 5),
    "max_completion_length": ({}, 2, 3),
    "temperature": ({}, 1.0, 0.5),
    "top_p": ({}, 1.0, 0.5),
    "top_k": ({}, 0, 2),
    "learning_rate": ({}, 1e-2, 2e-2),
    "lr_scheduler_type": ({}, "constant", "linear"),
    "per_device_train_batch_size": ({}, 2, 3),
    "max_prompt_length": ({"prompts": LONG}, 2, 4),
    "max_comparisons": ({}, 12, 24),
    "max_tokens": ({}, 1, 100),
}


@pytest.mark.parametrize("field", CHANGES_WEIGHTS)
def test_a_setting_changes_what_is_learnt(tmp_path: Path, field: str) -> None:
    base, one, other = CHANGES_WEIGHTS[field]
    ends = []
    for number, value in enumerate((one, other)):
        settings: dict[str, Any] = {"max_steps": 4} | base | {field: value}
        trainer = make_trainer(tmp_path / str(number), **settings)
        trainer.train()
        ends.append({name: t for name, t in snapshot(trainer).items() if name.startswith("policy.")})
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


class Shapes:
    """Shapes of the token tables that a model reads, with and without gradients."""

    def __init__(self, model: Any) -> None:
        self.trained: list[tuple[int, ...]] = []
        self.read: list[tuple[int, ...]] = []
        model.model.embed_tokens.register_forward_hook(self._see)

    def _see(self, module: Any, inputs: Any, output: torch.Tensor) -> None:
        (self.trained if torch.is_grad_enabled() else self.read).append(tuple(inputs[0].shape))


def shapes(folder: Path, **settings: Any) -> Shapes:
    model = GAME.model()
    trainer = make_trainer(folder, model=model, max_steps=1, method="mirror_descent", **settings)
    seen = Shapes(model)
    trainer.train()
    return seen


def check_max_responses_per_pass(folder: Path) -> None:
    assert max(rows for rows, _ in shapes(folder / "all").read) == 8
    assert max(rows for rows, _ in shapes(folder / "few", max_responses_per_pass=4).read) == 4


def check_judge_in_background(folder: Path) -> None:
    for value in (False, True):
        judge = Watched()
        make_trainer(folder / str(value), judge=judge, max_steps=1, judge_in_background=value).train()
        assert {thread.name for thread in judge.threads} == {"magnetar-judging" if value else "MainThread"}
    # By default the judge decides: this one says that it leaves the GPU free and not the CPU.
    default = make_config(folder).judge_in_background
    assert default is None
    for device, free in (("cpu", False), ("cuda:0", True)):
        judge = Watched()
        judge.leaves_free = lambda device: device != "cpu"
        judging = judging_for(judge, make_config(folder), torch.device(device))
        assert judging.threads == (1 if free else 0)


def check_logprob_layout(folder: Path) -> None:
    (packed,) = shapes(folder / "packed", logprob_layout="packed").trained
    (padded,) = shapes(folder / "padded", logprob_layout="padded").trained
    assert packed[0] == 1 and padded[0] == 8  # rows: one for both groups, or one for each response
    assert shapes(folder / "auto", logprob_layout="auto").trained == [packed]


def check_max_tokens_per_pass(folder: Path) -> None:
    assert len(shapes(folder / "large", max_tokens_per_pass=4096).trained) == 1
    assert len(shapes(folder / "small", max_tokens_per_pass=8).trained) == 2


def check_frozen_roles_on_cpu(folder: Path) -> None:
    for value in (False, True):
        assert vars(make_trainer(folder, frozen_roles_on_cpu=value).roles)["_keep_on_cpu"] is value
    with pytest.raises(ConfigError, match="frozen_roles_on_cpu"):
        make_trainer(folder, frozen_roles_on_cpu=True, with_lora=True)


def check_activation_offloading(folder: Path) -> None:
    """What it does where there is an accelerator: `test_activations.py`."""
    with pytest.raises(ConfigError, match="activation_offloading is set, but this run is on the CPU"):
        make_config(folder, activation_offloading=True)
    assert not make_config(folder).activation_offloading


def check_disable_dropout(folder: Path) -> None:
    def end(name: str, attention_dropout: float, disable: bool) -> dict[str, torch.Tensor]:
        model = GAME.model()
        for layer in model.model.layers:
            vars(layer.self_attn)["attention_dropout"] = attention_dropout
        trainer = make_trainer(folder / name, model=model, disable_dropout=disable)
        trainer.train()
        return snapshot(trainer)

    without, disabled, dropping = end("a", 0.0, True), end("b", 0.5, True), end("c", 0.5, False)
    assert all(torch.equal(without[name], disabled[name]) for name in without)
    assert any(not torch.equal(without[name], dropping[name]) for name in without)


def sampled_steps(folder: Path, **settings: Any) -> list[int]:
    make_trainer(folder, **settings).train()
    file = folder / "samples.jsonl"
    return [row["step"] for row in read_lines(file)] if file.exists() else []


def check_sample_steps(folder: Path) -> None:
    assert sampled_steps(folder / "never", sample_steps=0) == []
    assert sampled_steps(folder / "three", sample_steps=3, num_samples=1) == [1, 3, 6]


def check_num_samples(folder: Path) -> None:
    assert sampled_steps(folder / "one", sample_steps=6, num_samples=1) == [1, 6]
    assert sampled_steps(folder / "two", sample_steps=6, num_samples=2) == [1, 1, 6, 6]


def check_print_samples(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in (False, True):
        make_trainer(folder / str(value), sample_steps=1, print_samples=value).train()
        printed = capsys.readouterr()
        assert ("--- step 1: " in printed.out + printed.err) == value


def check_eval_responses(folder: Path) -> None:
    for count in (1, 3):
        trainer = make_trainer(folder, eval_prompts=PROMPTS[:4], eval_responses=count)
        assert trainer.play_against_reference().win_prob_BGH.shape == (4, count, count)


def check_overwrite_output_dir(folder: Path) -> None:
    make_trainer(folder, max_steps=2).train()
    with pytest.raises(ConfigError, match="already holds a run"):
        make_trainer(folder, max_steps=2).train()
    make_trainer(folder, max_steps=1, overwrite_output_dir=True).train()
    assert len(read_lines(folder / "metrics.jsonl")) == 1


def check_on_long_prompt(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(folder / "drop", prompts=LONG, max_prompt_length=2, on_long_prompt="drop")
    assert trainer.dropped_prompts == 1
    assert "dropped 1 prompts longer than max_prompt_length=2 tokens" in capsys.readouterr().out
    trainer.train()
    assert json.loads((folder / "drop" / "magnetar_config.json").read_text())["dropped_prompts"] == 1
    with pytest.raises(DataError, match="4 tokens"):
        make_trainer(folder, prompts=LONG, max_prompt_length=2, on_long_prompt="error")


def test_with_a_critic_a_prompt_may_have_one_response(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, num_generations=1, **PPO)
    trainer.train()
    assert {row["payoff_mean"] for row in read_lines(tmp_path / "metrics.jsonl")} == {0.5}
    for method in ("rloo", "grpo"):
        with pytest.raises(ConfigError, match="num_generations is 1"):
            make_config(tmp_path, method=method, num_generations=1)


def check_critic_model(folder: Path) -> None:
    GAME.model(7).save_pretrained(folder / "other")
    GAME.tokenizer.save_pretrained(folder / "other")
    own = make_trainer(folder / "a", **PPO).critic
    named = make_trainer(folder / "b", critic_model=str(folder / "other"), **PPO).critic
    assert own is not None and named is not None
    starts = [critic.critic.model.model.embed_tokens.weight for critic in (own, named)]
    assert torch.equal(starts[0], GAME.model(0).model.embed_tokens.weight)
    assert torch.equal(starts[1], GAME.model(7).model.embed_tokens.weight)
    with pytest.raises(ConfigError, match="critic_model is 'x', but method 'mpo' has no critic"):
        make_config(folder, critic_model="x")


def ends_after(folder: Path, **settings: Any) -> int:
    trainer = make_trainer(folder, **settings)
    trainer.train()
    return trainer.state.global_step


def check_max_comparisons(folder: Path) -> None:
    # Two prompts with four responses each are twelve comparisons an update.
    assert [ends_after(folder / str(n), max_comparisons=n) for n in (24, 25)] == [2, 3]


def check_max_tokens(folder: Path) -> None:
    assert ends_after(folder / "few", max_tokens=1) == 1
    assert ends_after(folder / "many", max_tokens=10_000) == 6


def check_num_train_epochs(folder: Path) -> None:
    assert [make_trainer(folder, max_steps=-1, num_train_epochs=n).plan.updates for n in (1, 2)] == [6, 12]


def check_logging_steps(folder: Path) -> None:
    for steps, lines in ((1, 6), (3, 2)):
        make_trainer(folder / str(steps), logging_steps=steps).train()
        assert len(read_lines(folder / str(steps) / "metrics.jsonl")) == lines


def check_remove_unused_columns(folder: Path) -> None:
    with pytest.raises(ConfigError, match="remove_unused_columns"):
        make_config(folder, remove_unused_columns=True)


def engine_settings(folder: Path, **settings: Any) -> Any:
    engine = make_engine(make_config(folder, **settings), GAME.model(), GAME.tokenizer)
    return engine.starter.settings  # type: ignore[attr-defined]


def check_use_vllm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StartVllm, "__call__", lambda self, model: ReferenceBackend(model.config))
    used = []
    for value in (False, True):
        trainer = make_trainer(folder / str(value), use_vllm=value, method="mirror_descent")
        trainer.train()
        used.append(isinstance(vars(trainer)["_collector"].engine, VllmEngine))
    assert used == [False, True]


class FlatterEngine(TransformersEngine):
    """Draws at a higher temperature than the policy's, and says so."""

    def __init__(self) -> None:
        super().__init__(cast(Any, GAME.tokenizer), SamplingParams(max_new_tokens=3, temperature=1.5))


def check_merge_for_rollouts(folder: Path) -> None:
    engines = [
        make_trainer(folder / value, merge_for_rollouts=value)._collector.engine for value in ("auto", "on", "off")
    ]
    assert [cast(Any, engine)._merge for engine in engines] == ["auto", "on", "off"]
    with pytest.raises(ConfigError, match="merge_for_rollouts"):
        make_config(folder, merge_for_rollouts="sometimes")


def check_importance_correction(folder: Path) -> None:
    ends, lines = {}, {}
    for kind in ("off", "token", "sequence"):
        trainer = make_trainer(folder / kind, importance_correction=kind, rollout_engine=FlatterEngine())
        trainer.train()
        ends[kind], lines[kind] = snapshot(trainer), read_lines(folder / kind / "metrics.jsonl")[0]
    for a, b in (("off", "token"), ("off", "sequence"), ("token", "sequence")):
        assert any(not torch.equal(ends[a][name], ends[b][name]) for name in ends[a]), (a, b)
    assert lines["off"]["sampling_gap"] > 0.01
    own = make_trainer(folder / "own", importance_correction="sequence")
    own.train()
    line = read_lines(folder / "own" / "metrics.jsonl")[0]
    assert line["sampling_gap"] < 1e-5 and line["sampling_effective_share"] > 0.9999
    assert make_config(folder).correction == "off"
    assert make_config(folder, use_vllm=True).correction == "token"


def check_importance_cap(folder: Path) -> None:
    ends = []
    for cap in (1.0, 5.0):
        settings = {"importance_correction": "token", "importance_cap": cap}
        trainer = make_trainer(folder / str(cap), rollout_engine=FlatterEngine(), **settings)
        trainer.train()
        ends.append(snapshot(trainer))
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    with pytest.raises(ConfigError, match=r"importance_cap is 0\.0, expected a number above 0"):
        make_config(folder, importance_correction="token", importance_cap=0.0)
    with pytest.raises(ConfigError, match=r"importance_cap is 3\.0, but importance ratios are not used"):
        make_config(folder, importance_cap=3.0)


def check_vllm_mode(folder: Path) -> None:
    kinds = [type(engine_settings(folder, use_vllm=True, vllm_mode=mode)) for mode in ("colocate", "server")]
    assert kinds == [ColocatedSettings, ServerSettings]


def check_every_setting_of_vllm(folder: Path) -> None:
    """One value of each that is not the default reaches the engine."""
    for fields, base in ((COLOCATED, {}), (SERVED, {"vllm_mode": "server"})):
        for name, (attribute, value) in fields.items():
            default = engine_settings(folder, use_vllm=True, **base)
            changed = engine_settings(folder, use_vllm=True, **base, **{name: value})
            assert getattr(default, attribute) != getattr(changed, attribute) == value, name


def check_vllm_enable_sleep_mode(folder: Path) -> None:
    assert not engine_settings(folder, use_vllm=True).enable_sleep_mode
    with pytest.raises(ConfigError, match="vllm_enable_sleep_mode is set, but there is no GPU"):
        engine_settings(folder, use_vllm=True, vllm_enable_sleep_mode=True)


OTHER_CHECKS: dict[str, Callable[..., None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}


@pytest.mark.parametrize("field", OTHER_CHECKS)
def test_a_setting_changes_how_the_run_goes(
    tmp_path: Path, field: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check = OTHER_CHECKS[field]
    monkeypatch.setattr(engine_start, "check_vllm_installed", lambda: None)
    offered = {"capsys": capsys, "monkeypatch": monkeypatch}
    check(tmp_path, **{name: value for name, value in offered.items() if name in check.__annotations__})


def test_every_field_is_tested() -> None:
    together = {"every_setting_of_vllm"}
    tested = set(CHANGES_WEIGHTS) | set(OTHER_CHECKS) - together | set(COLOCATED) | set(SERVED)
    assert set(NashConfig.__annotations__) | set(RolloutFields.__annotations__) == tested


def test_the_critic_decays_as_the_policy_does_and_learns_at_its_own_rate(tmp_path: Path) -> None:
    for decay in (0.0, 0.1):
        trainer = make_trainer(tmp_path / str(decay), weight_decay=decay, **PPO)
        assert trainer.critic is not None
        groups = trainer.create_optimizer().param_groups
        own = {id(p) for p in trainer.critic.critic.trained().values()}
        critics = [group for group in groups if {id(p) for p in group["params"]} <= own]
        assert {id(p) for group in critics for p in group["params"]} == own
        assert {group["lr"] for group in critics} == {1e-2}
        assert {group["weight_decay"] for group in critics} == {decay, 0.0}
