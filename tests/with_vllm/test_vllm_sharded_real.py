"""Two processes that share the weights between them have vLLM draw from the policy that they compute together."""

import json
from pathlib import Path

import pytest
from conftest import NEEDED

pytest.importorskip("vllm", reason=NEEDED)

from processes import FSDP2, run_two_processes

EXACT = 3e-4
"""Float32 on both sides, nats a token: kernels add in another order."""
HERE = Path(__file__).parent

SHARDED = """
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from magnetar.modeling.roles import make_roles
from magnetar.modeling.sharding import whole_shape
from magnetar.rollout import SamplingParams
from magnetar.rollout.vllm import ColocatedSettings, vllm_engine
from magnetar.training.sharding import shard_model, shard_roles
from real_models import PROMPTS, SEEDS, build, gap, greedy
from vllm_reference import PlainDecoder

folder, kind = Path(sys.argv[1]), json.loads(sys.argv[2])
accelerator = Accelerator()
rank = accelerator.process_index
model = build(tied=kind == "tied")
if kind == "lora":
    lora = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
model = model.eval()
roles = make_roles(model, will_be_sharded=True)
roles.add("magnet")
shard_model(accelerator, model, holds_weights=True)
shard_roles(roles, accelerator)
held = sum(roles.sharding.part(p).numel() for p in model.parameters())
assert held < 0.6 * sum(whole_shape(p).numel() for p in model.parameters())

def move(seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "magnet" not in name:
                noise = torch.randn(whole_shape(parameter), generator=generator) * 0.1
                roles.sharding.fill(parameter, roles.sharding.whole(parameter) + noise)

def engine(tokens, temperature=1.0):
    settings = ColocatedSettings(512, "float32", gpu_memory_utilization=0.1, enforce_eager=True, world_size=2,
                                 rank=rank, local_rank=rank)
    return vllm_engine(PlainDecoder(2), SamplingParams(tokens, temperature), settings)

def drawn(by, role, prompts, seeds, count):
    with roles.lend(role) as policy:
        return by.generate(policy, prompts, count, seeds)

found = {"gaps": {}, "greedy": [], "sent": []}
sampler, decisive = engine(16), engine(12, 1e-4)
mine, seeds = [PROMPTS[rank]], [SEEDS[rank]]
for step in range(3):
    for role in ("current", "magnet", "reference"):
        rollouts = drawn(sampler, role, mine, seeds, 3)
        with roles.use(role) as policy:
            found["gaps"][f"{role} {step}"] = gap(policy, rollouts)
        found["sent"].append(sampler.loads)
    rollouts = drawn(decisive, "current", PROMPTS, SEEDS, 1)
    with roles.use("current", gather=True) as policy:
        found["greedy"].append(rollouts.response_ids == greedy(policy, 12))
    if step == 1:
        roles.move("magnet", "current")
    before = drawn(sampler, "current", mine, seeds, 3)
    move(step)
    with roles.use("current") as policy:
        found["gaps"][f"stale {step}"] = gap(policy, before)
drawn(sampler, "current", mine if rank else [], seeds if rank else [], 3)  # one process has nothing to ask
(folder / f"{rank}.json").write_text(json.dumps(found))
sampler.close()
decisive.close()
"""


@pytest.mark.parametrize("kind", ["lora", "full", "tied"])
def test_every_role_of_sharded_weights_is_followed_on_both_processes(tmp_path, kind):
    run_two_processes(tmp_path, kind, SHARDED, HERE, HERE.parent, variables=FSDP2)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["greedy"] == [True] * 3
        for name, gap in found["gaps"].items():
            assert gap > 0.05 if name.startswith("stale") else gap < EXACT, (rank, name)
        sent = found["sent"]
        assert sent[0] == sent[1], "the magnet is still the policy"
        assert sent[3] < sent[4], "it no longer is"
