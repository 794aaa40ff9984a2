"""Plain Python functions as judges."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from magnetar.errors import JudgeError
from magnetar.judges.base import Judge
from magnetar.judges.checks import FloatArray
from magnetar.judges.function_identity import function_identity, function_name
from magnetar.judges.pointwise import ScalarJudge
from magnetar.types import Prompt

__all__ = [
    "FunctionJudge",
    "ScoreFunctionJudge",
    "check_temperature",
    "function_identity",
    "function_judge",
    "function_name",
    "import_function",
]

PAIR_FORM = "(prompts, first, second) -> win probabilities"
SCORE_FORM = "(prompts, responses) -> scores"


class FunctionJudge(Judge):
    """A function of pairs as a judge: ``function(prompts, first, second)`` returns N values P(first beats second)."""

    def __init__(self, function: Callable[..., object], *, name: str | None = None, version: str | None = None) -> None:
        """Wrap a function.

        Args:
            function: Takes three sequences of length N, returns N numbers in [0, 1].
            name: What reports call the judge; the function's own name when None.
            version: Part of `identity`: change it when the answers change, for instance because of a file that the
                function reads. The text of the function's module and the values bound to the function are part of it
                anyway, and where these cannot be told the version is needed.

        Raises:
            JudgeError: If the function cannot take those three arguments.
        """
        self.name = name or f"python:{function_name(function)}"
        if takes_responses(function):
            raise JudgeError(f"{self.name} has the form {SCORE_FORM}; use ScoreFunctionJudge or build_judge for it")
        _check_signature(function, self.name, 3, PAIR_FORM)
        self.function = function
        self.version = version

    def _identity(self) -> Mapping[str, Any]:
        return function_identity(self.function, self.version)

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        return self.function(list(prompts), list(first), list(second))  # type: ignore[return-value]  # validated above


class ScoreFunctionJudge(ScalarJudge):
    """A function of single responses as a judge: ``function(prompts, responses)`` returns N scores, higher better."""

    def __init__(
        self,
        function: Callable[..., object],
        *,
        temperature: float = 1.0,
        name: str | None = None,
        version: str | None = None,
    ) -> None:
        """Wrap a function.

        Args:
            function: Takes two sequences of length N (the second named `responses`), returns N finite numbers.
            temperature: Difference in score that gives odds of e to 1; positive.
            name: What reports call the judge; the function's own name when None.
            version: As for `FunctionJudge`.

        Raises:
            JudgeError: If the function cannot take those arguments, or the temperature is not positive.
        """
        self.name = name or f"python:{function_name(function)}"
        _check_signature(function, self.name, 2, SCORE_FORM)
        self.function = function
        self.version = version
        self.temperature = check_temperature(temperature)

    def _scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        return self.function(list(prompts), list(responses))  # type: ignore[return-value]  # validated above

    def _identity(self) -> Mapping[str, Any]:
        return {**function_identity(self.function, self.version), "temperature": self.temperature}


def function_judge(
    function: Callable[..., object],
    *,
    temperature: float | None = None,
    name: str | None = None,
    version: str | None = None,
) -> FunctionJudge | ScoreFunctionJudge:
    """Make a judge of a function, by its signature.

    A function with a parameter named `responses` scores single responses, ``(prompts, responses) -> scores``; any
    other function compares pairs, ``(prompts, first, second) -> win probabilities``.

    Args:
        function: The function.
        temperature: For scores only, positive; 1 when None.
        name: What reports call the judge; the function's own name when None.
        version: Part of the judge's `identity`, see `FunctionJudge`.

    Returns:
        The judge.

    Raises:
        JudgeError: If the signature is of neither form, or a temperature is given for a function of pairs.
    """
    if takes_responses(function):
        temperature = 1.0 if temperature is None else temperature
        return ScoreFunctionJudge(function, temperature=temperature, name=name, version=version)
    judge = FunctionJudge(function, name=name, version=version)
    if temperature is not None:
        raise JudgeError(
            f"temperature = {temperature} has no effect: {judge.name} returns win probabilities, not scores; "
            f"leave it out, or write the function as {SCORE_FORM}"
        )
    return judge


def import_function(target: str) -> object:
    """Import what ``package.module:name`` names; modules in the working directory are found too.

    Args:
        target: Module and attribute, separated by one colon.

    Returns:
        The attribute.

    Raises:
        JudgeError: If the form is wrong, or the module or the attribute does not exist.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute.isidentifier():
        raise JudgeError(f"judge 'python:{target}' is not of the form python:package.module:function")
    if os.getcwd() not in sys.path and "" not in sys.path:
        # A console script does not have the working directory on its path; at the end, so that it hides nothing.
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise JudgeError(
            f"judge 'python:{target}': importing {module_name!r} failed: {type(error).__name__}: {error}; "
            f"the module must be installed or lie in the working directory {os.getcwd()}"
        ) from error
    if not hasattr(module, attribute):
        raise JudgeError(f"judge 'python:{target}': module {module_name!r} has no {attribute!r}; check its name")
    return getattr(module, attribute)


def takes_responses(function: Callable[..., object]) -> bool:
    """Whether the function has a parameter named `responses`, and so returns scores."""
    return "responses" in _signature(function).parameters


def check_temperature(temperature: float) -> float:
    """Return the temperature as a float, or say why it cannot be one."""
    value = float(temperature)
    if not 0.0 < value < float("inf"):
        raise JudgeError(f"temperature = {temperature}, expected a positive number: it divides the scores")
    return value


def _signature(function: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise JudgeError(f"{function!r} cannot be a judge: {error}; give a Python function {PAIR_FORM}") from error


def _check_signature(function: Callable[..., object], name: str, count: int, form: str) -> None:
    signature = _signature(function)
    try:
        signature.bind(*range(count))
    except TypeError as error:
        raise JudgeError(
            f"{name} has the signature {signature}, expected {form} (or, with a parameter named `responses`, "
            f"{SCORE_FORM}): {error}"
        ) from error
