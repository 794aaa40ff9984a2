"""The contenders of `benchmarks/throughput.py`: each a process that trains one optimiser step when it is told to.

    python benchmarks/throughput_contenders.py trl '{"prompts": 4, ...}'

A line on standard input asks for a step, the end of the input for the figures of memory; answers are lines of JSON.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Answers go to the standard output that we were given; whatever libraries print goes to standard error.
ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from transformers import TrainerCallback, set_seed  # noqa: E402

from magnetar.data import load_prompts  # noqa: E402
from magnetar.modeling.loading import load_policy  # noqa: E402

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MIB = 2**20


class OnDemand(TrainerCallback):
    """Lets the trainer take a step when a line arrives, and tells what the step cost."""

    def __init__(self, figures: Any) -> None:
        """Set what tells tokens and seconds of stages of the last step."""
        self.figures = figures
        self.started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait for the turn."""
        if not sys.stdin.readline():
            print(json.dumps(memory()), file=ANSWERS)
            ANSWERS.flush()
            os._exit(0)
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the wall time; figures of the step come with its log line."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.started

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Answer."""
        print(json.dumps({"seconds": self.seconds, **self.figures(logs)}), file=ANSWERS)
        ANSWERS.flush()


def memory() -> dict[str, float]:
    """Peak memory of this process and of those that it started, MiB."""
    found = {"peak_rss_mib": sum(_peak_rss(pid) for pid in (os.getpid(), *_descendants(os.getpid())))}
    if torch.cuda.is_available():
        found["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / MIB
    return found


def _peak_rss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in children for found in (int(child), *_descendants(int(child)))]


def prompts_of(settings: dict[str, Any], tokenizer: Any) -> list[list[dict[str, str]]]:
    """The embedded prompts; for long ones, as many of them in one as it takes."""
    rows = [
        prompt[-1]["content"] if not isinstance(prompt, str) else prompt for prompt in load_prompts("demo")["prompt"]
    ]
    wanted = settings["prompt_tokens"]
    if not wanted:
        return [[{"role": "user", "content": row}] for row in rows]
    text = " ".join(rows)
    tokens = tokenizer(text)["input_ids"]
    return [
        [{"role": "user", "content": tokenizer.decode(tokens[begin : begin + wanted])}]
        for begin in range(0, len(tokens) - wanted, wanted // 4)
    ]


def adapter() -> LoraConfig:
    """LoRA of rank 16 on all linear layers."""
    return LoraConfig(r=16, lora_alpha=32, target_modules=LINEAR, lora_dropout=0.0, task_type="CAUSAL_LM")


def common(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """Arguments that both trainers know."""
    return {
        "output_dir": folder,
        "max_steps": 10_000,
        "learning_rate": 1e-4,
        "num_generations": settings["responses"],
        "max_completion_length": settings["response_tokens"],
        "temperature": 1.0,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
        "lr_scheduler_type": "constant",
    }


def short_answers(completions: list[Any]) -> list[float]:
    """A reward that costs nothing, for judges are not what is timed: how short an answer is."""
    texts = [completion if isinstance(completion, str) else completion[0]["content"] for completion in completions]
    return [-len(text) / 100.0 for text in texts]


def run_trl(settings: dict[str, Any], folder: str) -> None:
    """TRL's GRPOTrainer with its transformers generation."""
    from trl import GRPOConfig, GRPOTrainer

    model, tokenizer = load_policy("demo", dtype=settings["dtype"])
    responses = settings["prompts"] * settings["responses"]
    args = GRPOConfig(
        **common(settings, folder),
        per_device_train_batch_size=settings["trl_rows"] or responses,
        gradient_accumulation_steps=responses // (settings["trl_rows"] or responses),
        beta=settings["kl_coef"],
        max_grad_norm=1.0,
        use_vllm=False,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: short_answers(completions),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": prompts_of(settings, tokenizer)}),
        processing_class=tokenizer,
        peft_config=adapter(),
    )
    stages = _timed_stages(trainer, {"_generate": "rollout", "_generate_and_score_completions": "prepare"})

    def figures(logs: dict[str, Any]) -> dict[str, Any]:
        spent = {name: stages.pop(name) for name in list(stages)}
        spent["logprobs"] = spent.pop("prepare", 0.0) - spent.get("rollout", 0.0)
        return {"tokens": logs["completions/mean_length"] * responses, "stages": spent}

    trainer.add_callback(OnDemand(figures))
    trainer.train()


def _timed_stages(trainer: Any, methods: dict[str, str]) -> dict[str, float]:
    """Add the seconds of a trainer's methods up by stage."""
    seconds: dict[str, float] = {}

    def timed(name: str, stage: str) -> None:
        method = getattr(trainer, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = method(*args, **kwargs)
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
            return result

        setattr(trainer, name, run)

    for name, stage in methods.items():
        timed(name, stage)
    return seconds


def run_magnetar(settings: dict[str, Any], folder: str, **engine: Any) -> None:
    """NashTrainer with the same work: the `grpo` method, or another."""
    from magnetar import NashConfig, NashTrainer
    from magnetar.judges import ScoreFunctionJudge

    model, tokenizer = load_policy("demo", dtype=settings["dtype"])
    method: dict[str, Any] = {"method": settings["method"]}
    if settings["method"] == "grpo":
        method["kl_coef"] = settings["kl_coef"]
    args = NashConfig(
        **common(settings, folder),
        **method,
        **engine,
        per_device_train_batch_size=settings["prompts"],
        max_prompt_length=1024,
        num_train_epochs=10_000,
        sample_steps=0,
    )
    trainer = NashTrainer(
        model=model,
        judge=ScoreFunctionJudge(lambda prompts, responses: short_answers(list(responses)), name="short answers"),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": prompts_of(settings, tokenizer)}),
        processing_class=tokenizer,
        peft_config=adapter(),
    )

    def figures(logs: dict[str, Any]) -> dict[str, Any]:
        stages = {name.removeprefix("seconds_"): logs[name] for name in logs if name.startswith("seconds_")}
        spent = sum(len(tokens) for group in trainer.last_experience.response_ids for tokens in group)
        return {"tokens": spent, "stages": stages}

    trainer.add_callback(OnDemand(figures))
    trainer.train()


CONTENDERS = {
    "trl": run_trl,
    "magnetar": run_magnetar,
    "magnetar-vllm": lambda settings, folder: run_magnetar(settings, folder, use_vllm=True),
}


if __name__ == "__main__":
    set_seed(0)
    with tempfile.TemporaryDirectory() as place:
        CONTENDERS[sys.argv[1]](json.loads(sys.argv[2]), place)
