"""What the pages in docs/methods say of a method on language models, read off the code and counted in a tiny run."""

import inspect
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, cast
from unittest.mock import patch

from datasets import Dataset
from transformers import TrainerCallback

from magnetar.evaluation.enumerable import PROMPT, EnumerableGame
from magnetar.methods import METHODS, AdaptiveMagnet, Ema, EveryNUpdates, FixedMagnet, Method
from magnetar.training import NashConfig, NashTrainer
from magnetar.training.config import CRITIC_LEARNING_RATE
from magnetar.training.passes import PassSettings

GROUP = 8  # the preset of num_generations
UPDATES = 4  # the last is counted: every role has weights of its own by then
ROLES = {
    "magnet": "magnet",
    "previous": "policy before",
    "lookahead": "look-ahead policy",
    "behavior": "sampling policy",
}

# How a page's letters and settings are those of the papers, where this is not plain from the table of settings.
PAPER_SETTINGS: dict[str, str] = {
    "mpo": "The letters are the paper's. Its experiments move the magnet between rounds of prompts, which here is"
    " `magnet_schedule=round` with `num_rounds`.",
    "mpo_rt": "As for [`mpo`](mpo.md).",
    "mpo_optimistic": "No paper. How long an update is is its total variation, estimated on the sampled responses.",
    "mmd": "The letters are the paper's, whose magnet here is the reference.",
    "mirror_descent": "SPO leaves the step to the learning rate of a policy optimiser; so does one inner epoch.",
    "sppo": "The paper's η is `step_size`.",
    "omd": "β is that of arXiv:2503.08942.",
    "inpo": "The paper's η is one over `step_size`, its τ is `magnet_strength`.",
    "online_ipo": "β is that of arXiv:2503.08942.",
    "nash_md": "The paper writes τ for β; its mixture weight is ητ, as here.",
    "nash_md_pg": "The paper writes τ for β, and β for the mixture's weight, which here is `reference_weight`.",
    "egpo": "The letters are the paper's; `loss=regression` is its form, and its experiments use β = 0.1.",
    "omwu": "`loss=regression` is ONPO's form, with the extrapolation as it stands instead of a second policy.",
    "extragradient": "Without a reference there is nothing to stay near; [`egpo`](egpo.md) is the form with one.",
    "iterative_dpo": "β is the paper's. The data of a round are its prompts, so `num_rounds` is to be set.",
    "online_dpo": "β is the paper's; `num_generations=2` makes one pair of each prompt.",
    "ppo": "Actor and critic learn with `learning_rate` and `critic_learning_rate`. Advantages are not whitened.",
    "rloo": "β is the paper's, of the penalty inside the reward.",
    "grpo": "β and ε are the paper's; `kl_estimator=sampled` and `scale_rewards=false` undo its two departures.",
}

# Flags of a command that runs on the embedded model and prompts.
COMMON_FLAGS = "--use_peft --lora_target_modules all-linear --learning_rate 3e-4 --max_completion_length 64"
SCORING_JUDGE = "python:examples.scores:plain_words"
OWN_FLAGS = {"iterative_dpo": "--num_rounds 3"}


@dataclass(frozen=True)
class Cost:
    """What one update costs for each prompt, with the preset group and one inner epoch.

    Attributes:
        comparisons: Judge comparisons, or scores.
        generated: Responses.
        frozen: Responses passed through a model without gradient, the generation not counted.
        trained: The same with gradient.
        valued: Responses passed through the critic, with and without.
        steps: Optimiser steps.
        roles: Models or adapters kept beside the policy.
    """

    comparisons: int
    generated: int
    frozen: int
    trained: int
    valued: int
    steps: int
    roles: tuple[str, ...]


@cache
def cost_of(name: str) -> Cost:
    """Count the last update of a run of the real trainer on a tiny model."""
    accepted = inspect.signature(METHODS[name]).parameters
    settings: dict[str, Any] = {"magnet_every": 2} if "magnet_every" in accepted else {}
    rounds = 2 if METHODS[name]().sample_from == "round_start" else 1
    halves = 2 if METHODS[name]().prediction == "extragradient" else 1
    game, seen = EnumerableGame.build(num_words=3), _Seen()
    with tempfile.TemporaryDirectory() as folder, seen.counting():
        args = NashConfig(
            output_dir=folder, method=name, max_steps=UPDATES * halves, num_rounds=rounds, num_generations=GROUP,
            max_completion_length=game.max_new_tokens, per_device_train_batch_size=1, learning_rate=1e-2,
            sample_steps=0, save_strategy="no", disable_tqdm=True, use_cpu=True, report_to="none", **settings,
        )  # fmt: skip
        needs_reward = args.build_method().sampled_objective.needs_reward
        trainer = NashTrainer(
            model=game.model(0),
            judge=game.scoring_judge(game.fitted_scores(game.policy(game.model(0)))) if needs_reward else game.judge(),
            args=args,
            train_dataset=Dataset.from_dict({"prompt": [PROMPT + " " * k for k in range(rounds)]}),
            processing_class=game.tokenizer,
        )
        trainer.add_callback(seen.callback(trainer))
        trainer.train()
    before, after = seen.at_step[-1 - halves], seen.at_step[-1]
    spent = [now - then for now, then in zip(after, before, strict=True)]
    roles = tuple(words for role, words in ROLES.items() if trainer.roles.has(role))  # type: ignore[arg-type]
    # A magnet that never moves is the reference, and their log-probabilities are one pass.
    fixed = isinstance(args.build_method().magnet, FixedMagnet)
    kept = tuple(role for role in roles if not (fixed and role == "magnet"))
    critic = () if trainer.critic is None else ("critic",)
    return Cost(*spent, steps=halves, roles=("reference", *kept, *critic))


