"""What the documentation shows works: Python is run, commands and settings are read by the real parsers."""

import contextlib
import io
import itertools
import json
import re
import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import commands_in, here_documents, problem_with, problem_with_mention
from documented_pages import PAGES, ROOT, Block, blocks_of, name_of, without_code
from workshop import MODEL

from magnetar.judges import parse_judge_spec

Account = tuple[Counter[str], list[str]]

LONGEST_LINK = 60  # letters between a block and what it prints, such as "prints"
# Minutes on a busy core: the log's search, the embedded panel's models, a network that is trained.
SLOW = (
    "docs/log.md",
    "docs/judges/language_models.md",
    "docs/judges/evaluation.md",
    "docs/judges/panels.md",
    "docs/sampled_feedback.md",
)
SHELLS = ("sh", "bash", "console")
INLINE = re.compile(r"(?<!`)`(magnetar [a-z][^`]*)`(?!`)")


def with_blocks(*languages: str) -> list[Any]:
    """The pages that have such blocks."""
    chosen = [page for page in PAGES if any(block.language in languages for block in blocks_of(page))]
    slow = SLOW if languages == ("python",) else ()
    return [pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] * (name_of(page) in slow)) for page in chosen]


def to_run(page: Path, languages: tuple[str, ...], account: Account, kind: str) -> list[Block]:
    """The blocks that are not marked; all are entered into the account."""
    ran, not_run = account
    found = [block for block in blocks_of(page) if block.language in languages]
    not_run += [f"{block} ({block.language}): {block.not_run}" for block in found if block.not_run]
    chosen = [block for block in found if not block.not_run]
    ran[kind] += len(chosen)
    return chosen


