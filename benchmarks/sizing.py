"""Measure what a run's memory is made of, check predictions against real runs, and write `docs/scaling.md`.

    python benchmarks/sizing.py --measure    # src/magnetar/modeling/sizing_constants.json (a minute)
    python benchmarks/sizing.py --check      # real runs of the embedded model: benchmarks/results/sizing.json (minutes)
    python benchmarks/sizing.py --page       # docs/scaling.md from both

Each measurement runs in a process of its own, whose peak memory is read at its end.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from magnetar.methods import METHODS
from magnetar.modeling.sizing import Constants, Job, ModelShape, memory

ROOT = Path(__file__).resolve().parents[1]
CONSTANTS = ROOT / "src/magnetar/modeling/sizing_constants.json"
CHECKS = ROOT / "benchmarks/results/sizing.json"
RUNS = {
    "LoRA, short": {"lora_rank": 16, "prompts": 2, "prompt_tokens": 64, "response_tokens": 32, "tokens_per_pass": 512},
    "LoRA, long": {"lora_rank": 16, "prompts": 4, "prompt_tokens": 128, "response_tokens": 64, "tokens_per_pass": 2048},
    "full, short": {
        "lora_rank": None,
        "prompts": 2,
        "prompt_tokens": 64,
        "response_tokens": 32,
        "tokens_per_pass": 512,
    },
    "full, long": {
        "lora_rank": None,
        "prompts": 4,
        "prompt_tokens": 128,
        "response_tokens": 64,
        "tokens_per_pass": 2048,
    },
}


def peak_bytes() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def in_own_process(*command: str) -> dict[str, Any]:
    """What one of this file's measurements prints, from a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, *command],
        # Without gaps: the C library's heap keeps what was freed between tensors that are kept.
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "131072"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1])


# ---- constants ---------------------------------------------------------------------------------------------------


def kept_numbers(
    hidden: int, intermediate: int, layers: int, response_tokens: int, rank: int | None, checkpointing: bool = False
) -> tuple[float, int]:
    """Numbers that a packed pass keeps for its backward pass, and its tokens.

    What is kept is counted as autograd keeps it, once however often it is kept; weights are not counted.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from magnetar.modeling.logprobs import response_logprobs

    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
    )
    model: Any = LlamaForCausalLM(config)
    if rank is not None:
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", lora_dropout=0.0))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    if checkpointing:
        model.gradient_checkpointing_enable()
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(0, 64, (count,), generator=generator).tolist()

    prompts = [tokens(20) for _ in range(2)]
    responses = [[tokens(response_tokens) for _ in range(4)] for _ in prompts]
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = response_logprobs(model, prompts, responses, temperature=1.0, layout="packed", pad_token_id=0)
    assert out.logp_BGT.requires_grad
    return sum(kept.values()) / 4.0, sum(len(p) for p in prompts) + sum(len(r) for group in responses for r in group)


def numbers_per_layer(hidden: int, intermediate: int, response_tokens: int, rank: int | None, **more: Any) -> float:
    """Numbers that each token of one layer keeps: two layers less one."""
    two, tokens = kept_numbers(hidden, intermediate, 2, response_tokens, rank, **more)
    one, _ = kept_numbers(hidden, intermediate, 1, response_tokens, rank, **more)
    return (two - one) / tokens


def fit(rank: int | None) -> list[float]:
    """Least-squares coefficients of hidden width, intermediate width and tokens of a row, and of the rank."""
    ranks = (rank,) if rank is None else (rank, 2 * rank)
    shapes = [(h, i, t, r) for h in (64, 128) for i in (128, 256) for t in (16, 48) for r in ranks]
    known = [[h, i, 20 + 4 * t] + ([] if r is None else [r]) for h, i, t, r in shapes]
    found = [numbers_per_layer(h, i, t, r) for h, i, t, r in shapes]
    solution, *_ = np.linalg.lstsq(np.array(known, dtype=float), np.array(found), rcond=None)
    return [max(0.0, float(value)) for value in solution]


def vocabulary_pass(vocabulary: int, exact: bool) -> dict[str, float]:
    """Peak memory of a training pass of a model that is little but its vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from magnetar.modeling.logprobs import exact_kl, response_logprobs

    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=vocabulary
    )
    model: Any = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(0, vocabulary, (8,), generator=generator).tolist()]
    responses = [[torch.randint(0, vocabulary, (128,), generator=generator).tolist() for _ in range(4)]]
    settings: Any = {"temperature": 1.0, "layout": "packed", "pad_token_id": 0, "full": exact}
    out = response_logprobs(model, prompts, responses, **settings)
    loss = out.logp_BGT.sum()
    if exact:
        with torch.no_grad():
            other = response_logprobs(model, prompts, responses, **settings).full_NV
        assert out.full_NV is not None and other is not None
        loss = loss + exact_kl(out.full_NV, other, out.mask_BGT).sum()
    loss.backward()
    weights = 2.0 * 4.0 * sum(p.numel() for p in model.parameters())  # with gradients
    return {"peak": peak_bytes() - weights, "response_tokens": 512.0}


