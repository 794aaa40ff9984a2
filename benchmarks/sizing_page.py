"""The text and tables of `docs/scaling.md`; `python benchmarks/sizing.py --page` writes it.

Model shapes are those of public configurations. What a GPU can do is its vendor's published figure for dense bfloat16
and its own memory; what share of that is reached is an assumption, which the page names.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sizing import job_of

from magnetar.methods import METHODS
from magnetar.modeling.sizing import (
    Device,
    Job,
    ModelShape,
    activation_numbers,
    measured_constants,
    memory,
    seconds,
)
from magnetar.training.roles_needed import needed_roles
from magnetar.training.sizing import RESERVE, gpu_bytes, job_of_run

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
GIGA = 1e9
# Published: 80 GB of HBM3, 989 TFLOP/s dense bfloat16, 3.35 TB/s, 900 GB/s NVLink (both ways), 400 Gb/s a GPU between
# nodes of a DGX H100.
H100 = Device("H100 80 GB", 80e9, 989e12, 3.35e12, 450e9, 50e9)
SHAPES = {
    "SmolLM2 135M": ModelShape(30, 576, 1536, 9, 3, 64, 49152, True),
    "Qwen2.5 0.5B": ModelShape(24, 896, 4864, 14, 2, 64, 151936, True, True),
    "Llama 3.2 1B": ModelShape(16, 2048, 8192, 32, 8, 64, 128256, True),
    "Llama 3.2 3B": ModelShape(28, 3072, 8192, 24, 8, 128, 128256, True),
    "Llama 3.1 8B": ModelShape(32, 4096, 14336, 32, 8, 128, 128256, False),
    "Qwen2.5 14B": ModelShape(48, 5120, 13824, 40, 8, 128, 152064, False, True),
    "Qwen2.5 32B": ModelShape(64, 5120, 27648, 40, 8, 128, 152064, False, True),
    "Llama 3.1 70B": ModelShape(80, 8192, 28672, 64, 8, 128, 128256, False),
}
LAYOUTS = (("1 GPU", 1, 1), ("8 GPUs", 8, 1), ("16 GPUs", 16, 2), ("32 GPUs", 32, 4), ("64 GPUs", 64, 8))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def roles_of(method: str, *, lora: bool) -> int:
    """Frozen sets of weights of a method; with adapters the reference is the base model."""
    return len(needed_roles(METHODS[method]())) - (1 if lora else 0)


def job(shape: ModelShape, *, lora: bool, devices: int, sharded: bool, method: str = "mpo", **more: Any) -> Job:
    """The page's job: MPO, 4 prompts a device, 8 responses of 512 tokens to prompts of 256."""
    given: dict[str, Any] = {"prompts": 4, "group_size": 8, "prompt_tokens": 256, "response_tokens": 512}
    given |= {"tokens_per_pass": 8192, "checkpointing": True, "trained_bytes": 4, "devices": devices} | more
    return job_of_run(
        shape, METHODS[method](), lora_rank=16 if lora else None, weight_bytes=2, sharded=sharded, **given
    )


def on_gpu(work: Job) -> float:
    """Bytes on a GPU: without the process, which is in main memory."""
    return gpu_bytes(work)


def fits(work: Job, device: Device = H100) -> bool:
    """Whether a job fits, with a reserve for the context of CUDA and fragmentation."""
    return on_gpu(work) <= (1.0 - RESERVE) * device.memory_bytes


def cell(work: Job) -> str:
    """Gigabytes, struck out where they do not fit, with what is largest."""
    text = f"{on_gpu(work) / GIGA:.0f}" if on_gpu(work) >= 10 * GIGA else f"{on_gpu(work) / GIGA:.1f}"
    return text if fits(work) else f"~~{text}~~ {memory(work).largest}"


def by_size(*, lora: bool, engine: str) -> str:
    """Memory by model size and number of GPUs."""
    rows = []
    for name, shape in SHAPES.items():
        row = [name]
        for _, devices, _ in LAYOUTS:
            options = [
                job(shape, lora=lora, devices=devices, sharded=devices > 1, engine=engine, vllm_devices=min(8, devices))
            ]
            row.append(cell(options[0]))
        whole = job(shape, lora=lora, devices=8, sharded=False, engine=engine, vllm_devices=8)
        row.insert(2, cell(whole))
        rows.append(row)
    names = [layout for layout, _, _ in LAYOUTS]
    return table(["model", names[0], "8 GPUs, data parallel", *(f"{n}, sharded" for n in names[1:])], rows)


