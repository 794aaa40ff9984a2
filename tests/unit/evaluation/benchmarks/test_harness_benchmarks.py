"""General benchmarks on local tasks: figures against the model's own probabilities, clear errors, and clean resumes."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from magnetar.cli import benchmark
from magnetar.cli.main import main
from magnetar.errors import ConfigError, MissingDependencyError
from magnetar.evaluation.benchmarks import BenchmarkSettings, find_tasks, harness, run_benchmarks
from magnetar.evaluation.suite import read_suite
from unit.evaluation.conftest import tiny_model, tiny_tokenizer

ITEMS = [
    {"question": "a b c", "choices": ["d", "e", "f"], "answer": 0},
    {"question": "d e", "choices": ["a", "b", "c"], "answer": 2},
    {"question": "m n a", "choices": ["k l", "h", "g"], "answer": 1},
    {"question": "j k l m", "choices": ["a", "n", "b"], "answer": 1},
    {"question": "f g", "choices": ["h", "i", "j"], "answer": 0},
]
CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: "{data}"}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: choices
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 2.0}}
"""
GENERATION = """
task: words_continued
dataset_path: json
dataset_kwargs:
  data_files: {{test: "{data}"}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["n"], do_sample: false, max_gen_toks: 2}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
GROUP = """
group: words
task: [words_chosen, words_again]
aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: true}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "items.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in ITEMS), encoding="utf-8")
    for name in ("words_chosen", "words_again"):
        (folder / f"{name}.yaml").write_text(CHOICE.format(name=name, data=data), encoding="utf-8")
    (folder / "words_continued.yaml").write_text(GENERATION.format(data=data), encoding="utf-8")
    (folder / "words.yaml").write_text(GROUP, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def log_likelihood(model: Any, context: list[int], continuation: list[int]) -> float:
    """Of a continuation, by one pass over the whole text."""
    with torch.no_grad():
        logp = model(torch.tensor([context + continuation])).logits[0].float().log_softmax(-1)
    return sum(float(logp[len(context) + at - 1, token]) for at, token in enumerate(continuation))


def chosen(model: Any) -> list[int]:
    """The likeliest choice of each item."""
    tokenizer = tiny_tokenizer()
    found = []
    for item in ITEMS:
        context = tokenizer(str(item["question"]))["input_ids"]
        scores = [log_likelihood(model, context, tokenizer(text)["input_ids"]) for text in item["choices"]]  # type: ignore[attr-defined]
        found.append(scores.index(max(scores)))
    return found


def accuracy(model: Any) -> float:
    picks = chosen(model)
    return sum(pick == item["answer"] for pick, item in zip(picks, ITEMS, strict=True)) / len(ITEMS)


def measured(model: Any, folder: Path, *names: str, cache: Path | None = None, **settings: Any) -> Any:
    asked = BenchmarkSettings(names, include_path=str(folder), **settings)
    return run_benchmarks("A", model, tiny_tokenizer(), find_tasks(asked), asked, cache)


class TestOnTheHarness:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("lm_eval", reason="the LM Evaluation Harness is not installed (extra `benchmarks`)")

    @pytest.mark.parametrize("seed", range(2))
    def test_accuracy_is_that_of_the_models_own_probabilities(self, tasks: Path, seed: int) -> None:
        (record,) = measured(tiny_model(seed), tasks, "words_chosen")
        expected = accuracy(tiny_model(seed))
        assert (record.policy, record.task, record.metric) == ("A", "words_chosen", "acc")
        assert record.value == pytest.approx(expected) and record.samples == len(ITEMS)
        spread = (expected * (1 - expected) / (len(ITEMS) - 1)) ** 0.5
        assert record.standard_error == pytest.approx(spread)
        assert record.settings["version"] == 2.0 and record.settings["shots"] == 0

    def test_a_generated_answer_is_the_greedy_one(self, tasks: Path) -> None:
        model, tokenizer = tiny_model(1), tiny_tokenizer()
        right = 0
        for item in ITEMS:
            ids = tokenizer(str(item["question"]), return_tensors="pt")
            new = model.generate(**ids, max_new_tokens=2, do_sample=False)[0, ids["input_ids"].shape[1] :]  # type: ignore[union-attr]
            text = str(tokenizer.decode(new, skip_special_tokens=True)).split("n")[0]
            right += text == item["choices"][item["answer"]]  # type: ignore[index]
        (record,) = measured(model, tasks, "words_continued")
        assert record.metric == "exact_match" and record.value == pytest.approx(right / len(ITEMS))

    @pytest.mark.slow
    def test_groups_patterns_and_files_name_tasks(self, tasks: Path) -> None:
        of_group = measured(tiny_model(), tasks, "words")
        assert {record.task for record in of_group} == {"words", "words_chosen", "words_again"}
        assert len({record.value for record in of_group}) == 1
        assert [r.task for r in measured(tiny_model(), tasks, "words_*")] == [
            "words_again",
            "words_chosen",
            "words_continued",
        ]
        (record,) = measured(tiny_model(), tasks, str(tasks / "words_chosen.yaml"))
        assert record.value == of_group[0].value

    @pytest.mark.slow
    def test_a_limit_and_its_record(self, tasks: Path) -> None:
        (record,) = measured(tiny_model(), tasks, "words_chosen", limit=2)
        assert record.samples == 2 and record.settings["limit"] == 2

    def test_an_adapter_is_merged_and_measured_as_itself(self, tasks: Path) -> None:
        torch.manual_seed(0)
        adapted = get_peft_model(tiny_model(), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "lm_head"]))
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=1.0)
        picks = chosen(adapted)
        assert isinstance(adapted, PeftModel) and picks != chosen(tiny_model()), "the adapter should change something"
        expected = accuracy(adapted)
        (record,) = measured(adapted, tasks, "words_chosen")
        assert record.value == pytest.approx(expected)

    def test_what_was_answered_is_not_asked_again(
        self, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from lm_eval.models.huggingface import HFLM as Wrapped

        HFLM: Any = Wrapped
        passes: list[int] = []
        real = HFLM._model_call

        def counted(self: Any, inps: Any, *args: Any, **kwargs: Any) -> Any:
            passes.append(len(inps))
            return real(self, inps, *args, **kwargs)

        monkeypatch.setattr(HFLM, "_model_call", counted)
        first = measured(tiny_model(), tasks, "words_chosen", cache=tmp_path / "kept")
        assert passes
        passes.clear()
        assert measured(tiny_model(), tasks, "words_chosen", cache=tmp_path / "kept") == first and not passes

    def test_one_command_measures_and_extends_the_suite(
        self, tasks: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        flags = ["benchmark", "--tasks", "words_chosen", "--include_path", str(tasks), "--output_dir", str(tmp_path)]
        assert main([*flags, "--model", f"tiny={model_folder}"]) == 0
        assert "words_chosen" in capsys.readouterr().out
        suite = read_suite(tmp_path)
        assert [record.value for record in suite.benchmarks] == [pytest.approx(accuracy(tiny_model()))]
        assert suite.policies["tiny"].kind == "model" and "lm_eval" in suite.settings["benchmarks"]["harness"]
        assert main([*flags, "--model", f"tiny={model_folder}"]) == 0
        assert len(read_suite(tmp_path).benchmarks) == 1, "measured again it takes the place of the first"

    def test_a_scheduler_that_stops_the_command_is_heard(
        self, tasks: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(benchmark, "run_policy", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
        flags = ["--model", str(model_folder), "--tasks", "words_chosen", "--include_path", str(tasks)]
        assert main(["benchmark", *flags]) == 143
        assert "stopped; what is finished is kept" in capsys.readouterr().err

    def test_an_unknown_task_is_refused_before_the_model_is_loaded(
        self, tasks: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(benchmark, "run_policy", lambda *args: pytest.fail("the model was loaded"))
        manager = harness._manager(str(tasks), False)
        monkeypatch.setattr(harness, "_manager", lambda *args: manager)  # not the thousands of the harness itself
        flags = ["benchmark", "--model", str(model_folder), "--include_path", str(tasks)]
        assert main([*flags, "--tasks", "words_chosn"]) == 2
        assert "unknown task 'words_chosn'; did you mean 'words_chosen'?" in capsys.readouterr().err
        assert main(["benchmark", "--list", "words_*", "--include_path", str(tasks)]) == 0
        assert capsys.readouterr().out.split() == ["words_again", "words_chosen", "words_continued"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ()}, "expected at least one name, such as 'arc_easy'"),
        ({"include_path": "/nowhere"}, "include_path '/nowhere' is no folder"),
        ({"limit": 0}, "limit is 0, expected a number of items"),
        ({"limit": 2.5}, r"limit is 2\.5, expected"),
        ({"shots": -1}, "shots is -1, expected at least 0"),
        ({"system": "Be brief."}, "without chat_template there is no system's turn"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BenchmarkSettings(**{"tasks": ("arc_easy",), **settings})


def test_without_the_harness_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'magnetar\[benchmarks\]'"):
        find_tasks(BenchmarkSettings(("arc_easy",)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "model is missing; give --model SPEC"),
        (["--model", "demo", "--model", "demo"], "'demo' is given twice; name them apart"),
        (["--model", "endpoint:http://localhost:1/v1#model=m"], "no model that is run here"),
        (["--model", "demo", "--limt", "3"], "unknown option 'limt'; did you mean 'limit'"),
    ],
)
def test_a_command_that_cannot_be(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--tasks", "arc_easy", *flags]) == 2
    assert message in capsys.readouterr().err