class _Seen:
    """Counters of a run, read off after every optimiser step."""

    def __init__(self) -> None:
        self.frozen = self.trained = self.valued = 0
        self.at_step: list[tuple[int, ...]] = []

    @contextmanager
    def counting(self) -> Iterator[None]:
        import torch

        run, values = PassSettings.run, PassSettings.values

        def counted_run(passes: Any, model: Any, prompt_ids: Any, response_ids: Any, **options: Any) -> Any:
            count = sum(map(len, response_ids))
            self.trained += count * torch.is_grad_enabled()
            self.frozen += count * (not torch.is_grad_enabled())
            return run(passes, model, prompt_ids, response_ids, **options)

        def counted_values(passes: Any, critic: Any, prompt_ids: Any, response_ids: Any) -> Any:
            self.valued += sum(map(len, response_ids))
            return values(passes, critic, prompt_ids, response_ids)

        with patch.object(PassSettings, "run", counted_run), patch.object(PassSettings, "values", counted_values):
            yield

    def callback(self, trainer: NashTrainer) -> TrainerCallback:
        seen = self

        class Reader(TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                ledger = trainer.ledger
                numbers = (ledger.comparisons, ledger.generated_responses, seen.frozen, seen.trained, seen.valued)
                seen.at_step.append(numbers)

        return Reader()


def at_a_glance(name: str) -> str:
    """First block of the section: one line for a method of games only, or a table of what is trained on what."""
    method = METHODS[name]()
    if method.games_only_because is not None:
        return f"For exact games only: {method.games_only_because}."
    rows = [
        ("loss", f"`{type(method.objective).__name__}`, below"),
        ("judge", "one that scores each response" if method.sampled_objective.needs_reward else "any"),
        ("opponents of a response", opponents_words(method)),
        (
            "responses are drawn from",
            "the policy itself"
            if method.sample_from == "current"
            else "the policy at the start of the self-play round",
        ),
        ("kept beside the policy", ", ".join(cost_of(name).roles)),
    ]
    return table(("on language models", f"`magnetar train --method {name}`"), rows)


def opponents_words(method: Method) -> str:
    """Whom the responses meet."""
    if method.sampled_objective.needs_reward:
        return "none; the others of its group are the baseline" if method.name != "ppo" else "none"
    if method.opponent.role == "mixture":
        return "new responses of the mixture of policy and reference, drawn token by token"
    group = "the other responses of its group"
    if method.prediction == "optimistic":
        return f"{group} with weight 2, and new responses of the policy before with weight −1"
    if method.prediction == "extragradient":
        return f"{group} in the first half of an update, new responses of the look-ahead policy in the second"
    return group


def run_block(name: str) -> str:
    """Second block: settings, conventions, cost and a command."""
    method, cost = METHODS[name](), cost_of(name)
    settings = table(("flag", "default", "what it does"), settings_rows(name))
    conventions = "\n".join(f"- {sentence}" for sentence in convention_sentences(method))
    asked = "scores asked of the judge" if method.sampled_objective.needs_reward else "comparisons asked of the judge"
    costs = [
        (asked, str(cost.comparisons)),
        ("responses generated", str(cost.generated)),
        ("responses read without gradient", f"{cost.frozen}"),
        ("responses read with gradient", f"{cost.trained}"),
    ]
    if cost.valued:
        costs.append(("responses read by the critic", str(cost.valued)))
    costs.append(("optimiser steps", str(cost.steps)))
    return "\n\n".join(
        [
            f"Settings, beside [those of all methods](README.md#settings-on-language-models):\n\n{settings}",
            f"Conventions:\n\n{conventions}",
            f"Cost of an update for each prompt, with groups of {GROUP} and one inner epoch, counted:\n\n"
            + table(("", "count"), costs),
            f"```bash\n{command(name)}\n```",
        ]
    )


def command(name: str) -> str:
    """A command that trains the embedded model on the embedded prompts."""
    judge = SCORING_JUDGE if METHODS[name]().sampled_objective.needs_reward else "panel"
    own = f" {OWN_FLAGS[name]}" if name in OWN_FLAGS else ""
    return (
        f"magnetar train --model demo --dataset demo --judge {judge} --method {name}{own} \\\n"
        f"               {COMMON_FLAGS} --output_dir runs/{name}"
    )


def fields_of(name: str) -> list[str]:
    """Fields of `NashConfig` that set this method."""
    method, found = METHODS[name](), []
    for parameter in inspect.signature(METHODS[name]).parameters:
        if parameter == "magnet":
            found += ["magnet_schedule", "magnet_ema_rate", "magnet_shrink"]
        else:
            found.append({"shrink": "magnet_shrink"}.get(parameter, parameter))
    draws = method.prediction != "none" or not method.opponent.is_self_play or "opponent" in found
    found += ["num_opponents"] if draws else []
    found += ["sample_from"] if method.prediction == "none" else []
    found += ["critic_learning_rate", "critic_model"] if method.sampled_objective.needs_value else []
    return found


def settings_rows(name: str) -> list[tuple[str, str, str]]:
    """Flag, default and help text of every field that sets this method."""
    texts = {field.name: field.metadata.get("help", "") for field in fields(NashConfig)}
    return [(f"`--{field}`", default_words(name, field), texts[field]) for field in fields_of(name)]


# Of all methods: what decides how much is learnt from how much.
COMMON = (
    "learning_rate", "inner_epochs", "num_generations", "per_device_train_batch_size", "num_rounds", "num_train_epochs",
    "max_completion_length", "temperature", "top_p", "top_k", "max_tokens_per_pass", "max_comparisons", "max_tokens",
)  # fmt: skip


def common_block() -> str:
    """Table of the settings that all methods have, for the index."""
    found = {field.name: field for field in fields(NashConfig)}
    rows = [
        (
            f"`--{name}`",
            "–" if found[name].default is None else f"`{found[name].default!r}`",
            found[name].metadata["help"],
        )
        for name in COMMON
    ]
    return table(("flag", "default", "what it does"), rows)


def default_words(name: str, field: str) -> str:
    """Default of a field for this method: that of its function, or what the trainer does when it is left out."""
    method, parameters = METHODS[name](), inspect.signature(METHODS[name]).parameters
    if field == "magnet_shrink" and "shrink" in parameters:
        return f"`{parameters['shrink'].default!r}`"
    if field in parameters and field != "opponent":
        return f"`{parameters[field].default}`"
    special: dict[str, Callable[[], str]] = {
        "opponent": lambda: f"`{method.opponent.role}`",
        "magnet_schedule": lambda: "`every`" if isinstance(method.magnet, EveryNUpdates) else "`adaptive`",
        "magnet_ema_rate": lambda: f"`{_preset_of_moving_average()}`",
        "magnet_shrink": lambda: f"`{AdaptiveMagnet().shrink}`",
        "num_opponents": lambda: "`num_generations`",
        "sample_from": lambda: f"`{method.sample_from}`",
        "critic_learning_rate": lambda: f"`{CRITIC_LEARNING_RATE:g}`",
        "critic_model": lambda: "a copy of the policy",
    }
    return special[field]() if field in special else "–"


def _preset_of_moving_average() -> float:
    with tempfile.TemporaryDirectory() as folder:
        config = NashConfig(output_dir=folder, magnet_schedule="ema", use_cpu=True, report_to="none")
        return cast(Ema, config.build_method().magnet).ema_rate


def convention_sentences(method: Method) -> list[str]:
    """How this library counts what papers count in different ways."""
    objective = method.sampled_objective
    average = getattr(objective, "token_average", False)
    tokens = "The log-probability of a response is the sum over its tokens, the end-of-sequence token included."
    if hasattr(objective, "token_average"):
        tokens = (
            f"The loss of a response is {'averaged' if average else 'summed'} over its tokens; `token_average` is the"
            " setting."
        )
    sentences = [tokens]
    if objective.needs_reward:
        sentences.append("The judge's score is the reward as it stands: it is not centred, and β is in its units.")
    elif objective.compares_group:
        hard = getattr(objective, "hard_labels", False) or getattr(objective, "target", "") == "winner"
        sentences.append(
            f"Labels of pairs are {'hard, the likelier winner' if hard else 'soft, the win probability itself'}."
        )
    else:
        sentences.append(
            "Win probabilities are used as they are (soft labels), averaged over the opponents, and not divided by the"
            " group's standard deviation."
        )
    return [*sentences, PAPER_SETTINGS[method.name]]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