def by_length() -> str:
    """What group size, length and passes do to one size."""
    shape = SHAPES["Llama 3.1 8B"]
    rows = []
    for group, tokens, checkpointing in (
        (4, 256, True),
        (8, 512, True),
        (8, 512, False),
        (16, 512, True),
        (8, 2048, True),
        (16, 2048, True),
        (8, 8192, True),
    ):
        work = job(shape, lora=True, devices=1, sharded=False, group_size=group, response_tokens=tokens)
        work = replace(work, checkpointing=checkpointing)
        need = memory(work)
        parts = (sum(need.rollout.values()), need.update["activations"], need.update["vocabulary"])
        rows.append(
            [str(group), str(tokens), "yes" if checkpointing else "no", str(work.row_tokens)]
            + [f"{part / GIGA:.1f}" for part in parts]
            + [cell(work)]
        )
    head = ["responses", "tokens each", "activations computed again", "tokens of a packed group"]
    return table([*head, "generation", "activations", "vocabulary", "peak"], rows)


def by_method() -> str:
    """Frozen sets of weights by method."""
    shape = SHAPES["Llama 3.1 8B"]
    groups: dict[tuple[int, int, bool], list[str]] = {}
    for name, make in METHODS.items():
        method = make()
        if method.games_only_because is None:
            key = (roles_of(name, lora=False), roles_of(name, lora=True), method.sampled_objective.needs_value)
            groups.setdefault(key, []).append(name)
    rows = []
    for (full, lora, critic), names in sorted(groups.items()):
        works = [job(shape, lora=flag, devices=8, sharded=True, method=names[0]) for flag in (True, False)]
        beside = f"{full}{' and a critic' if critic else ''}"
        rows.append([", ".join(f"`{n}`" for n in sorted(names)), beside, str(lora), cell(works[1]), cell(works[0])])
    return table(["methods", "frozen copies (full)", "frozen adapters (LoRA)", "full", "LoRA"], rows)


def times() -> str:
    """Seconds of an update by size, on the fewest GPUs of the list on which it fits."""
    rows = []
    for name, shape in SHAPES.items():
        for lora in (True, False):
            for label, devices, nodes in LAYOUTS:
                choices = [
                    job(shape, lora=lora, devices=devices, sharded=sharded, engine=engine, vllm_devices=min(8, devices))
                    for sharded in ((False, True) if devices > 1 else (False,))
                    for engine in ("transformers", "vllm")
                ]
                works = [work for work in choices if fits(work)]
                if not works:
                    continue
                best = min(works, key=lambda work: seconds(work, H100, frozen_passes=2, nodes=nodes).total)
                took = seconds(best, H100, frozen_passes=2, nodes=nodes)
                how = f"{label}{', sharded' if best.sharded else ''}, {best.engine}"
                stages = [f"{value:.1f}" for value in (took.rollout, took.frozen, took.update, took.total)]
                made = best.prompts * best.group_size * best.response_tokens * devices / took.total
                rows.append([name, "LoRA" if lora else "full", how, *stages, f"{made:,.0f}"])
                break
            else:
                rows.append([name, "LoRA" if lora else "full", "none of these", "–", "–", "–", "–", "–"])
    return table(
        ["model", "trains", "fewest GPUs, engine", "generation", "frozen passes", "update", "s", "tokens/s"], rows
    )


def breaks() -> str:
    """What is largest where a run no longer fits, and which setting makes it smaller."""
    rows = []
    remedies = {
        "policy": "shard it: `fsdp2.yaml`, `zero3.yaml`",
        "frozen roles": "LoRA, or shard; `frozen_roles_on_cpu` on one GPU",
        "critic": "a method without one: `rloo`, `grpo`",
        "weights in passes' precision": "LoRA, or shard",
        "optimizer": "LoRA, or shard over more GPUs",
        "gradients": "LoRA, or shard over more GPUs",
        "gathered weights": "`use_vllm`, whose copy is spread over GPUs",
        "vLLM's weights": "`vllm_tensor_parallel_size`, or a vLLM server on other GPUs",
        "activations": "activation checkpointing, a lower `max_tokens_per_pass`",
        "vocabulary": "a lower `max_tokens_per_pass`, fewer or shorter responses",
        "key-value cache": "`max_responses_per_pass`",
        "logits of generation": "`max_responses_per_pass`",
    }
    for name, shape in SHAPES.items():
        row = [name]
        for lora in (True, False):
            for sharded in (False, True):
                work = job(shape, lora=lora, devices=8, sharded=sharded)
                part = memory(work).largest
                row.append("fits" if fits(work) else f"{part}: {remedies[part]}")
        rows.append(row)
    return table(["model", "LoRA, data parallel", "LoRA, sharded", "full, data parallel", "full, sharded"], rows)


