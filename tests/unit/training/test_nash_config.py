"""Settings that cannot work, or would have no effect, are refused by their own names."""

from pathlib import Path
from typing import Any

import pytest

from magnetar.errors import ConfigError
from magnetar.training import NashConfig

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"method": "mop"}, "unknown method 'mop'; did you mean 'mpo'"),
    ({"step_size": 0.0}, "step_size is 0.0, expected a positive"),
    ({"step_size": float("inf")}, "step_size is inf"),
    ({"magnet_strength": -0.1}, "magnet_strength is -0.1, expected a positive"),
    ({"method": "mirror_descent", "magnet_strength": 0.1}, "'mirror_descent' has no setting 'magnet_strength'"),
    ({"method": "mirror_descent", "magnet_schedule": "fixed"}, "magnet_schedule is 'fixed', but method"),
    (
        {"magnet_schedule": "adaptive", "sample_from": "round_start", "num_rounds": 2},
        "sample_from is 'round_start', but an adaptive magnet watches how far each update moves the policy",
    ),
    ({"method": "mirror_descent", "magnet_every": 3}, "magnet_every is 3, but method 'mirror_descent'"),
    ({"method": "mmd", "magnet_schedule": "every"}, "magnet_schedule is 'every', but method 'mmd'"),
    ({"method": "mmd", "magnet_ema_rate": 0.1}, "magnet_ema_rate is 0.1, but method 'mmd'"),
    ({"magnet_every": 0}, "magnet_every is 0"),
    (
        {"magnet_every": 3, "magnet_schedule": "round", "num_rounds": 2},
        "magnet_schedule='round' does not count updates",
    ),
    ({"magnet_schedule": "round"}, "only when training is over"),
    ({"magnet_ema_rate": 0.1}, "magnet_ema_rate is 0.1, but the magnet is no moving average"),
    ({"magnet_schedule": "ema", "magnet_ema_rate": 0.0}, "would never move"),
    ({"magnet_schedule": "ema", "magnet_ema_rate": 1.0}, "magnet_every=1"),
    ({"proximal": "clip", "step_size": 1.0}, "step_size is 1.0, but with proximal='clip'"),
    ({"proximal": "clip", "clip_range": 1.5}, "clip_range is 1.5"),
    ({"proximal": "klip"}, "unknown proximal 'klip'; did you mean 'clip'"),
    ({"clip_range": 0.1}, "clip_range is set but nothing is clipped"),
    ({"kl_estimator": "exakt"}, "unknown kl_estimator 'exakt'; did you mean 'exact'"),
    ({"method": "mpo_rt", "proximal": "clip", "kl_estimator": "exact"}, "kl_estimator is 'exact', but the loss"),
    ({"method": "mirror_descent", "proximal": "clip", "kl_estimator": "exact"}, "kl_estimator is 'exact'"),
    ({"opponent": "nobody"}, "unknown opponent 'nobody'"),
    ({"num_opponents": 4}, "num_opponents is 4, but with opponent='current'"),
    ({"opponent": "reference", "num_opponents": 0}, "num_opponents is 0"),
    ({"num_generations": 1}, "a group needs at least 2"),
    ({"inner_epochs": 0}, "inner_epochs is 0"),
    ({"inner_epochs": 2, "max_steps": 5}, "use 4 or 6"),
    ({"temperature": 0.0}, "temperature is 0.0"),
    ({"top_p": 0.0}, "top_p is 0.0"),
    ({"top_k": -1}, "top_k is -1"),
    ({"sample_steps": -1}, "sample_steps is -1"),
    ({"on_long_prompt": "cut"}, "unknown on_long_prompt 'cut'"),
    ({"logprob_layout": "pakced"}, "did you mean 'packed'"),
    ({"dataloader_num_workers": 2}, "dataloader_num_workers"),
    ({"auto_find_batch_size": True}, "auto_find_batch_size"),
    ({"ignore_data_skip": True}, "ignore_data_skip"),
]


def config(folder: Path, **settings: Any) -> NashConfig:
    return NashConfig(output_dir=str(folder), use_cpu=True, report_to="none", **settings)


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_cannot_work_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, **settings)
    assert message in str(caught.value)


def test_presets_are_kept_where_nothing_is_said(tmp_path: Path) -> None:
    from magnetar.methods import METHODS

    for name, preset in METHODS.items():
        if preset().games_only_because is not None:
            with pytest.raises(ConfigError, match=f"method is '{name}', which runs on exact games only"):
                config(tmp_path, method=name)
            continue
        method = config(tmp_path, method=name).build_method()
        assert method.objective == preset().objective
        assert method.magnet == preset().magnet
    assert config(tmp_path, magnet_schedule="every").build_method().magnet == METHODS["mpo"]().magnet


def test_memory_is_pinned_only_for_an_accelerator(tmp_path: Path) -> None:
    assert config(tmp_path).dataloader_pin_memory is False


def test_prompts_per_update_counts_accumulation(tmp_path: Path) -> None:
    made = config(tmp_path, per_device_train_batch_size=3, gradient_accumulation_steps=4)
    assert made.prompts_per_update == 12


def test_evaluation_needs_held_out_prompts(tmp_path: Path) -> None:
    made = config(tmp_path, eval_strategy="steps", eval_steps=1)
    made.check_held_out(True)
    with pytest.raises(ConfigError, match="eval_strategy is 'steps'"):
        made.check_held_out(False)
