"""Time a training pass with packed groups against padded rows, side by side in one process.

Both layouts compute logits at response tokens alone; the usual way, logits at every position, is timed beside them.

    python benchmarks/packing.py                       # 4 prompts of 50 tokens, 4 responses of 64 tokens each
    python benchmarks/packing.py --prompt_tokens 300

The model is the embedded SmolLM2-135M-Instruct with LoRA (r = 16, all linear layers); tokens are random, for their
values do not matter to the time. Each figure is the least of several runs, alternating between the layouts.
"""

import argparse
import time
import warnings

import torch
from peft import LoraConfig, get_peft_model

from magnetar.modeling.loading import load_policy
from magnetar.modeling.logprobs import chunking_support, packing_support, response_logprobs
from magnetar.modeling.packing import LayoutName

Batch = tuple[list[list[int]], list[list[list[int]]]]


def draw_batch(args: argparse.Namespace, vocabulary: int) -> Batch:
    """Prompts and responses of one length each."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(10, vocabulary, (count,), generator=generator).tolist()

    prompts = [tokens(args.prompt_tokens) for _ in range(args.prompts)]
    return prompts, [[tokens(args.response_tokens) for _ in range(args.group_size)] for _ in prompts]


def time_plain(model: torch.nn.Module, batch: Batch) -> float:
    """Seconds of the usual way: padded rows, and logits at every position of every row."""
    prompts, _ = batch
    rows = torch.tensor([[*prompt, *response] for prompt, group in zip(*batch, strict=True) for response in group])
    model.zero_grad()
    start = time.perf_counter()
    logits = model(input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=False).logits[:, :-1]
    logp = logits.log_softmax(-1).gather(-1, rows[:, 1:, None]).squeeze(-1)
    logp[:, len(prompts[0]) - 1 :].sum().backward()
    return time.perf_counter() - start


def time_pass(model: torch.nn.Module, batch: Batch, layout: LayoutName) -> tuple[float, float, torch.Tensor]:
    """Seconds forward, seconds backward, and the log-probabilities."""
    model.zero_grad()
    chunked = chunking_support(model) is None  # as in training
    start = time.perf_counter()
    logp_bgt = response_logprobs(
        model, *batch, temperature=1.0, layout=layout, pad_token_id=0, chunked=chunked
    ).logp_BGT
    middle = time.perf_counter()
    logp_bgt.sum().backward()
    return middle - start, time.perf_counter() - middle, logp_bgt.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--prompt_tokens", type=int, default=50)
    parser.add_argument("--group_size", type=int, default=4)
    parser.add_argument("--response_tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    args = parser.parse_args()

    base, _ = load_policy(args.model, dtype=args.dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        model = get_peft_model(base, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    reason = packing_support(model)
    if reason is not None:
        raise SystemExit(f"nothing to compare: {reason}")
    batch = draw_batch(args, base.config.vocab_size)

    seconds: dict[str, list[tuple[float, float]]] = {"padded": [], "packed": []}
    values: dict[str, torch.Tensor] = {}
    plain = []
    for _ in range(args.repeats):
        plain.append(time_plain(model, batch))
        for layout in ("padded", "packed"):
            forward, backward, values[layout] = time_pass(model, batch, layout)
            seconds[layout].append((forward, backward))
    best = {layout: min(runs, key=sum) for layout, runs in seconds.items()}
    gap = (values["padded"] - values["packed"]).abs().max().item()
    print(
        f"{args.prompts} prompts x {args.prompt_tokens} tokens, {args.group_size} responses x {args.response_tokens} "
        f"tokens each, {args.dtype}, {torch.get_num_threads()} threads"
    )
    for layout, (forward, backward) in best.items():
        print(f"{layout}: forward {forward:.2f} s + backward {backward:.2f} s = {forward + backward:.2f} s")
    print(f"padded with logits at every position: {min(plain):.2f} s")
    print(f"padded with logits at every position / packed: {min(plain) / sum(best['packed']):.2f}")
    print(f"padded / packed: {sum(best['padded']) / sum(best['packed']):.2f}")
    print(f"largest difference of a log-probability: {gap:.1e} nats")


if __name__ == "__main__":
    main()
