"""What is predicted of a run's roles is what the trainer makes."""

from pathlib import Path
from typing import Any

import pytest
from tiny_runs import TRAINABLE, make_trainer

from magnetar.methods import METHODS
from magnetar.training.roles_needed import needed_roles


@pytest.mark.parametrize("inner_epochs", [1, 2])
def test_needed_roles_are_those_of_the_trainer(tmp_path: Path, inner_epochs: int) -> None:
    for name in TRAINABLE:
        steps: dict[str, Any] = {"inner_epochs": inner_epochs, "max_steps": 4}
        trainer = make_trainer(tmp_path / name, method=name, with_lora=True, **steps)
        assert set(trainer.roles.state_dict()) == set(needed_roles(trainer.method, inner_epochs)), name
        assert needed_roles(METHODS[name](), inner_epochs)[0] == "reference"
