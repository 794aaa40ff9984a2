"""The configuration of a comparison: what it may say, and what is refused before anything runs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from magnetar.cli.comparison.config import load_comparison, slug
from magnetar.cli.comparison.evaluate import _notes, held_out_prompts
from magnetar.cli.comparison.plan import differences, plan_runs, selected_runs
from magnetar.cli.main import main
from magnetar.errors import ConfigError, DataError, JudgeError, MagnetarError
from magnetar.training.ledger import Budget

SETTINGS: dict[str, Any] = {
    "use_cpu": True,
    "num_generations": 4,
    "per_device_train_batch_size": 2,
    "report_to": "none",
}
KEYS: dict[str, Any] = {
    "output_dir": "out",
    "model": "demo",
    "dataset": "train.jsonl",
    "judge": "panel",
    "budget": {"comparisons": 100},
    "seeds": [0, 1],
    "settings": SETTINGS,
    "methods": {"mpo": {}, "no self-play": {"method": "mpo", "opponent": "reference"}},
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that writes a configuration with some keys changed; None leaves one out."""
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text("".join(json.dumps({"prompt": f"prompt {i}"}) + "\n" for i in range(20)))
    Path("held_out.jsonl").write_text("".join(json.dumps({"prompt": f"held out {i}"}) + "\n" for i in range(5)))

    def written(**changes: Any) -> Path:
        keys = {name: value for name, value in (KEYS | changes).items() if value is not None}
        Path("c.yaml").write_text(yaml.safe_dump(keys))
        return Path("c.yaml")

    return written


def test_every_method_has_a_run_for_each_seed(write: Any) -> None:
    config = load_comparison(write())
    runs = plan_runs(config)
    assert config.budget == Budget("comparisons", 100)
    assert [(run.label, run.seed, run.folder.name) for run in runs] == [
        ("mpo", 0, "mpo-seed0"),
        ("mpo", 1, "mpo-seed1"),
        ("no self-play", 0, "no-self-play-seed0"),
        ("no self-play", 1, "no-self-play-seed1"),
    ]
    options, args, model_config = runs[3].parsed()
    assert (options.model, options.judge, options.report, model_config.model_name_or_path) == (
        "demo",
        "panel",
        False,
        "demo",
    )
    assert (args.method, args.opponent, args.seed, args.max_comparisons) == ("mpo", "reference", 1, 100)
    assert args.output_dir == str(Path("out/runs/no-self-play-seed1"))
    # 2 prompts × 4 × 4 pairs an update: the fourth reaches 100; and 2 × 6 for self-play: the ninth.
    assert args.max_steps == 4
    assert runs[0].parsed()[1].max_steps == 9


@pytest.mark.parametrize(
    ("budget", "steps", "limits"),
    [
        ({"updates": 5}, (5, 10), (None, None)),
        # At least one token of each of 2 × 4 responses.
        ({"tokens": 80}, (10, 20), (None, 80)),
        ({"comparisons": 24}, (2, 4), (24, None)),
    ],
)
def test_the_stream_is_long_enough_for_the_budget(write: Any, budget: Any, steps: Any, limits: Any) -> None:
    methods = {"mpo": {}, "twice": {"method": "mpo", "inner_epochs": 2}}
    first, second = (
        run.parsed()[1] for run in plan_runs(load_comparison(write(budget=budget, methods=methods, seeds=[3])))
    )
    assert (first.max_steps, second.max_steps) == steps
    assert (first.max_comparisons, first.max_tokens) == limits


