"""The page for users of TRL: each field of theirs has a line, and where it says "the same loss" the loss is so."""

import dataclasses
import re
import warnings
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments
from trl.trainer.base_config import _BaseConfig

from magnetar.methods import online_dpo, online_ipo
from magnetar.training import NashConfig
from magnetar.types import RolloutBatch

with warnings.catch_warnings():  # TRL warns of everything in this package: it may change, which this test is to notice
    warnings.simplefilter("ignore")
    from trl.experimental.online_dpo import OnlineDPOConfig

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
TABLE = PAGE.split("## Fields of the configuration")[1].split("\n## ")[0]
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in TABLE.splitlines() if line.startswith("| `")]
REMOVED_WITH_THEIR_TRAINERS = {"mixture_coef", "alpha"}


def words(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def default_of(config: type, name: str) -> object:
    (field,) = (field for field in dataclasses.fields(config) if field.name == name)
    value = field.default_factory() if field.default is dataclasses.MISSING else field.default  # type: ignore[misc]
    return value[0] if isinstance(value, list) else value


def test_every_field_that_trl_adds_or_changes_has_a_line() -> None:
    inherited = {field.name: field for field in dataclasses.fields(TrainingArguments)}
    own = {
        field.name
        for field in dataclasses.fields(OnlineDPOConfig)
        if field.name not in inherited or field.default != inherited[field.name].default
    }
    of_all_trainers = {field.name for field in dataclasses.fields(_BaseConfig)} - set(_BaseConfig.__annotations__)
    listed = {word for row in ROWS for word in words(row[0])}
    assert {"logging_steps", "gradient_checkpointing", "bf16"} <= listed
    missing = own - listed - of_all_trainers - set(_BaseConfig.__annotations__)
    assert not missing, f"fields of OnlineDPOConfig without a line in docs/migration.md: {sorted(missing)}"
    assert not listed - own - REMOVED_WITH_THEIR_TRAINERS, "lines for fields that TRL does not have"


def test_the_fields_of_ours_that_it_names_exist() -> None:
    known = {field.name for field in dataclasses.fields(NashConfig)}
    elsewhere = {"target", "online_dpo", "online_ipo", "panel", "weights", "judge"}
    for row in ROWS:
        assert set(words(row[2])) <= known | elsewhere, row


@pytest.mark.parametrize("row", [row for row in ROWS if words(row[0]) == words(row[2])], ids=lambda row: row[0])
def test_the_defaults_of_fields_with_one_name_are_stated_as_they_are(row: list[str]) -> None:
    (name,) = words(row[0])
    for config, cell in ((OnlineDPOConfig, row[1]), (NashConfig, row[3])):
        stated, actual = cell.strip("`"), default_of(config, name)
        if actual is None:  # left to what follows from other fields
            assert stated in ("–", "False") or "unless" in stated, row
        elif isinstance(actual, float) and not isinstance(actual, bool):
            assert float(stated) == actual
        else:
            assert stated == str(getattr(actual, "value", actual))


@pytest.fixture
def batch() -> RolloutBatch:
    """Groups of two with a winner each, five tokens at most."""
    generator = torch.Generator().manual_seed(0)
    b, g, t = 4, 2, 5
    logp = [-torch.rand(b, g, t, generator=generator, dtype=torch.float64) * 3 for _ in range(3)]
    mask = torch.arange(t) < torch.randint(1, t + 1, (b, g, 1), generator=generator)
    first_wins = torch.tensor([0.9, 0.2, 1.0, 0.4], dtype=torch.float64)
    win_prob = torch.full((b, g, g), 0.5, dtype=torch.float64)
    win_prob[:, 0, 1], win_prob[:, 1, 0] = first_wins, 1 - first_wins
    return RolloutBatch(
        logp_BGT=logp[0].requires_grad_(),
        behavior_logp_BGT=logp[1],
        magnet_logp_BGT=logp[2],
        mask_BGT=mask,
        win_prob_BGH=win_prob,
        opponent_weight_BGH=(1 - torch.eye(g, dtype=torch.float64)).expand(b, g, g),
        response_weight_BG=torch.full((b, g), 1 / g, dtype=torch.float64),
    )


def trl_loss(batch: RolloutBatch, loss_type: str, beta: float) -> torch.Tensor:
    """TRL's loss of a batch, written down from its definition: chosen against rejected, sums over tokens."""
    assert batch.magnet_logp_BGT is not None
    ratio_BG = ((batch.logp_BGT - batch.magnet_logp_BGT) * batch.mask_BGT).sum(-1)
    chosen = torch.where(batch.win_prob_BGH[:, 0, 1] >= 0.5, 0, 1)
    prompts = torch.arange(len(chosen))
    logits_B = ratio_BG[prompts, chosen] - ratio_BG[prompts, 1 - chosen]
    if loss_type == "sigmoid":
        return -torch.nn.functional.logsigmoid(beta * logits_B).mean()
    return ((logits_B - 1 / (2 * beta)) ** 2).mean()


@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_a_group_of_two_has_the_loss_and_the_gradient_of_trls_online_dpo(
    batch: RolloutBatch, loss_type: str, beta: float
) -> None:
    method = online_dpo(kl_coef=beta) if loss_type == "sigmoid" else online_ipo(magnet_strength=beta, target="winner")
    ours = (method.sampled_objective(batch).loss_BG * batch.response_weight_BG).sum(-1).mean()
    theirs = trl_loss(batch, loss_type, beta)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss, batch.logp_BGT, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)
