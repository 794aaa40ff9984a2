"""Measure what a run's memory is made of, check predictions against real runs, and write `docs/scaling.md`.

    python benchmarks/sizing.py --measure    # src/magnetar/modeling/sizing_constants.json (a minute)
    python benchmarks/sizing.py --check      # real runs of the embedded model: benchmarks/results/sizing.json (minutes)
    python benchmarks/sizing.py --page       # docs/scaling.md from both

Each measurement runs in a process of its own, whose peak memory is read at its end.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from magnetar.methods import METHODS
from magnetar.modeling.sizing import Constants, Job, ModelShape, memory

ROOT = Path(__file__).resolve().parents[1]
CONSTANTS = ROOT / "src/magnetar/modeling/sizing_constants.json"
CHECKS = ROOT / "benchmarks/results/sizing.json"
CPU_CHUNK = 2**23  # logits at a time on a CPU
RUNS: dict[str, dict[str, Any]] = {
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
    "LoRA, long, bfloat16 passes": {
        "lora_rank": 16,
        "prompts": 4,
        "prompt_tokens": 128,
        "response_tokens": 64,
        "tokens_per_pass": 2048,
        "compute_bytes": 2,
    },
}


RESPONSE_TOKENS = 512
"""Of a pass from which the vocabulary's constants are measured."""


