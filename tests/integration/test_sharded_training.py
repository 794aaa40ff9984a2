"""Two processes that share the weights between them train as one process that has them all.

FSDP2 is tested wherever the suite runs; DeepSpeed's ZeRO-3 where DeepSpeed is installed (`make test-deepspeed`).
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from sharded_runs import whole_snapshot
from test_two_processes import FAILING, ONE_OF_A_KIND
from tiny_runs import GAME, PROMPTS, assert_close, make_trainer, metrics_without_times, updates_of
from transformers import AutoModelForCausalLM

from magnetar.training.checkpoints import complete_checkpoints
from processes import FSDP2, ZERO3, run_two_processes

HERE = Path(__file__).parent
TRAIN = """
from safetensors.torch import save_file
from sharded_runs import assert_shares, whole_snapshot
from tiny_runs import PROMPTS, assert_identical, make_trainer
from magnetar.modeling import vocabulary

vocabulary.CHUNK_LOGITS["cpu"] = 10  # two tokens of five words at a time
folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
for name, fields in settings.items():
    halfway = fields.pop("save_steps", None)
    saving = {"save_strategy": "steps", "save_steps": halfway} if halfway else {}
    common = {"per_device_train_batch_size": 2, "eval_prompts": PROMPTS[:5], **saving, **fields}
    trainer = make_trainer(folder / name, **common)
    trainer.train()
    assert_shares(trainer)
    assert trainer.passes.chunked
    tensors = whole_snapshot(trainer)
    save_file(tensors, folder / f"{name}-{trainer.args.process_index}.safetensors")
    trainer.evaluate()
    trainer.save_model(str(folder / name / "final"))
    if halfway:
        again = make_trainer(folder / name, **common)
        again.train(resume_from_checkpoint=str(folder / name / f"checkpoint-{halfway}"))
        assert_identical(tensors, whole_snapshot(again))
"""
PRECISE = """
import torch
from tiny_runs import make_trainer

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
trainer = make_trainer(folder / "run", **settings)
trainer.train()
prompts, responses = [[1, 2], [3]], [[[3, 1], [1, 0]], [[2, 2, 0], [4]]]
with torch.no_grad(), trainer.roles.use("current") as model, trainer.accelerator.autocast():
    logp = trainer.passes.run(model, prompts, responses).logp_BGT
critic = trainer.critic.critic
with torch.no_grad(), critic.sharding.passes((critic.model,), gather=False), trainer.accelerator.autocast():
    values = trainer.passes.values(critic, prompts, responses)
for given in (logp, values):
    assert given.dtype == torch.float32 and given.any()
    assert not torch.equal(given, given.bfloat16().float()), "three digits are not enough"
