# %% [markdown]
# # Align a language model with your own judge
#
# A judge is anything that says how likely one response is to be better than another. Here it is ten lines of Python; it
# could be a reward model, a language model behind an endpoint, or several of them together.
#
# `MODEL` is the embedded SmolLM2-135M-Instruct, so that this runs anywhere; give any Hub id in its place.

# %%
from peft import LoraConfig

from magnetar import NashConfig, NashTrainer
from magnetar.data import demo_prompts
from magnetar.judges import build_judge

MODEL = "demo"
UPDATES = 8
PROMPTS = 2  # of an update
RESPONSES = 6  # to each prompt
LONGEST = 32  # tokens


# %% [markdown]
# ## The judge
#
# Say that you want answers short, but not so short that they say nothing. For each pair: the probability that the first
# one is better. Nobody has to think of a score; a judge may prefer in circles.


# %%
def win_prob(prompts, first, second):
    """P(first beats second) for each pair."""

    def badness(text):
        words = len(text.split())
        return float(words) if words >= 5 else 1000.0

    return [0.5 + 0.5 * ((badness(a) < badness(b)) - (badness(a) > badness(b))) for a, b in zip(first, second)]


# %% [markdown]
# Ask it before you train on it. Every judge is asked in both orders, so it cannot like a place:

# %%
judge = build_judge(win_prob)
answers = [
    "Rain falls when clouds are full.",
    "Well, that is a long story, and it begins with the sea and the sun.",
    "Rain.",
]
print(judge.group_win_prob(["Why does it rain?"], [answers])[0])

# %% [markdown]
# ## Train
#
# Each update draws a few responses to each of some prompts, lets them play each other, and makes the winners more
# likely. The magnet holds the policy near where it was, and moves along every two updates. `NashTrainer` is a
# `transformers.Trainer`.

# %%
trainer = NashTrainer(
    model=MODEL,
    judge=judge,
    args=NashConfig(
        output_dir="runs/shorter",
        method="mpo",
        magnet_every=2,
        max_steps=UPDATES,
        per_device_train_batch_size=PROMPTS,
        num_generations=RESPONSES,
        max_completion_length=LONGEST,
        learning_rate=3e-4,
        save_strategy="no",
        report_to="none",
        overwrite_output_dir=True,
    ),
    train_dataset=demo_prompts("train"),
    eval_dataset=demo_prompts("test").select(range(8)),
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()

# %% [markdown]
# ## What has changed?
#
# On prompts that it has not seen, against the model that it started from. With eight prompts the interval is wide, and
# says so.

# %%
result = trainer.evaluate()
low, high = result.get("eval_win_rate_low"), result.get("eval_win_rate_high")
interval = f"[{low:.0%}, {high:.0%}]" if low is not None and high is not None else "no interval from so few prompts"
print(f"win rate against the start: {result['eval_win_rate']:.0%} {interval}")
print(f"tokens a response: {result['eval_response_tokens']:.0f}, before: {result['eval_reference_tokens']:.0f}")

# %% [markdown]
# Read the answers too. A judge is a wish, and a model fulfils it to the letter.

# %%
matchup = trainer.play_against_reference()
for prompt, after, before in list(zip(matchup.prompts, matchup.policy.texts, matchup.opponent.texts, strict=True))[:2]:
    print(f"{prompt[-1]['content']}\n  before: {before[0][:160]!r}\n  after:  {after[0][:160]!r}")

# %% [markdown]
# ## Next
#
# `trainer.save_model("runs/shorter")` writes an ordinary adapter. The command line does all of this with a report at
# the end: `magnetar train --judge python:my_judges:win_prob --model MODEL --dataset prompts.jsonl --output_dir
# runs/mine`. A function is a start; [these judges](../docs/judges/README.md) are for real work, and [this is how to
# measure one](../docs/judges/evaluation.md) before you trust it.
