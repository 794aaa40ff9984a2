"""Stage `data`: read, checked and split once, so that what is judged by is never what was learned from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnetar.cli.pipeline.work import Work
from magnetar.errors import ConfigError, DataError, checked_integer, unknown_name
from magnetar.pipeline.digests import LOGS
from magnetar.pipeline.plan import Product, Step
from magnetar.pipeline.references import parse_reference

__all__ = ["run", "steps"]

OF_SOURCE = ("split", "label", "folder", "column")
"""What can be said of each source, or of all together."""
KEYS = ("source", *OF_SOURCE, "kind", "parts", "seed", "stratified", "signs", "limit")
KINDS = ("pairs", "prompts", "demonstrations")
SIGNS = "preferred"


def steps(work: Work) -> list[Step]:
    """One step for each dataset; its parts are ``data:NAME/PART``."""
    found = []
    for name, given in work.config.stages["data"].items():
        own = dict(given) if isinstance(given, Mapping) else {"source": given}
        where = f"data: {name}"
        _check(own, where)
        sources = _sources(own, where)
        step = f"data/{name}"
        parts = own.get("parts", {"all": "rest"})
        found.append(
            Step(
                name=step,
                stage="data",
                folder=work.step_folder(step),
                settings={**own, "parts": [[part, size] for part, size in parts.items()]},  # their order matters
                data=dict(_content(source, work) for source in sources),
                neutral=("kind",) if own.get("kind") is None else (),
                seeds={"split": own.get("seed", 0)},
                defaults={"seed": 0, "stratified": False},
            )
        )
        for part in parts:
            work.offer(f"data:{name}/{part}", Product(step, f"{part}.jsonl", "data"))
        if list(parts) == ["all"]:
            work.offer(f"data:{name}", Product(step, "all.jsonl", "data"))
    return found


def run(step: Step, work: Work, resume: bool) -> dict[str, Any]:
    """Read the sources, split them, and write a file of each part."""
    from datasets import concatenate_datasets

    from magnetar.data.parts import split_parts

    del resume, work  # it is quick
    settings = step.settings
    pieces = [_read(source, settings) for source in _sources(settings, step.name)]
    shared = [column for column in pieces[0].column_names if all(column in piece.column_names for piece in pieces)]
    rows = concatenate_datasets([piece.select_columns(shared) for piece in pieces])
    if settings.get("limit") is not None and settings["limit"] < len(rows):
        rows = rows.shuffle(seed=settings.get("seed", 0)).select(range(settings["limit"]))
    parts = split_parts(
        rows, dict(settings["parts"]), settings.get("seed", 0), stratified=bool(settings.get("stratified", False))
    )
    step.folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in part]
        (step.folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {"rows": len(rows), **{name: len(part) for name, part in parts.items()}}


def _check(own: dict[str, Any], where: str) -> None:
    from magnetar.data.parts import check_parts

    for key in own:
        if key not in KEYS:
            raise ConfigError(f"{where}: {unknown_name('field', key, KEYS)}")
    if own.get("kind") not in (None, *KINDS):
        raise ConfigError(f"{where}: {unknown_name('kind', str(own['kind']), KINDS)}")
    if own.get("signs") not in (None, SIGNS):
        raise ConfigError(
            f"{where}: signs is {own['signs']!r}, expected 'preferred' (the preferred response counts as safe, the "
            "other as unsafe) or nothing"
        )
    if not isinstance(own.get("stratified", False), bool):
        raise ConfigError(f"{where}: stratified is {own['stratified']!r}, expected true or false")
    checked_integer(f"{where}: seed", own.get("seed", 0), 0)
    if own.get("limit") is not None:
        checked_integer(f"{where}: limit", own["limit"], 2)
    parts = own.get("parts", {"all": "rest"})
    if not isinstance(parts, Mapping):
        raise ConfigError(f"{where}: parts is {parts!r}, expected a mapping of name: size")
    for part in parts:
        if not str(part) or "/" in str(part) or str(part).startswith("."):
            raise ConfigError(f"{where}: part {part!r} is no name of a file")
        if f"{part}.jsonl" in LOGS or "checkpoint-" in str(part):
            raise ConfigError(
                f"{where}: a part cannot be called {part!r}, which is the name of what training leaves behind; choose "
                "another"
            )
    try:
        check_parts(parts, f"{where}: parts")
    except DataError as error:
        raise ConfigError(str(error)) from error


def _sources(own: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The datasets that are read, each with its split and label."""
    given = own.get("source")
    entries = given if isinstance(given, list) else [given]
    found = []
    for entry in entries:
        source = dict(entry) if isinstance(entry, Mapping) else {"dataset": entry}
        for key in source:
            if key not in ("dataset", *OF_SOURCE):
                raise ConfigError(f"{where}: source: {unknown_name('field', key, ('dataset', *OF_SOURCE))}")
        if not isinstance(source.get("dataset"), str):
            raise ConfigError(
                f"{where}: source is {source.get('dataset')!r}, expected a Hub id, a file or a folder; put it into the "
                f"file, or give --set data.{where.removeprefix('data: ').removeprefix('data/')}.source=FILE"
            )
        if parse_reference(source["dataset"]) is not None:
            raise ConfigError(
                f"{where}: source is {source['dataset']!r}, but datasets are not made of one another; name its source, "
                "or make another part of that dataset"
            )
        source = {**{key: own.get(key) for key in OF_SOURCE}, **source}
        for key in OF_SOURCE:
            if source[key] is not None and not isinstance(source[key], str):
                raise ConfigError(f"{where}: {key} is {source[key]!r}, expected text")
        if source["column"] is not None and own.get("kind") != "prompts":
            raise ConfigError(f"{where}: column is {source['column']!r}, which is for prompts; give kind: prompts too")
        found.append(source)
    return found


def _content(source: Mapping[str, Any], work: Work) -> tuple[str, str]:
    """A source's name, and the digest of what is read of it; of the Hub that is a revision of all of it."""
    name = str(source["dataset"])
    if source["folder"] is None:
        return name, work.contents.dataset(name)
    inside = f"{name}/{source['folder']}"
    return inside, work.contents.dataset(inside if Path(name).expanduser().is_dir() else name)


def _read(source: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    from magnetar.data import load_demonstrations, load_prompts, read_preferences
    from magnetar.data.demonstrations import kind_of
    from magnetar.data.sources import read_source

    raw = read_source(str(source["dataset"]), source["split"], folder=source["folder"])
    kind = settings.get("kind") or kind_of(raw.column_names)
    if kind == "prompts":
        return load_prompts(raw, prompt_column=source["column"] or "prompt")
    if kind == "demonstrations":
        return load_demonstrations(raw, label=source["label"])[0]
    signs = settings.get("signs")
    pairs, _ = read_preferences(raw, label=source["label"])
    return pairs if signs is None else _with_signs(pairs, str(source["dataset"]))


def _with_signs(pairs: Any, name: str) -> Any:
    """Signs of safety from the preferences alone: the zero of a cost is then where both are equally likely."""
    from datasets import Dataset

    if "first_safe" in pairs.column_names:
        raise DataError(f"signs is 'preferred', but {name!r} has signs of safety of its own; remove it")
    decided = [row for row in pairs if row["win_prob"] != 0.5]
    return Dataset.from_list(
        [{**row, "first_safe": row["win_prob"] > 0.5, "second_safe": row["win_prob"] < 0.5} for row in decided]
    )
