"""A TRL reward function as a judge."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from magnetar.errors import JudgeError
from magnetar.interop.text import completion_for_trl
from magnetar.judges import ScalarJudge
from magnetar.judges.checks import FloatArray, short_text
from magnetar.judges.function import check_temperature, function_identity, function_name
from magnetar.types import Prompt

__all__ = ["RewardFunctionJudge"]


class RewardFunctionJudge(ScalarJudge):
    r"""A reward function written for TRL as a judge, ``P(i beats j) = σ((r_i − r_j) / temperature)``.

    A reward of None raises a `JudgeError`: a score that is not there cannot be compared with others.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *,
        temperature: float = 1.0,
        columns: Mapping[str, Any] | None = None,
        name: str | None = None,
        version: str | None = None,
    ) -> None:
        """Wrap a reward function.

        Args:
            function: Called by keyword as TRL's trainers do, ``function(prompts=, completions=, **columns)``; it gets
                texts for text prompts, lists with one turn of the assistant for chat turns, and returns one number for
                each completion. It is not given token ids, nor the trainer's state.
            temperature: Difference in reward that gives odds of e to 1; positive. With rewards of 0 and 1 the better
                response wins 73% of the time at temperature 1, and practically always at 0.1.
            columns: Further arguments by name, for instance columns of the training set that the function expects;
                each is the same for every completion and handed over as a list.
            name: What reports call the judge; the function's own name when None.
            version: As for `FunctionJudge`.

        Raises:
            JudgeError: If the function cannot be called so, or the temperature is not positive.
        """
        self.name = name or f"reward_function:{function_name(function)}"
        self.function = function
        self.columns = dict(columns or {})
        self.temperature = check_temperature(temperature)
        self.version = version
        if inspect.iscoroutinefunction(function):
            raise JudgeError(f"{self.name} is asynchronous, which a judge is not; give an ordinary function")
        try:
            inspect.signature(function).bind(prompts=[], completions=[], **self.columns)
        except (TypeError, ValueError) as error:
            raise JudgeError(
                f"{self.name} cannot be called as function(prompts=, completions=, **columns), as TRL calls a reward "
                f"function: {error}; let it take **kwargs, and give what it needs in columns"
            ) from error

    def _scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        completions = [completion_for_trl(p, r) for p, r in zip(prompts, responses, strict=True)]
        repeated = {key: [value] * len(prompts) for key, value in self.columns.items()}
        rewards: Any = self.function(prompts=list(prompts), completions=completions, **repeated)
        for prompt, response, reward in zip(prompts, responses, rewards, strict=False):
            if reward is None:
                raise JudgeError(
                    f"{self.name} gave no reward (None) to response {short_text(response)} of prompt "
                    f"{short_text(prompt)}; a judge must be able to compare every response"
                )
        return rewards  # validated by the caller

    def _identity(self) -> Mapping[str, Any]:
        function = function_identity(self.function, self.version)
        return {**function, "temperature": self.temperature, "columns": self.columns}