assert {p.dtype for p in trainer.roles.current.parameters()} == {torch.float32}
"""
# SGD: Adam divides rounding noise by itself where a gradient vanishes, and would hide nothing else.
SGD = {"optim": "sgd", "learning_rate": 0.5}
LORA = SGD | {"with_lora": True, "gradient_accumulation_steps": 2, "max_steps": 3, "magnet_every": 1}
# Passes of few tokens, of which processes have different numbers; the magnet follows slowly, so that it is never equal.
FULL = SGD | {"inner_epochs": 2, "kl_estimator": "exact", "max_steps": 6, "max_tokens_per_pass": 16}
# The critic's gradient is clipped by itself; its passes on a process may be more or fewer than another's.
PPO = SGD | {"method": "ppo", "critic_learning_rate": 0.5, "inner_epochs": 2, "max_steps": 4, "max_tokens_per_pass": 16}
SLOW_MAGNET = {"magnet_schedule": "ema", "magnet_ema_rate": 0.3}

fsdp2 = pytest.param((FSDP2, {}), id="fsdp2")
zero3 = pytest.param(
    (ZERO3, {"use_cpu": False}),
    id="zero3",
    marks=pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed"),
)
Kind = tuple[dict[str, str], dict[str, Any]]


def assert_like_one_process(folder: Path, kind: Kind, settings: dict[str, dict[str, Any]]) -> None:
    """Train everything on two processes with sharded weights and on one with twice the batch, and compare."""
    variables, more = kind
    run_two_processes(
        folder / "two", {n: f | more for n, f in settings.items()}, TRAIN, HERE, variables=variables
    )  # one launch, for most of it is starting
    for name, fields in settings.items():
        if "save_steps" in fields:
            continue  # a resumed run is compared with itself, and with Adam
        alone: dict[str, Any] = {"eval_prompts": PROMPTS[:5], **fields}
        one = make_trainer(folder / name, per_device_train_batch_size=4, **alone)
        start = {key: tensor.clone() for key, tensor in one.roles.current.state_dict().items()}
        one.train()
        moved = max(float((t - start[key]).abs().max()) for key, t in one.roles.current.state_dict().items())
        assert moved > 1e-3, name  # the tolerance below means something
        expected = whole_snapshot(one)
        two = [load_file(folder / "two" / f"{name}-{rank}.safetensors") for rank in range(2)]
        assert_close(two[0], two[1], 0.0)
        assert_close(two[0], {key: expected[key] for key in two[0]}, 1e-5)
        assert {key for key in expected if not key.startswith("optimizer.")} <= two[0].keys()
        assert_saved_policy_is(one, folder / "two" / name / "final", fields.get("with_lora", False))
        one.evaluate()
        rows_one, rows_two = (metrics_without_times(f / name) for f in (folder, folder / "two"))
        for row_one, row_two in zip(rows_one, rows_two, strict=True):
            assert row_one.keys() == row_two.keys()
            for key, value in row_one.items():
                if not key.startswith("judge/"):  # a process counts its own comparisons
                    assert row_two[key] == pytest.approx(value, rel=1e-3, abs=2e-5), (name, key)


def assert_saved_policy_is(trainer: Any, folder: Path, lora: bool) -> None:
    """The folder holds the trained policy, as transformers and PEFT load it."""
    if lora:
        saved: Any = PeftModel.from_pretrained(GAME.model(0, dtype=torch.float32), str(folder))
    else:
        saved = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[1, 2, 3, 4]])
    model = trainer.roles.current.eval()
    with torch.no_grad():
        assert torch.allclose(saved.eval()(ids).logits, model(ids).logits, atol=1e-4)


def test_sharded_weights_train_as_whole_ones(tmp_path: Path) -> None:
    resumed = {"max_steps": 3, "save_steps": 2, "magnet_every": 2}
    settings = {"lora": LORA, "full": FULL | SLOW_MAGNET | {"max_steps": 4}, "resumed": resumed}
    assert_like_one_process(tmp_path, (FSDP2, {}), settings)


SENT = {
    "lora": LORA | {"opponent": "magnet", "sent_weights": True},
    "full": SGD | SLOW_MAGNET | {"opponent": "magnet", "max_steps": 4, "sent_weights": True},
    # A process without held-out prompts takes part in the other's evaluation.
    "reference": SGD | {"opponent": "reference", "max_steps": 2, "sent_weights": True, "eval_prompts": PROMPTS[:1]},
}


def test_sharded_weights_are_sent_to_an_engine_as_whole_ones_are(tmp_path: Path) -> None:
    assert_like_one_process(tmp_path, (FSDP2, {}), {"lora": SENT["lora"], "reference": SENT["reference"]})


@pytest.mark.slow
@pytest.mark.parametrize("kind", [fsdp2, zero3])
def test_each_role_of_sharded_weights_is_sent_to_an_engine(tmp_path: Path, kind: Kind) -> None:
    assert_like_one_process(tmp_path, kind, SENT)


FAILING_ENGINE = """
from tiny_runs import make_trainer, served
from magnetar.errors import RolloutError

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
for failing, fields in settings.items():
    backends = []
    trainer = make_trainer(folder / failing, rollout_engine=served(backends), **fields)
    move = trainer.after_optimizer_step

    def after_step():
        move()
        if trainer.state.global_step == 1 and trainer.args.process_index == 1:
            def fails(*args, **kwargs):  # before it has taken any of the weights that the other process gives parts of
                raise RolloutError(f"{failing} failed")
            setattr(backends[0], failing, fails)

    trainer.after_optimizer_step = after_step
    try:
        trainer.train()
    except RolloutError as error:
        (folder / f"{failing}-{trainer.args.process_index}.txt").write_text(str(error))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [fsdp2, zero3])
def test_an_engine_that_fails_on_one_process_stops_both(tmp_path: Path, kind: Kind) -> None:
    variables, more = kind
    settings = {failing: {"max_steps": 4} | more for failing in ("load", "sample", "facts")}
    run_two_processes(tmp_path / "two", settings, FAILING_ENGINE, HERE, variables=variables)
    for failing in settings:
        for rank in range(2):
            error = (tmp_path / "two" / f"{failing}-{rank}.txt").read_text()
            assert error.startswith("update 2: ") and f"{failing} failed" in error
        assert [path.name for path in complete_checkpoints(tmp_path / "two" / failing)] == ["checkpoint-1"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [fsdp2, zero3])
def test_each_kind_of_run_is_the_same_with_sharded_weights(tmp_path: Path, kind: Kind) -> None:
    methods = [name for name in ONE_OF_A_KIND if kind[0] is FSDP2 or name not in ("egpo", "omwu")]
    settings: dict[str, dict[str, Any]] = {
        name: {"method": name, **SGD, **updates_of(name, updates=2, inner_epochs=2)} for name in methods
    }
    settings["reset"] = {k: v for k, v in LORA.items() if k != "magnet_every"} | SLOW_MAGNET
    settings["slow magnet"] = FULL | SLOW_MAGNET | {"max_steps": 4}
    settings["rounds"] = SGD | {"num_rounds": 2, "max_steps": 4, "with_lora": True}
    assert_like_one_process(tmp_path, kind, settings)