def run(block: Block, namespace: dict[str, Any]) -> str:
    """Run a block; what it prints."""
    code = compile("\n" * block.line + textwrap.dedent(block.text), str(block.page), "exec", dont_inherit=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    return printed.getvalue()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of packages among themselves; a reader sees them too
@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_runs_and_prints_what_the_page_says(page: Path, workshop: Path, account: Account) -> None:
    """The blocks of a page run one after another, as a reader would type them; `text` behind one is what it prints."""
    chosen = to_run(page, ("python",), account, "Python blocks run")
    for block in blocks_of(page):
        for name, text in here_documents(block.text).items():
            (workshop / name).write_text(text, encoding="utf-8")
        if block.language == "yaml" and block.text.startswith("kind: panel"):
            (workshop / "panel.yaml").write_text(block.text, encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "documentation"}
    printed: str | None = None
    for block in blocks_of(page):
        if block in chosen:
            printed = run(block, namespace)
        elif block.language == "text" and printed is not None and len(block.before.strip()) <= LONGEST_LINK:
            assert printed == block.text, f"{block} is not what the block before it prints"
            account[0]["outputs compared"] += 1
            printed = None
        else:
            printed = None


@pytest.mark.parametrize("page", with_blocks(*SHELLS))
def test_commands_are_read_by_the_real_parsers(page: Path, workshop: Path, account: Account) -> None:
    prepare_settings(workshop)
    problems = []
    for block in to_run(page, SHELLS, account, "shell blocks read"):
        for name, text in here_documents(block.text).items():
            (workshop / name).write_text(text, encoding="utf-8")
        for words in commands_in(block.text):
            problem = problem_with(words) or problem_with_judges(words)
            account[0]["commands read"] += 1
            if problem:
                problems.append(f"{block}: {' '.join(words)}\n    {problem}")
    assert not problems, "\n".join(problems)


def test_commands_within_sentences_are_read_by_the_real_parsers(workshop: Path, account: Account) -> None:
    """Whole commands only: one with a placeholder (CAPITALS or …) or without options is a way of speaking."""
    prepare_settings(workshop)
    problems = []
    for page in PAGES:
        text = re.sub(r"^(```+).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for command in INLINE.findall(text):
            if "--" not in command or "…" in command or re.search(r"\b[A-Z]{3,}\b", command):
                continue
            account[0]["commands read"] += 1
            (words,) = commands_in(command.replace("\n", " "))
            problem = problem_with_mention(words)
            if problem:
                problems.append(f"{name_of(page)}: {command}\n    {problem}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("page", with_blocks("yaml", "json"))
def test_settings_pass_the_real_checks(page: Path, workshop: Path, account: Account) -> None:
    for block in to_run(page, ("yaml",), account, "YAML blocks checked"):
        check_settings(block, workshop)
    for block in to_run(page, ("json",), account, "JSON blocks checked"):
        for line in block.text.splitlines():
            json.loads(line)


def check_settings(block: Block, workshop: Path) -> None:
    """Let whatever reads such a file read it; a kind that nobody knows needs a line here."""
    settings = yaml.safe_load(block.text)
    if "budget" in settings and "methods" in settings:
        check_comparison(block.text, workshop)
    elif {"policies", "prompts"} <= settings.keys():
        check_suite(block.text, workshop)
    elif {"output_dir", "model", "train"} <= settings.keys():
        from magnetar.cli.pipeline.config import pipeline_config

        pipeline_config(settings)
    elif settings.keys() == {"attacks"}:
        from magnetar.evaluation.suite.attack_config import read_attacks

        assert read_attacks(settings["attacks"], {"policy": ["model"]}, costs_asked=True) is not None
    elif "task" in settings:
        pytest.importorskip("lm_eval.api.task").TaskConfig(**settings)
    elif isinstance(settings.get("judge"), Mapping) and len(settings) == 1:
        parse_judge_spec(settings["judge"])
    elif "kind" in settings:
        parse_judge_spec(settings)
    elif {"user", "choices"} <= settings.keys():
        check_template(block.text, workshop)
    else:
        pytest.fail(f"{block}: nobody here reads a YAML file with the keys {', '.join(settings)}; see check_settings")


def check_comparison(text: str, workshop: Path) -> None:
    from magnetar.cli.comparison.config import load_comparison
    from magnetar.cli.comparison.plan import plan_runs

    (workshop / "checked.yaml").write_text(text, encoding="utf-8")
    config = load_comparison(workshop / "checked.yaml")
    for planned in plan_runs(config):
        planned.parsed()
    for spec in (config.judge, config.eval_judge):
        if spec is not None:
            parse_judge_spec(spec)


def check_suite(text: str, workshop: Path) -> None:
    from magnetar.cli.run_options import read_yaml
    from magnetar.evaluation.suite.config import KEYS, SuiteConfig

    for name in re.findall(r"\bruns/[\w.-]+", text):
        if not (workshop / name).exists():
            (workshop / name).symlink_to(workshop / MODEL)
    (workshop / "suite.yaml").write_text(text, encoding="utf-8")
    SuiteConfig.from_dict(read_yaml(workshop / "suite.yaml", set(KEYS), "eval"))


def check_template(text: str, workshop: Path) -> None:
    from magnetar.judges.language_model.templates import load_template

    (workshop / "template.yaml").write_text(text, encoding="utf-8")
    load_template(str(workshop / "template.yaml"))


def prepare_settings(workshop: Path) -> None:
    """The files of settings that pages tell their readers to have."""
    text = (ROOT / "docs" / "comparing.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n(output_dir.*?)```", text, re.DOTALL)
    assert found is not None
    (workshop / "comparison.yaml").write_text(found[1], encoding="utf-8")
    run_settings = {"model": "demo", "dataset": "demo", "judge": "panel", "output_dir": "runs/settings"}
    (workshop / "run.yaml").write_text(yaml.safe_dump(run_settings), encoding="utf-8")
    (workshop / "judge.yaml").write_text("kind: llm\nmodel: demo\n", encoding="utf-8")
    (workshop / "panel.yaml").write_text("kind: panel\n", encoding="utf-8")


def problem_with_judges(words: list[str]) -> str | None:
    """What is wrong with a judge that a command names; None if nothing is."""
    for flag, value in itertools.pairwise(words):
        if flag in ("--judge", "--eval_judge", "--against") and value != "labels":
            try:
                parse_judge_spec(value)
            except Exception as error:
                return str(error)
    return None


def test_the_marks_of_blocks_that_are_not_run_are_read() -> None:
    """A mark that is misspelt would be passed over in silence, and its block run or, worse, its reason lost."""
    for page in PAGES:
        comments = re.findall(r"<!--\s*skip.*?-->", without_code(page.read_text(encoding="utf-8")))
        marked = [block for block in blocks_of(page) if block.not_run]
        assert len(comments) == len(marked), f"{name_of(page)}: {len(comments)} marks for {len(marked)} blocks"