def checked(rows: list[dict[str, Any]]) -> str:
    """Predicted against measured."""
    lines = []
    for row in rows:
        predicted, measured = memory(job_of(row["run"], ModelShape(**row["shape"]))).peak, row["measured"]
        error = predicted / measured - 1.0
        lines.append([row["run"], f"{predicted / GIGA:.2f}", f"{measured / GIGA:.2f}", f"{error:+.0%}"])
    return table(["run", "predicted, GB", "measured, GB", "error"], lines)


def constants() -> str:
    """The measured constants, and what they mean for one size."""
    c = measured_constants()
    shape = SHAPES["Llama 3.1 8B"]
    works = {name: job(shape, lora=name == "LoRA", devices=1, sharded=False) for name in ("LoRA", "full")}
    rows = [
        [
            "kept by a token of a layer, full",
            f"{c.full_hidden:.2f} × hidden + {c.full_intermediate:.2f} × intermediate",
        ],
        ["the same, LoRA", f"{c.lora_hidden:.2f} × hidden + {c.lora_intermediate:.2f} × intermediate"],
        ["the same, computed again", f"{c.checkpoint_hidden:.2f} × hidden"],
        ["vocabulary, sampled tokens", f"{c.chunk_copies:.2f} float32 numbers × logits held at a time"],
        ["vocabulary, exact KL", f"{c.chunk_exact_kl_copies:.2f} float32 numbers × logits held at a time"],
        [
            "the same where a pass holds all logits",
            f"{c.vocabulary_copies:.2f} and {c.exact_kl_copies:.2f} × response tokens × vocabulary",
        ],
        [
            "gradient of an output layer that learns, over chunks",
            f"{c.head_gradient_copies:.2f} float32 numbers × its weights",
        ],
        ["process", f"{c.process_bytes / GIGA:.2f} GB of main memory"],
    ]
    kept = [
        [f"Llama 3.1 8B, {name}", f"{activation_numbers(work, c) * shape.layers * 2 / 1e6:.1f} MB a token of a pass"]
        for name, work in works.items()
    ]
    return table(["constant", "measured"], rows + kept)


def render(checks: list[dict[str, Any]]) -> str:
    """The page."""
    plain = job(SHAPES["Llama 3.1 8B"], lora=True, devices=1, sharded=False)
    work = (
        f"{plain.prompts} prompts a GPU of {plain.prompt_tokens} tokens, {plain.group_size} responses each of "
        f"{plain.response_tokens} tokens, passes of up to {plain.tokens_per_pass:,} tokens"
    )
    return TEMPLATE.format(
        work=work,
        settings="../examples/accelerate",
        reserve=f"{RESERVE:.0%}",
        compute=f"{H100.compute_share:.0%}",
        bandwidth=f"{H100.memory_share:.0%}",
        link=f"{H100.link_share:.0%}",
        lora=by_size(lora=True, engine="transformers"),
        full=by_size(lora=False, engine="transformers"),
        full_vllm=by_size(lora=False, engine="vllm"),
        lengths=by_length(),
        methods=by_method(),
        times=times(),
        breaks=breaks(),
        checks=checked(checks),
        constants=constants(),
        all_logits=f"{memory(replace(plain, chunk_logits=None)).update['vocabulary'] / GIGA:.0f} GB",
        in_chunks=f"{memory(plain).update['vocabulary'] / GIGA:.1f} GB",
    )