@pytest.mark.slow
def test_in_mixed_precision_log_probabilities_and_values_are_not_rounded(tmp_path: Path) -> None:
    settings = {"method": "ppo", "bf16": True, "max_steps": 1, "critic_learning_rate": 0.1}
    run_two_processes(tmp_path, settings, PRECISE, HERE, variables=FSDP2)


@pytest.mark.slow
def test_a_critic_in_shards_learns_as_a_whole_one_does(tmp_path: Path) -> None:
    settings = {"full": PPO, "lora": PPO | {"with_lora": True, "gradient_accumulation_steps": 2}}
    assert_like_one_process(tmp_path, (FSDP2, {}), settings)


@pytest.mark.slow
@pytest.mark.parametrize("with_lora", [True, False], ids=["lora", "full"])
def test_a_critic_in_shards_resumes_bit_for_bit(tmp_path: Path, with_lora: bool) -> None:
    """With Adam, whose state of the critic's weights must come back too, and a schedule."""
    common = {"method": "ppo", "critic_learning_rate": 1e-2, "with_lora": with_lora, "lr_scheduler_type": "linear"}
    settings = {
        "within": common | {"inner_epochs": 2, "max_steps": 6, "save_steps": 3},
        "between": common | {"max_steps": 4, "save_steps": 2, "weight_decay": 0.1},
    }
    run_two_processes(tmp_path / "whole files", settings, TRAIN, HERE, variables=FSDP2)
    pieces = FSDP2 | {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}
    run_two_processes(tmp_path / "pieces", settings, TRAIN, HERE, variables=pieces)


@pytest.mark.slow
def test_a_sharded_run_resumes_bit_for_bit_within_the_first_half_of_an_extragradient_update(tmp_path: Path) -> None:
    """Adam's state of before the update must come back, since the second half begins there."""
    common = {"method": "egpo", "inner_epochs": 2, "max_steps": 8, "save_steps": 5}
    settings = {"full": common, "lora": common | {"with_lora": True}}
    run_two_processes(tmp_path, settings, TRAIN, HERE, variables=FSDP2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [fsdp2, zero3])
@pytest.mark.parametrize("with_lora", [True, False], ids=["lora", "full"])
def test_a_sharded_run_resumes_bit_for_bit(tmp_path: Path, kind: Kind, with_lora: bool) -> None:
    """With Adam, whose state must come back too; between updates and within one."""
    variables, more = kind
    common = {"with_lora": with_lora, "max_steps": 6, "magnet_every": 2, **more}
    settings = {"within": common | {"inner_epochs": 2, "save_steps": 3}, "between": common | {"save_steps": 2}}
    run_two_processes(tmp_path / "whole files", settings, TRAIN, HERE, variables=variables)
    if variables is FSDP2:
        pieces = FSDP2 | {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}
        run_two_processes(tmp_path / "pieces", settings, TRAIN, HERE, variables=pieces)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mpo", "ppo"])
@pytest.mark.parametrize("with_lora", [True, False], ids=["lora", "full"])
def test_one_process_goes_on_where_two_with_shards_stopped(tmp_path: Path, with_lora: bool, method: str) -> None:
    # A large epsilon: Adam divides rounding noise by itself where a gradient vanishes.
    fields: dict[str, Any] = {"adam_epsilon": 1e-2, "learning_rate": 0.1, "with_lora": with_lora, "max_steps": 4}
    fields |= {"magnet_every": 2} if method == "mpo" else {"method": "ppo", "critic_learning_rate": 0.1}
    run_two_processes(tmp_path / "two", {"run": fields | {"save_steps": 2}}, TRAIN, HERE, variables=FSDP2)
    one = make_trainer(tmp_path / "one", per_device_train_batch_size=4, **fields)
    one.train(resume_from_checkpoint=str(tmp_path / "two" / "run" / "checkpoint-2"))
    two = load_file(tmp_path / "two" / "run-0.safetensors")
    expected = whole_snapshot(one)
    assert_close(two, {key: expected[key] for key in two}, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [fsdp2, zero3])
def test_a_judge_that_fails_on_one_process_stops_both(tmp_path: Path, kind: Kind) -> None:
    variables, more = kind
    run_two_processes(tmp_path / "two", {"max_steps": 4} | more, FAILING, HERE, variables=variables)
    errors = [(tmp_path / "two" / f"error-{rank}.txt").read_text() for rank in range(2)]
    assert errors[0] == errors[1]
    assert "update 2: " in errors[0] and "the server is down" in errors[0]
    assert [path.name for path in complete_checkpoints(tmp_path / "two" / "run")] == ["checkpoint-1"]
