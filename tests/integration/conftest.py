"""A folder with all that `magnetar train` needs: model, prompts, a judge in Python, settings in YAML."""

import json
import sys
from pathlib import Path

import pytest
from tiny_runs import GAME, PROMPTS

JUDGE = '''
import time
from pathlib import Path


def more_scissors(prompts, responses):
    """Score: how often a response says scissors."""
    return [float(text.count("scissors")) for text in responses]


def slow(prompts, responses):
    """The same, slowly enough that a signal arrives in the middle of a run."""
    if Path("slow").exists():
        time.sleep(0.05)
    return more_scissors(prompts, responses)


def too_sure(prompts, first, second):
    return [1.5] * len(first)


def broken(prompts, first, second):
    return [float("nan")] * len(first)


def short(prompts, first, second):
    return [0.5]
'''

SETTINGS = """
model: {model}
dataset: {prompts}
judge:
  kind: python
  function: tiny_run_judge:more_scissors
  temperature: 0.5
method: mpo
max_steps: 4
magnet_every: 2
learning_rate: 1e-2
per_device_train_batch_size: 2
num_generations: 8
max_completion_length: 3
eval_holdout: 4
sample_steps: 2
save_steps: 2
use_cpu: true
report_to: none
use_peft: true
lora_r: 4
lora_target_modules: [q_proj, v_proj]
"""


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, prompts, judge module and settings."""
    folder = tmp_path_factory.mktemp("workplace")
    GAME.model(0).save_pretrained(folder / "model")
    GAME.tokenizer.save_pretrained(folder / "model")
    rows = [{"prompt": prompt, "category": "pairs"} for prompt in PROMPTS]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tiny_run_judge.py").write_text(JUDGE)
    (folder / "run.yaml").write_text(SETTINGS.format(model=folder / "model", prompts=folder / "prompts.jsonl"))
    return folder


@pytest.fixture
def at_work(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in the work place, as a user does whose judge lies in the working directory."""
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(str(workplace))
    monkeypatch.delitem(sys.modules, "tiny_run_judge", raising=False)
    return workplace
