"""Options of the commands that train: flags and YAML through TRL's parser, checked before loading."""

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

import yaml
from trl import ModelConfig, TrlParser  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

from magnetar.errors import ConfigError, unknown_name
from magnetar.judges.kinds import JUDGE_KINDS
from magnetar.training.config import NashConfig

__all__ = [
    "RunOptions",
    "Settings",
    "as_number",
    "check_complete",
    "load_yaml",
    "parse_run",
    "parse_settings",
    "read_yaml",
    "settings_run",
]

REFUSALS = (
    (r"Truthy value expected: got (.*) but expected", "true or false"),
    (r"invalid int value: '(.*)'", "a whole number"),
    (r"invalid float value: '(.*)'", "a number"),
)
"""What argparse says of a value that it cannot read, and what it should be."""


@dataclass
class RunOptions:
    """What to train on what, and how the result is measured."""

    model: str | None = field(default=None, metadata={"help": "Hub id or folder of the model, or 'demo'."})
    dataset: str | None = field(default=None, metadata={"help": "Prompts: Hub id, file, folder, or 'demo'."})
    dataset_split: str | None = field(default=None, metadata={"help": "Split of the dataset; 'train' if it has one."})
    judge: str | None = field(
        default=None,
        metadata={"help": f"Judge: {', '.join(kind.form for kind in JUDGE_KINDS.values())}; see docs/judges.md."},
    )
    eval_prompts: str | None = field(
        default=None, metadata={"help": "Held-out prompts; by default some of the dataset are kept back."}
    )
    eval_split: str | None = field(default=None, metadata={"help": "Split of the held-out prompts."})
    eval_holdout: int = field(
        default=64, metadata={"help": "Prompts kept back from the dataset when eval_prompts is not given; 0 for none."}
    )
    eval_judge: str | None = field(
        default=None, metadata={"help": "Judge of the evaluation; the training judge if none."}
    )
    judge_flip_share: float | None = field(
        default=None,
        metadata={"help": "Have the judge answer this share of the pairs the wrong way round, to test robustness."},
    )
    judge_flip_seed: int = field(default=0, metadata={"help": "Which pairs these are."})
    limit: int | None = field(default=None, metadata={"help": "Use only this many prompts, drawn with the seed."})
    report: bool = field(default=True, metadata={"help": "Evaluate at the end and write report.html."})


def parse_run(
    argv: list[str], defaults: Mapping[str, Any] | None = None, command: str = "train"
) -> tuple[RunOptions, NashConfig, ModelConfig]:
    """Read flags and ``--config FILE.yaml``; flags win over the file, the file over ``defaults``.

    Args:
        argv: Command-line arguments.
        defaults: Values to start from, by field name.
        command: Name of the command, for messages.

    Returns:
        Options, trainer settings, model settings (TRL's `ModelConfig`: dtype, LoRA).

    Raises:
        ConfigError: A file that is no YAML mapping, an unknown field or flag, a value that cannot work, or a missing
            model, dataset, judge or output_dir.
    """
    kinds = (RunOptions, NashConfig, ModelConfig)
    parsed = parse_settings(kinds, argv, defaults, command=command, mappings=("judge", "eval_judge"))
    options, args, model_config = parsed.values
    # A judge with options is a mapping, which only YAML can say; a flag still wins.
    for name, value in parsed.mappings.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    check_complete(options, model_config, parsed.given, ("model", "dataset", "judge"))
    model_config.model_name_or_path = options.model
    return options, args, model_config


def settings_run(settings: Mapping[str, Any]) -> tuple[RunOptions, NashConfig, ModelConfig]:
    """The run that settings describe, as `parse_run` reads them from a file.

    Args:
        settings: Values by field name, as YAML gives them.

    Returns:
        As `parse_run`.

    Raises:
        ConfigError: As `parse_run`.
    """
    return parse_run([], settings)


@dataclass(frozen=True)
class Settings:
    """What flags, a YAML file and defaults say together.

    Attributes:
        values: One object of each of the dataclasses asked for.
        mappings: Fields that were given as mappings, which no flag can say.
        given: Names of the fields that were given at all.
    """

    values: Any
    mappings: Mapping[str, Any]
    given: Set[str]


def parse_settings(
    kinds: tuple[type, ...],
    argv: list[str],
    defaults: Mapping[str, Any] | None = None,
    *,
    command: str,
    mappings: tuple[str, ...] = (),
) -> Settings:
    """Read dataclasses from flags and ``--config FILE.yaml``; flags win over the file, the file over ``defaults``.

    Args:
        kinds: The dataclasses.
        argv: Command-line arguments.
        defaults: Values to start from, by field name.
        command: Name of the command, for messages.
        mappings: Fields that may be mappings in the file.

    Raises:
        ConfigError: A file that is no YAML mapping, an unknown field or flag, or a value that cannot work.
    """

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{_in_our_words(message)} (magnetar {command} --help lists all)")

    parser = TrlParser(kinds, prog=f"magnetar {command}", allow_abbrev=False)  # type: ignore[arg-type]
    parser.error = refuse  # pyright: ignore[reportAttributeAccessIssue]  # one sentence, without the usage of pages
    known = {f.name for kind in kinds for f in fields(kind)}
    settings = dict(defaults or {})
    for key in settings:
        if key not in known:
            raise ConfigError(_nearest(str(key), known, command))
    rest = list(argv)
    path = _take_config_flag(rest)
    if path is not None:
        settings |= read_yaml(path, known, command)
    _check_flags(rest, known, command)
    found = {name: settings.pop(name) for name in mappings if isinstance(settings.get(name), Mapping)}
    parser.set_defaults_with_config(**settings)
    try:
        values = parser.parse_args_into_dataclasses(args=rest)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{error}") from error
    given = {name for name, value in settings.items() if value is not None} | set(found) | set(_flag_names(rest))
    return Settings(values, found, given)


