"""Stages that are commands of their own, with flags: settings become flags."""

import argparse
import contextlib
import io
from collections.abc import Callable, Mapping
from typing import Any

from magnetar.cli.pipeline.stages.policies import chosen_policies
from magnetar.cli.pipeline.work import Work
from magnetar.errors import ConfigError, MagnetarError
from magnetar.pipeline.plan import Step
from magnetar.pipeline.references import references_in

__all__ = ["checked_flags", "command_settings", "command_step", "flags"]

PLAYERS = ("policies", "proposers")  # keys that name policies


def command_settings(work: Work, stage: str, fixed: str, needed: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a stage that is a command, with a label for each seed of a policy.

    Args:
        work: Of the pipeline.
        stage: Key of the configuration.
        fixed: The command's flag that names what is measured, which the stage gives.
        needed: Keys that have to be there, each with an example.

    Raises:
        ConfigError: A key that the stage sets, one that is missing, or policies that cannot be.
    """
    own = dict(work.config.stages[stage])
    for key in (fixed, "output_dir"):
        if key in own:
            raise ConfigError(f"{stage}: {key} is set by the stage; name policies with the key 'policies'")
    for key, example in needed.items():
        if not own.get(key):
            raise ConfigError(f"{stage}: {key} is missing; name one, such as {example}")
    shared = {"dtype": work.config.settings["dtype"]} if "dtype" in work.config.settings else {}
    players = {
        key: spread_labels(chosen_policies(work, own.get(key), stage))
        for key in PLAYERS
        if key == "policies" or own.get(key)
    }
    return {**shared, **{key: value for key, value in own.items() if key not in PLAYERS}, **players}


def command_step(work: Work, stage: str, settings: Mapping[str, Any], datasets: tuple[str, ...]) -> Step:
    """The step of a stage that is a command; it keeps answers, and so goes on by itself.

    Args:
        work: Of the pipeline.
        stage: Key of the configuration, and name of the step.
        settings: Of `command_settings`, checked.
        datasets: Settings that name datasets, or folders of the command's own.
    """
    data = {}
    for key in datasets:
        if settings.get(key) and not references_in([settings[key]]):
            data[str(settings[key])] = work.contents.dataset(str(settings[key]))
    if settings.get("judge"):
        data |= work.judge_contents(settings["judge"], "the judge")
    for label, spec in {**settings["policies"], **settings.get("proposers", {})}.items():
        if not references_in([spec]):
            data[f"policy {label}"] = work.contents.policy(spec)
    return Step(
        name=stage,
        stage=stage,
        folder=work.step_folder(stage),
        settings=settings,
        uses=work.used(settings, stage),
        data=data,
        keeps=True,
        seeds={"seed": int(settings.get("seed", 0))},
    )


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line; null and false leave a flag out."""
    words: list[str] = []
    for name, value in settings.items():
        if value is None or value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words += [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]
    return words


def checked_flags(parse: Callable[[list[str]], argparse.Namespace], words: list[str], stage: str) -> argparse.Namespace:
    """Let a command parse its flags.

    Raises:
        ConfigError: It cannot; with what it says.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse(words)
    except MagnetarError as error:
        raise type(error)(f"{stage}: {error}") from error
    except SystemExit as error:
        told = said.getvalue().strip().splitlines()
        last = told[-1].split("error: ")[-1] if told else "these settings cannot be used"
        raise ConfigError(f"{stage}: {last}") from error


def spread_labels(policies: Mapping[str, list[Any]]) -> dict[str, Any]:
    """One label for each seed; labels name files there, so that spaces become hyphens."""
    found = {}
    for label, specs in policies.items():
        short = label.replace(" ", "-")
        for spec in specs:
            seed = str(spec).rsplit("/", 1)[-1]
            found[short if len(specs) == 1 else f"{short}-{seed}"] = spec
    return found