def test_a_label_may_be_the_name_of_a_method_in_papers(write: Any) -> None:
    methods = {"spo": {}, "onpo": {"method": "omwu"}, "ours": {"method": "online_ipo_2"}}
    runs = plan_runs(load_comparison(write(methods=methods, seeds=[0])))
    found = {run.label: run.parsed()[1].method for run in runs}
    assert found == {"spo": "mirror_descent", "onpo": "omwu", "ours": "online_ipo"}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"budjet": {"updates": 1}}, r"unknown field 'budjet'; did you mean 'budget'\?"),
    "missing key": ({"judge": None}, "judge is missing"),
    "two budgets": ({"budget": {"comparisons": 10, "tokens": 10}}, "comparisons and tokens, expected exactly one of"),
    "no budget": ({"budget": {}}, "budget names nothing, expected exactly one"),
    "budget without a unit": ({"budget": 100}, "budget is 100, expected exactly one"),
    "unknown unit": ({"budget": {"token": 100}}, r"unknown unit 'token'; did you mean 'tokens'\?"),
    "budget of nothing": ({"budget": {"updates": 0}}, "budget: updates is 0, expected at least 1"),
    "budget that is no number": ({"budget": {"updates": "many"}}, "budget: updates is 'many', expected an integer"),
    "no seeds": ({"seeds": []}, r"seeds is \[\], expected a list"),
    "one seed without a list": ({"seeds": 3}, "seeds is 3, expected a list"),
    "seed twice": ({"seeds": [1, 1]}, "expected different ones"),
    "no methods": ({"methods": {}}, "expected at least one label with its settings"),
    "unknown method as label": ({"methods": {"mpoo": {}}}, r"label 'mpoo' is no method's name.*did you mean 'mpo'"),
    "unknown method": ({"methods": {"ours": {"method": "mpoo"}}}, "methods: ours: .*unknown method 'mpoo'"),
    "label of another method": (
        {"methods": {"sppo": {"method": "mpo"}}},
        "'sppo' is the name of a method, but its runs",
    ),
    "labels with one folder": (
        {"methods": {"A b": {"method": "mpo"}, "a-B": {"method": "mpo"}}},
        "labels 'A b' and 'a-B' would share the folders a-b-seed",
    ),
    "label without letters": ({"methods": {"!!": {"method": "mpo"}}}, "neither letters nor digits"),
    "label of the reference": ({"methods": {"Reference": {"method": "mpo"}}}, "choose another"),
    "unknown setting for all": ({"settings": {"learning_rat": 1.0}}, "methods: mpo: .*did you mean 'learning_rate'"),
    "unknown setting of one": ({"methods": {"mpo": {"magnet_evry": 1}}}, "methods: mpo: .*'magnet_every'"),
    "setting of another method": ({"methods": {"mpo": {"kl_coef": 0.1}}}, "methods: mpo: "),
    "setting that the budget sets": ({"settings": {"max_steps": 3}}, "settings: max_steps is set by the budget"),
    "setting that seeds set": ({"methods": {"mpo": {"seed": 3}}}, "methods: mpo: seed is set by the key 'seeds'"),
    "method for all": ({"settings": {"method": "mpo"}}, "settings: method is set by the key 'methods'"),
    "unknown field of the evaluation": (
        {"evaluation": {"prompt": 5}},
        r"unknown field 'prompt'; did you mean 'prompts'\?",
    ),
    "too few prompts": ({"evaluation": {"prompts": 1}}, "evaluation: prompts is 1, expected at least 2"),
    "temperature of zero": ({"evaluation": {"temperature": 0}}, "evaluation: temperature is 0, expected a number"),
    "confidence in percent": ({"evaluation": {"confidence": 95}}, "evaluation: confidence is 95, expected a number"),
    "judge that does not exist": ({"judge": "pannel"}, "pannel"),
    "judge of the evaluation that does not exist": ({"eval_judge": "pannel"}, "pannel"),
    "rounds of unknown length": (
        {"budget": {"tokens": 100}, "methods": {"mpo": {"num_rounds": 2, "magnet_schedule": "round"}}},
        "nobody knows beforehand when a round ends",
    ),
    "learning rate over an unknown length": (
        {"budget": {"tokens": 100}, "methods": {"mpo": {"lr_scheduler_type": "linear"}}},
        "methods: mpo: lr_scheduler_type is 'linear'.*nobody knows beforehand how many steps",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_one_sentence_before_any_run(write: Any, case: str) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(MagnetarError, match=message) as refused:
        plan_runs(load_comparison(write(**changes)))
    assert isinstance(refused.value, (ConfigError, JudgeError))
    assert not Path("out").exists()


def test_all_settings_are_checked_before_the_first_run_starts(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(methods={"mpo": {}, "wrong": {"method": "mpo", "num_generations": 1}}, eval_prompts="held_out.jsonl")
    assert main(["compare", "--config", str(path)]) == 2
    assert "methods: wrong: num_generations is 1" in capsys.readouterr().err
    assert not Path("out").exists()


def test_prompts_that_are_trained_on_are_no_held_out_prompts(write: Any) -> None:
    Path("mixed.jsonl").write_text(Path("held_out.jsonl").read_text() + '{"prompt": "prompt 7"}\n')
    config = load_comparison(write(eval_prompts="mixed.jsonl"))
    with pytest.raises(DataError, match=r"1 of 6 prompts of eval_prompts are in the dataset.*'prompt 7'"):
        held_out_prompts(config, plan_runs(config)[0].parsed()[1])


def test_held_out_prompts_must_be_named(write: Any) -> None:
    config = load_comparison(write())
    with pytest.raises(DataError, match="eval_prompts is missing"):
        held_out_prompts(config, plan_runs(config)[0].parsed()[1])


def test_a_part_of_the_runs_can_be_chosen(write: Any) -> None:
    runs = plan_runs(load_comparison(write()))
    assert [run.name for run in selected_runs(runs, ["no self-play"], [1])] == ["no self-play, seed 1"]
    assert selected_runs(runs, None, None) == runs
    with pytest.raises(ConfigError, match=r"unknown label 'no-self-play'; did you mean 'no self-play'\?"):
        selected_runs(runs, ["no-self-play"], None)
    with pytest.raises(ConfigError, match=r"--seed is 7, expected one of the config's seeds: \[0, 1\]"):
        selected_runs(runs, None, [7])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--no-evaluation", "--evaluate-only"], "leave nothing to do"),
        (["--only", "nobody"], "unknown label 'nobody'"),
        (["--sed", "1"], r"did you mean 'seed'\?"),
    ],
)
def test_flags_that_cannot_work_are_refused(
    write: Any, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    path = write(eval_prompts="held_out.jsonl")
    assert main(["compare", "--config", str(path), *flags]) == 2
    assert message.replace("\\", "") in capsys.readouterr().err


def test_a_judge_that_only_compares_is_refused_for_a_method_that_needs_scores(write: Any) -> None:
    config = load_comparison(write(methods={"mpo": {}, "ppo": {}}))
    with pytest.raises(JudgeError, match=r"methods: ppo: method 'ppo' maximises one score per response.*judge 'panel'"):
        plan_runs(config)


def test_differences_name_what_matters_and_know_defaults() -> None:
    before = {"learning_rate": 0.1, "logging_steps": 1, "judge": {"kind": "python", "temperature": 1}}
    assert differences(before, {**before, "temperature": 1.0, "logging_steps": 5}) == []
    assert differences(before, {**before, "learning_rate": 0.2}) == ["learning_rate: 0.1 → 0.2"]
    assert differences(before, {**before, "judge": "panel"}) == [f"judge: {before['judge']!r} → 'panel'"]
    assert differences({**before, "num_generations": 4}, before) == ["num_generations: 4 → 8"]


@pytest.mark.parametrize(
    ("label", "folder"), [("No self-play", "no-self-play"), ("η = 0.1!", "0-1"), ("MPO_RT", "mpo-rt")]
)
def test_labels_become_names_of_folders(label: str, folder: str) -> None:
    assert slug(label) == folder


def test_the_configurations_of_docs_and_benchmarks_are_valid(write: Any) -> None:
    root = Path(__file__).parents[3]
    page = (root / "docs" / "comparing.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    real = (root / "benchmarks" / "hh_methods.yaml").read_text(encoding="utf-8")
    for text in (example, real):
        # The judges that they name are not in this folder; runs need a device that CI lacks.
        config = yaml.safe_load(text) | {"judge": "reward:an/other", "eval_judge": None}
        config["settings"] |= {"use_cpu": True}
        runs = plan_runs(load_comparison(write(**config)))
        assert len(runs) == len(config["methods"]) * len(config["seeds"])
        for run in runs:
            assert run.parsed()[1].max_comparisons == 960


def test_a_label_twice_in_the_file_is_refused(write: Any) -> None:
    path = write()
    path.write_text(path.read_text() + "methods:\n  mpo: {}\n")
    with pytest.raises(ConfigError, match="'methods' twice"):
        load_comparison(path)
    path = write()
    path.write_text(path.read_text().replace("  mpo: {}\n", "  mpo: {}\n  mpo: {step_size: 1.0}\n"))
    with pytest.raises(ConfigError, match="'mpo' twice"):
        load_comparison(path)


def test_a_reader_is_told_when_the_judge_saw_beginnings_or_is_the_one_learned_from(write: Any) -> None:
    another = load_comparison(write(eval_judge="matrix:another.json"))
    assert _notes([], another, {"mpo": 0.4, "reference": 0.5}) == []
    (note,) = _notes([], another, {"mpo": 0.4, "reference": 0.9})
    assert note.startswith("40% to 90% of a line's responses were cut off")
    for same in (None, "panel"):
        (note,) = _notes([], load_comparison(write(eval_judge=same)), {"mpo": 0.4, "reference": 0.5})
        assert "learnt from" in note
