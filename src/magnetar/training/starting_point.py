"""What a run starts from, so that a checkpoint is not continued on another model."""

import hashlib
import json

from peft import PeftModel
from torch import nn

__all__ = ["digest_of_start"]

SAMPLE = 1024
"""Numbers of each frozen weight that tell one model from another."""
NO_SETTING = {"base_model_name_or_path", "revision", "peft_version", "inference_mode", "auto_mapping"}


def digest_of_start(model: nn.Module) -> str:
    """Digest of what a checkpoint of a run does not hold: how an adapter is attached, and the frozen weights under it.

    Args:
        model: As it is trained.

    Returns:
        32 hexadecimal digits; of each frozen weight some numbers are looked at, spread evenly.
    """
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(model, PeftModel):
        for name, config in sorted(model.peft_config.items()):
            settings = {key: value for key, value in config.to_dict().items() if key not in NO_SETTING}
            text = json.dumps(settings, sort_keys=True, default=lambda v: sorted(v) if isinstance(v, set) else str(v))
            digest.update(f"{name} {text}".encode())
    for name, weight in model.named_parameters():
        # What an adapter keeps of the head that it replaced may be random, and is not used.
        if not weight.requires_grad and ".original_module." not in name:
            flat = weight.detach().reshape(-1)
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(flat[:: max(1, len(flat) // SAMPLE)].double().cpu().numpy().tobytes())
    return digest.hexdigest()