TEMPLATE = """# Sizes: what fits where, and how long an update takes

*Every table here is computed: `python benchmarks/sizing.py --page` writes this page, from constants that
`--measure` measures and runs that `--check` makes. The arithmetic is `magnetar.modeling.sizing`, which loads nothing;
`magnetar size` does it for your own run.*

## Starting a run

| where | settings | what of it was run, without a GPU |
|---|---|---|
| one GPU | [`one_gpu.yaml`]({settings}/one_gpu.yaml) | one process |
| one node, data parallel | [`ddp.yaml`]({settings}/ddp.yaml) | two processes |
| one node, weights sharded by FSDP2 | [`fsdp2.yaml`]({settings}/fsdp2.yaml) | two processes, in float32 |
| one node, weights in pieces by ZeRO-3 | [`zero3.yaml`]({settings}/zero3.yaml) | two processes, in float32 |
| several nodes, FSDP2 | [`fsdp2_nodes.yaml`]({settings}/fsdp2_nodes.yaml) | two processes of one node |
| several nodes, ZeRO-3 | [`zero3_nodes.yaml`]({settings}/zero3_nodes.yaml) | as `zero3.yaml` |

```
accelerate launch --config_file examples/accelerate/fsdp2.yaml --num_processes 8 \\
    -m magnetar.cli.main train --config run.yaml
```

The files are read by accelerate's loader and launcher in the tests, and were not launched themselves: they ask for
bfloat16 on GPUs. What was run is the same kind of run in float32, with the sharding variables set by the tests. Nothing
in this table has been run on GPUs or between nodes. [How sharding works](architecture.md#sharded-weights) says what two
processes with shares of the weights are compared with, and what they refuse.

**A copy of vLLM's that is spread over GPUs is a server's** (`vllm_mode="server"`, `--tensor-parallel-size`), on GPUs of
its own; in the same processes each engine holds a whole copy. The columns and rows of a copy spread over the training's
own GPUs say what such a run would take. A policy that one GPU cannot hold while it generates needs such a server.

Passes hold the logits of a few tokens at a time, 2^25 numbers on a GPU, whether weights are in shards or not, so that
the vocabulary costs the same however long responses are. A model whose logits cannot be read so, which a run says at
its start, holds those of all response tokens of a pass: {all_logits} for Llama 3.1 8B in the tables below, instead of
{in_chunks}.

## Memory of a GPU, by size

{work};
method `mpo`, bfloat16 passes, trained weights, frozen copies and Adam's averages in float32, activations computed
again in the backward pass. Gigabytes on each GPU; struck out where they exceed 80 GB less {reserve} for the
context of CUDA and fragmentation, with the largest part beside.

### LoRA (rank 16 on all linear maps), transformers engine

{lora}

### Full fine-tuning, transformers engine

{full}

With the transformers engine sharded weights are gathered for generation, so a policy must fit on one GPU as a whole.

### Full fine-tuning, vLLM in the same processes, its copy spread over the GPUs of a node

{full_vllm}

## What breaks first

On 8 GPUs, with the transformers engine:

{breaks}

## Groups and lengths

Llama 3.1 8B with LoRA on one GPU. A group is never split over passes, so that its tokens bound a pass from
below whatever `max_tokens_per_pass` says.

{lengths}

## Methods

Llama 3.1 8B on 8 GPUs, sharded. With adapters a role costs an adapter; in full fine-tuning, a model. A critic keeps
activations of its own beside the policy's, and in shards a frozen base of its own beneath its adapter.

{methods}

## Time of an update

Seconds an update on the fewest GPUs of the list on which it fits, by the faster engine that fits, the judge left out;
tokens a second are those of responses, of all GPUs. **Assumptions, not measurements:** an H100 does what NVIDIA
publishes (989 TFLOP/s dense bfloat16, 3.35 TB/s, 450 GB/s one way in a node, 50 GB/s a GPU between nodes), of which
{compute} in passes, {bandwidth} in generation and {link} between GPUs are reached. Read them as which of two settings
is faster, not as a promise.

{times}

## Checked against real runs

The embedded SmolLM2-135M on the CPU, weights in float32, `mpo`, two updates each; peak memory of the whole process. The
formula counts every kept number in the precision of passes, which mixed precision does not keep to. The C
library is told to give memory back at once (`MALLOC_MMAP_THRESHOLD_`): its heap otherwise keeps gaps between the many
small tensors of adapters.

{checks}

## Constants

Counted as autograd keeps them, on small models of the Llama kind; the vocabulary's from the peak of a process.

{constants}
"""