def measure() -> Constants:
    """All constants, each from what it describes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full, lora = fit(None), fit(8)
        checkpointed = numbers_per_layer(128, 256, 16, None, checkpointing=True) / 128
    large, small = 60_000, 10_000
    copies = []
    for exact in ([], ["--exact"]):
        peaks = [in_own_process("--vocabulary", str(v), *exact) for v in (large, small)]
        copies.append((peaks[0]["peak"] - peaks[1]["peak"]) / (4.0 * peaks[0]["response_tokens"] * (large - small)))
    return Constants(*full, *lora, checkpointed, *copies, in_own_process("--nothing")["peak"])


# ---- real runs ---------------------------------------------------------------------------------------------------


def real_run(name: str) -> dict[str, float]:
    """Peak memory and seconds of an update of one of the runs, on the embedded model in float32."""
    import tempfile

    from datasets import Dataset
    from peft import LoraConfig

    from magnetar.modeling.loading import load_policy
    from magnetar.rollout import SamplingParams, TransformersEngine
    from magnetar.training import NashConfig, NashTrainer

    run = RUNS[name]
    model, tokenizer = load_policy("demo", dtype="float32")
    word = tokenizer("the the the the")["input_ids"]
    assert len(word) == 4
    prompts = [" ".join(["the"] * run["prompt_tokens"])] * (4 * run["prompts"])
    starts: list[float] = []

    def judge(prompts: list[Any], responses: list[str]) -> list[float]:
        starts.append(time.perf_counter())
        return [float(len(response)) for response in responses]

    from magnetar.judges import ScoreFunctionJudge

    with tempfile.TemporaryDirectory() as folder:
        trainer = NashTrainer(
            model=model,
            judge=ScoreFunctionJudge(judge, name="length", version="1"),
            args=NashConfig(
                output_dir=folder,
                method="mpo",
                max_steps=2,
                magnet_every=2,
                per_device_train_batch_size=run["prompts"],
                num_generations=4,
                max_completion_length=run["response_tokens"],
                max_tokens_per_pass=run["tokens_per_pass"],
                save_strategy="no",
                sample_steps=0,
                disable_tqdm=True,
                use_cpu=True,
                report_to="none",
            ),
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=run["lora_rank"], target_modules="all-linear", lora_dropout=0.0)
            if run["lora_rank"]
            else None,
            # No end of sequence: every response has its full length.
            rollout_engine=TransformersEngine(tokenizer, SamplingParams(run["response_tokens"]), eos_token_ids=()),
        )
        trainer.train()
    return {"peak": peak_bytes(), "seconds": starts[-1] - starts[-2]}


def job_of(name: str, shape: ModelShape) -> Job:
    """The job that a real run is."""
    run = RUNS[name]
    roles = 1 if run["lora_rank"] else 2
    objective = METHODS["mpo"]().sampled_objective
    exact = objective.needs_magnet_distribution or objective.needs_behavior_distribution
    return Job(shape, frozen_roles=roles, exact_kl=exact, weight_bytes=4, compute_bytes=4, trained_bytes=4, **run)


def check() -> list[dict[str, Any]]:
    """Predicted against measured, for every run."""
    from transformers import AutoConfig

    from magnetar.modeling.loading import demo_model_folder

    shape = ModelShape.from_config(AutoConfig.from_pretrained(demo_model_folder()))
    rows = []
    for name in RUNS:
        found = in_own_process("--run", name)
        rows.append({"run": name, "measured": found["peak"], "shape": asdict(shape)})
        predicted = memory(job_of(name, shape)).peak
        error = predicted / found["peak"] - 1.0
        print(
            f"{name}: predicted {predicted / 1e9:.2f} GB, measured {found['peak'] / 1e9:.2f} GB, {error:+.0%}",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("measure", "check", "page", "nothing", "exact"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--run", choices=list(RUNS))
    args = parser.parse_args()
    if args.nothing:
        import magnetar.training  # noqa: F401

        print(json.dumps({"peak": peak_bytes()}))
    elif args.vocabulary is not None:
        print(json.dumps(vocabulary_pass(args.vocabulary, args.exact)))
    elif args.run is not None:
        print(json.dumps(real_run(args.run)))
    if args.measure:
        constants = measure()
        CONSTANTS.write_text(json.dumps(asdict(constants), indent=2) + "\n", encoding="utf-8")
        print(CONSTANTS.read_text(encoding="utf-8"))
    if args.check:
        CHECKS.write_text(json.dumps(check(), indent=2) + "\n", encoding="utf-8")
    if args.page:
        from sizing_page import PAGE, render

        PAGE.write_text(render(json.loads(CHECKS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
