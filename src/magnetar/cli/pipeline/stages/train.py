"""Stage `train`: methods × seeds under one budget, as `magnetar compare` trains them, with the policy of each round."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from magnetar.cli.comparison.config import ComparisonConfig, comparison_config, slug
from magnetar.cli.pipeline.stages.training import NEUTRAL, go_on_or_replace
from magnetar.cli.pipeline.work import JUDGE_FORMS, Work
from magnetar.errors import ConfigError, MagnetarError, unknown_name
from magnetar.pipeline.plan import Product, Step
from magnetar.pipeline.references import references_in
from magnetar.training.snapshots import ROUND_FOLDER

if TYPE_CHECKING:
    from magnetar.training.config import NashConfig

__all__ = ["Trained", "run", "steps", "trained_methods"]

KEYS = ("model", "dataset", "dataset_split", "judge", "budget", "seeds", "settings", "methods")
SCORING = ("reward", "cost")
COMPARED = ("eval_prompts", "eval_judge", "eval_split", "eval_holdout")


class Trained:
    """What a step of training is called elsewhere: label, seed and rounds."""

    def __init__(self, label: str, seed: int, rounds: int) -> None:
        self.label, self.seed, self.rounds = label, seed, rounds


def steps(work: Work) -> list[Step]:
    """One step for each method and seed, all methods of one seed before the next seed."""
    config = _comparison(work)
    planned = [_settings(label, own, config, work) for label, own in config.methods.items()]
    members: dict[str, list[str]] = {}
    found = []
    for seed in config.seeds:
        for (label, _), (settings, args, data) in zip(config.methods.items(), planned, strict=True):
            step = f"train/{slug(label)}/seed-{seed}"
            rounds = args.num_rounds
            found.append(
                Step(
                    name=step,
                    stage="train",
                    folder=work.step_folder(step),
                    settings={**settings, "seed": seed},
                    uses=work.used(settings, f"train: {label}"),
                    data=data,
                    neutral=NEUTRAL,
                    defaults=_defaults(),
                    seeds={"seed": seed},
                    payload=Trained(label, seed, rounds),
                )
            )
            for name, path in _products(label, rounds):
                work.offer(f"{name}/seed-{seed}", Product(step, path, "model"))
                members.setdefault(name, []).append(f"{name}/seed-{seed}")
    work.groups.update({name: tuple(all_seeds) for name, all_seeds in members.items()})
    return found


def run(step: Step, work: Work, resume: bool) -> dict[str, Any]:
    """What `magnetar train` does, with the policy of each round kept."""
    from magnetar.cli.run_options import settings_run
    from magnetar.cli.train import run as train
    from magnetar.training.ledger import read_ledger
    from magnetar.training.snapshots import RoundSnapshots

    settings = {name: work.place(value) for name, value in step.settings.items() if name != "judge"}
    settings |= {"judge": work.judge(step.settings["judge"]), "output_dir": str(step.folder)}
    options, args, model_config = settings_run(settings)
    go_on_or_replace(args, step.folder, resume)
    train(options, args, model_config, prepare=lambda trainer: trainer.add_callback(RoundSnapshots(trainer)))
    ledger = read_ledger(step.folder)
    return {"label": step.payload.label, "seed": step.payload.seed, "rounds": step.payload.rounds, **ledger.to_dict()}


def trained_methods(found: list[Step]) -> dict[str, int]:
    """Labels with their number of rounds, in the order of the configuration."""
    return {step.payload.label: step.payload.rounds for step in found if isinstance(step.payload, Trained)}


def _comparison(work: Work) -> ComparisonConfig:
    own = dict(work.config.stages["train"])
    for key in own:
        if key not in KEYS:
            raise ConfigError(f"train: {unknown_name('field', key, KEYS)}")
    model = own.pop("model", "sft:model" if "sft" in work.config.stages else work.config.model)
    if any(reference.stage == "train" for reference in references_in([model])):
        raise ConfigError(f"train: model is {model!r}, which this stage makes itself; start from another model")
    work.check_form(model, ("model",), "train: model")
    _refuse_comparing(own)
    settings = work.settings_for(_defaults(), own.pop("settings", None) or {})
    return comparison_config(
        {"output_dir": str(work.config.output_dir), **own, "model": model, "settings": settings}, "train"
    )


def _refuse_comparing(own: Mapping[str, Any]) -> None:
    """Refuse settings that say how policies are compared."""
    methods = own.get("methods")
    for place in (own.get("settings"), *(methods.values() if isinstance(methods, Mapping) else ())):
        for key in COMPARED:
            if isinstance(place, Mapping) and key in place:
                raise ConfigError(f"train: {key} is set, but the stage 'evaluate' compares policies; name it there")


def _settings(
    label: str, own: Mapping[str, Any], config: ComparisonConfig, work: Work
) -> "tuple[dict[str, Any], NashConfig, dict[str, str]]":
    """Settings of a method's runs, parsed, and what they read from elsewhere."""
    from magnetar.cli.comparison.plan import settings_of_label
    from magnetar.cli.run_options import settings_run

    where = f"train: {label}"
    judge = own.get("judge", config.judge)
    learned = bool(references_in({"judge": judge}))
    try:
        settings = settings_of_label(label, own, config, judge_is_there=not learned)
    except MagnetarError as error:
        raise type(error)(f"train: {error}") from error
    work.check_form(config.dataset, ("data",), "train: dataset")
    _, args, _ = settings_run({**settings, "output_dir": str(work.config.output_dir)})
    if learned:
        work.check_form(judge, JUDGE_FORMS, f"{where}: judge")
        form = next(iter(work.used({"judge": judge}, where).values())).form
        if args.build_method().sampled_objective.needs_reward and form not in SCORING:
            raise ConfigError(
                f"{where}: method {args.method!r} maximises a reward, and {judge!r} is of kind {form!r}, which gives a "
                "response no score; train a preference model of kind reward or cost, and give it as the method's judge"
            )
    data = work.judge_contents(judge, "the judge")
    if not references_in({"value": config.dataset}):
        data[config.dataset] = work.contents.dataset(config.dataset)
    if not references_in({"value": config.model}):
        data[f"model {config.model}"] = work.contents.model(config.model, settings.get("model_revision"))
    critic = settings.get("critic_model")
    if critic is not None and not references_in({"value": critic}):
        data[f"critic {critic}"] = work.contents.model(str(critic))
    return settings, args, data


def _products(label: str, rounds: int) -> list[tuple[str, str]]:
    """Names that a method's policies have, and where they are below a run's folder."""
    before = [(f"train:{label}/round-{number}", f"{ROUND_FOLDER}/round-{number}") for number in range(1, rounds)]
    final = [(f"train:{label}/round-{rounds}", "")] if rounds > 1 else []
    return [(f"train:{label}", ""), *before, *final]


def _defaults() -> dict[str, Any]:
    from magnetar.cli.comparison.plan import default_settings

    return default_settings()