def _in_our_words(message: str) -> str:
    """What argparse says of a value, with the field's name, its value and what was expected."""
    found = re.fullmatch(r"argument --(\w+)\S*: (.*)", message, re.DOTALL)
    if found is None:
        return message
    name, said = found.groups()
    for pattern, expected in REFUSALS:
        if value := re.match(pattern, said):
            return f"{name} is {value[1]!r}, expected {expected}"
    return f"{name}: {said}"


def check_complete(options: Any, model_config: ModelConfig, given: Set[str], needed: tuple[str, ...]) -> None:
    """Check that everything needed was given, and settle the two names of the model.

    Args:
        options: With the fields ``needed``; its ``model`` is set.
        model_config: TRL's model settings.
        given: Names of the fields that were given.
        needed: Fields that may not be None.

    Raises:
        ConfigError: Something is missing, or two names of the model disagree.
    """
    _settle_model(options, model_config, given=given)
    for name in needed:
        if getattr(options, name) is None:
            raise ConfigError(f"{name} is missing; give --{name} or put it into the file of --config")
    # transformers fills in a folder of its own, so what was given is looked at, not what came out.
    if "output_dir" not in given:
        raise ConfigError("output_dir is missing; give --output_dir DIR or put it into the file of --config")


def _settle_model(options: Any, model_config: ModelConfig, given: Set[str]) -> None:
    """Take TRL's name for the model too, and refuse what TRL's model settings offer and nothing here would do."""
    named = model_config.model_name_or_path if "model_name_or_path" in given else None
    if named is not None and options.model is not None and named != options.model:
        raise ConfigError(
            f"model is {options.model!r} and model_name_or_path is {named!r}, which are two names of one setting; "
            "give one of them"
        )
    options.model = options.model or named
    for name in ("load_in_4bit", "load_in_8bit"):
        if getattr(model_config, name):
            raise ConfigError(
                f"{name} is set, but quantised base models are not supported; remove it and save memory with "
                "dtype=bfloat16 and use_peft"
            )


class _StrictLoader(yaml.SafeLoader):
    """YAML's own loader keeps the last of two equal keys without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if isinstance(key, str) and key in seen and key != "<<":
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} twice, the second time in line {line}")
            seen.add(key if isinstance(key, str) else id(key_node))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, known: set[str], command: str = "train") -> dict[str, Any]:
    """Read settings from a YAML file.

    Raises:
        ConfigError: Missing, no YAML, no mapping, or an unknown key (named with the nearest known one).
    """
    settings = load_yaml(path)
    for key in settings:
        if key not in known:
            raise ConfigError(f"config file {path}: {_nearest(str(key), known, command)}")
    # YAML reads 1e-5 as text; numbers in text are numbers here.
    return {key: as_number(value) if isinstance(value, str) else value for key, value in settings.items()}


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping as it is; a key that stands twice is an error.

    Raises:
        ConfigError: Missing, no YAML, or no mapping.
    """
    if not path.is_file():
        raise ConfigError(f"config file {path} does not exist")
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} is not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"config file {path} holds a {type(settings).__name__}, expected a mapping of field: value")
    return settings


def _take_config_flag(rest: list[str]) -> Path | None:
    for index, flag in enumerate(rest):
        if flag == "--config":
            if index + 1 == len(rest):
                raise ConfigError("--config needs a file: --config FILE.yaml")
            path = Path(rest[index + 1])
            del rest[index : index + 2]
            return path
        if flag.startswith("--config="):
            del rest[index]
            return Path(flag.split("=", 1)[1])
    return None


def _check_flags(rest: list[str], known: set[str], command: str) -> None:
    for name in _flag_names(rest):
        if name != "help" and name not in known and not (name.startswith("no_") and name[3:] in known):
            raise ConfigError(_nearest(name, known, command))


def _flag_names(rest: list[str]) -> list[str]:
    return [flag[2:].split("=", 1)[0].replace("-", "_") for flag in rest if flag.startswith("--")]


def _nearest(name: str, known: set[str], command: str) -> str:
    """The nearest names only: the whole list has two hundred."""
    message = unknown_name("field", name, known)
    return message.split("known: ")[0].rstrip() + f" (magnetar {command} --help lists all)"


def as_number(text: str) -> Any:
    """A number where a text is one: YAML reads 1e-5 as text."""
    try:
        return float(text) if any(c in text for c in ".eE") and text[:1] in "+-.0123456789" else text
    except ValueError:
        return text