def peak_bytes() -> float:
    """Peak resident memory of this process.

    Not ``ru_maxrss``, which a process inherits from the one that started it.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit("peak memory is measured on Linux only")
    return int(found[1]) * 1024.0


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


def vocabulary_pass(
    vocabulary: int, hidden: int, chunk: int, *, exact: bool, frozen: bool, twice: bool
) -> dict[str, float]:
    """Peak memory of a training pass of a model that is little but its vocabulary, without weights and gradients.

    Args:
        vocabulary: Its tokens.
        hidden: Width of what the output layer reads.
        chunk: Logits at a time; 0 for all.
        exact: Whether whole distributions are compared with a frozen policy's.
        frozen: Whether the output layer does not learn.
        twice: Whether gradients are there already, as in the second of several passes.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from magnetar.modeling import vocabulary as reading
    from magnetar.modeling.logprobs import exact_kl, response_logprobs
    from magnetar.modeling.output_layers import frozen_output_layer

    reading.CHUNK_LOGITS["cpu"] = chunk
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=vocabulary
    )
    model: Any = LlamaForCausalLM(config)
    model.get_output_embeddings().requires_grad_(not frozen)
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(0, vocabulary, (count,), generator=generator).tolist()

    prompts, responses = [tokens(8)], [[tokens(RESPONSE_TOKENS // 4) for _ in range(4)]]
    for parameter in model.parameters():
        if twice and parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    settings: Any = {"temperature": 1.0, "layout": "packed", "pad_token_id": 0}
    if chunk:
        against = {}
        if exact:
            with torch.no_grad():
                states = response_logprobs(model, prompts, responses, chunked=True, states=True, **settings).hidden_NH
            assert states is not None
            against = {"magnet": reading.FrozenStates(states, frozen_output_layer(model))}
        out = response_logprobs(model, prompts, responses, chunked=True, against=against, **settings)
        loss = sum((kl.sum() for kl in out.kl_BGT.values()), start=out.logp_BGT.sum())
    else:
        out = response_logprobs(model, prompts, responses, full=exact, **settings)
        loss = out.logp_BGT.sum()
        if exact:
            with torch.no_grad():
                other = response_logprobs(model, prompts, responses, full=True, **settings).full_NV
            assert out.full_NV is not None and other is not None
            loss = loss + exact_kl(out.full_NV, other, out.mask_BGT).sum()
    loss.backward()
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"peak": peak_bytes() - 4.0 * (sum(p.numel() for p in model.parameters()) + learning)}


def vocabulary_numbers(*, exact: bool, chunk: int = 0, frozen: bool = False) -> float:
    """Float32 numbers for each logit that is held at the peak: a large pass less a small one."""

    def peak(vocabulary: int, chunk: int) -> float:
        flags = [name for name, given in (("--exact", exact), ("--frozen", frozen)) if given]
        return in_own_process("--vocabulary", str(vocabulary), "--chunk", str(chunk), *flags)["peak"]

    large, small = 60_000, 10_000
    if not chunk:
        return (peak(large, 0) - peak(small, 0)) / (4.0 * RESPONSE_TOKENS * (large - small))
    return (peak(large, chunk) - peak(large, chunk // 8)) / (4.0 * (chunk - chunk // 8))


def head_numbers() -> float:
    """Float32 numbers for each weight of an output layer that learns, over chunks, beside its gradient."""
    large, small, hidden, chunk = 40_000, 10_000, 256, 2**21
    settings = ("--chunk", str(chunk), "--hidden", str(hidden), "--twice")
    peaks = [in_own_process("--vocabulary", str(v), *settings)["peak"] for v in (large, small)]
    return (peaks[0] - peaks[1]) / (4.0 * hidden * (large - small))


def measure() -> Constants:
    """All constants, each from what it describes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full, lora = fit(None), fit(8)
        checkpointed = numbers_per_layer(128, 256, 16, None, checkpointing=True) / 128
    copies = [vocabulary_numbers(exact=exact) for exact in (False, True)]
    chunk = 2**24
    in_chunks = [
        max(vocabulary_numbers(exact=exact, chunk=chunk, frozen=frozen) for frozen in (False, True))
        for exact in (False, True)
    ]
    process = in_own_process("--nothing")["peak"]
    return Constants(*full, *lora, checkpointed, *copies, *in_chunks, head_numbers(), process)


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
                bf16=run.get("compute_bytes") == 2,
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
    objective = METHODS["mpo"]().sampled_objective
    given: dict[str, Any] = {
        "frozen_roles": 1 if run["lora_rank"] else 2,
        # The magnet moves after the second update, and until then no other role is compared with.
        "exact_kl": int(objective.needs_magnet_distribution),
        "weight_bytes": 4,
        "compute_bytes": 4,
        "trained_bytes": 4,
        "chunk_logits": CPU_CHUNK,
    }
    return Job(shape, **(given | run))


def check(runs: Sequence[str]) -> None:
    """Predicted against measured, for some runs; what is measured is written at once."""
    from transformers import AutoConfig

    from magnetar.modeling.loading import demo_model_folder

    shape = ModelShape.from_config(AutoConfig.from_pretrained(demo_model_folder()))
    rows = {row["run"]: row for row in json.loads(CHECKS.read_text(encoding="utf-8"))} if CHECKS.is_file() else {}
    for name in runs:
        found = in_own_process("--run", name)
        rows[name] = {"run": name, "measured": found["peak"], "shape": asdict(shape)}
        kept = [rows[run] for run in RUNS if run in rows]
        CHECKS.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        predicted = memory(job_of(name, shape)).peak
        error = predicted / found["peak"] - 1.0
        print(
            f"{name}: predicted {predicted / 1e9:.2f} GB, measured {found['peak'] / 1e9:.2f} GB, {error:+.0%}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("measure", "check", "page", "nothing", "exact", "frozen", "twice"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--chunk", type=int, default=0)
    parser.add_argument("--run", choices=list(RUNS))
    parser.add_argument("--only", choices=list(RUNS), help="the one run to check; the others keep what was measured")
    args = parser.parse_args()
    if args.nothing:
        import magnetar.training  # noqa: F401

        print(json.dumps({"peak": peak_bytes()}))
    elif args.vocabulary is not None:
        kind = {"exact": args.exact, "frozen": args.frozen, "twice": args.twice}
        print(json.dumps(vocabulary_pass(args.vocabulary, args.hidden, args.chunk, **kind)))
    elif args.run is not None:
        print(json.dumps(real_run(args.run)))
    if args.measure:
        constants = measure()
        CONSTANTS.write_text(json.dumps(asdict(constants), indent=2) + "\n", encoding="utf-8")
        print(CONSTANTS.read_text(encoding="utf-8"))
    if args.check:
        check([args.only] if args.only else list(RUNS))
    if args.page:
        from sizing_page import PAGE, render

        PAGE.write_text(render(json.loads(CHECKS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
