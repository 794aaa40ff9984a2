"""Where methods with a fixed reference stop on the enumerable model: fixed points, found without training anything."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import GameError
from magnetar.games import PreferenceGame
from magnetar.methods import (
    DirectPreference,
    FixedMagnet,
    GroupRelativeGradient,
    MagneticPolicyGradient,
    Method,
    PairwiseRegression,
    RewardObjective,
    RewardTransformedPolicyGradient,
)
from magnetar.methods.objectives.bradley_terry import fit_bradley_terry
from magnetar.numerics import log_normalize

__all__ = ["ResponseTree", "limit_of"]

FloatArray = NDArray[np.float64]

DAMPING = 0.03  # of a step in log-probabilities, in units of the pull: small enough for any game of this kind
TOLERANCE = 1e-9  # nats
MAX_STEPS = 50_000
BISECTIONS = 60
TINY = 1e-300
FULL = 1.0  # nats: a log-probability above zero needs no exponential to be too large


@dataclass(frozen=True)
class ResponseTree:
    """The responses as paths in a tree of tokens, so that a policy is a next-token distribution at every prefix.

    Attributes:
        on_path: Whether a response (column) passes a node (row); a node is a prefix of at least one token.
        parent: Row of each node's parent; −1 for the root.
        leaf: Row at which each response ends.
    """

    on_path: FloatArray
    parent: NDArray[np.int64]
    leaf: NDArray[np.int64]

    @classmethod
    def of(cls, responses: list[list[int]]) -> "ResponseTree":
        """The tree of these token lists, none of which is the beginning of another."""
        nodes = sorted({tuple(r[:t]) for r in responses for t in range(1, len(r) + 1)}, key=lambda n: (len(n), n))
        row = {node: k for k, node in enumerate(nodes)}
        on_path = np.zeros((len(nodes), len(responses)))
        for a, response in enumerate(responses):
            for t in range(1, len(response) + 1):
                on_path[row[tuple(response[:t])], a] = 1.0
        parent = np.array([row[node[:-1]] if len(node) > 1 else -1 for node in nodes])
        return cls(on_path, parent, np.array([row[tuple(r)] for r in responses]))

    def conditionals(self, policy_A: FloatArray) -> FloatArray:
        """Log-probability of each node given its parent, shape (nodes,), nats."""
        log_mass = np.log(self.on_path @ policy_A)
        return log_mass - np.append(log_mass, 0.0)[self.parent]

    def policy(self, conditionals: FloatArray) -> FloatArray:
        """Probabilities of the responses from next-token logits at every prefix, which need not be normalised."""
        return np.exp(self.on_path.T @ self.normalize(conditionals))

    def normalize(self, logits: FloatArray) -> FloatArray:
        """Log-probabilities of each node given its parent."""
        largest = np.full(len(self.parent) + 1, -np.inf)
        np.maximum.at(largest, self.parent, logits)
        total = np.zeros(len(self.parent) + 1)
        np.add.at(total, self.parent, np.exp(logits - largest[self.parent]))
        return logits - largest[self.parent] - np.log(total[self.parent])

    def normalized_by(
        self, log_policy: Callable[[FloatArray], FloatArray], gain: FloatArray, weight: FloatArray
    ) -> FloatArray:
        """The log-probabilities that a shift at every prefix normalises, by bisection.

        Args:
            log_policy: Falls in the shift, given for every node.
            gain: Of each node; the shift lies within a few weights of the largest and the smallest at a prefix.
            weight: Of each node, positive.

        Returns:
            Shape (nodes,).
        """
        low, high = np.full(len(self.parent) + 1, np.inf), np.full(len(self.parent) + 1, -np.inf)
        np.minimum.at(low, self.parent, gain - weight)
        np.maximum.at(high, self.parent, gain + weight)
        low, high = np.nan_to_num(low, posinf=0.0), np.nan_to_num(high, neginf=0.0)  # nodes that nothing follows
        for _ in range(BISECTIONS):
            middle = (low + high) / 2.0
            total = np.zeros(len(low))
            np.add.at(total, self.parent, np.exp(np.minimum(log_policy(middle[self.parent]), FULL)))
            low, high = np.where(total > 1.0, middle, low), np.where(total > 1.0, high, middle)
        return log_policy(high[self.parent])

    def values(self, policy_A: FloatArray, payoff_A: FloatArray) -> FloatArray:
        """Expected payoff of what follows each node, shape (nodes,)."""
        return (self.on_path @ (policy_A * payoff_A)) / (self.on_path @ policy_A)


def limit_of(
    method: Method,
    game: PreferenceGame,
    responses: list[list[int]],
    reference_A: FloatArray,
    score_A: FloatArray | None = None,
) -> FloatArray | None:
    r"""The policy at which a method with a fixed reference stands still on a language model.

    Objectives on whole responses (regressions, reward transformation) stop at ``π ∝ ref exp(q/α)``, with q the payoffs
    against the method's own opponent. The magnet's KL term of `MagneticPolicyGradient` is one of next-token
    distributions at prefixes that it takes as given, so its fixed point is ``π(a|s) ∝ ref(a|s) exp(Q(s, a)/α)`` with Q
    the expected payoff after token a; for one token that is the same. The DPO loss stops at ``π ∝ ref exp(s/β)`` with
    scores s fitted to pairs of π itself, and so do PPO and RLOO with the judge's scores. GRPO's advantages and the
    penalty of its loss act on next-token distributions, with weights of 1/|y| where it averages over tokens:
    ``π(a|s) = β w ref(a|s)/(λ_s − u(s, a) + β w)`` with w and u the means of the weight and of the weighted advantage
    after token a; with the penalty that has an importance ratio ``π(a|s) ∝ ref(a|s) exp((u(s, a) − λ_s)/(β w))``.

    Args:
        method: Any; those without a fixed reference have no such policy.
        game: Between the responses.
        responses: Their tokens.
        reference_A: Where training starts, positive probabilities, shape (A,).
        score_A: What the judge says of each response, shape (A,); for methods that learn from scores.

    Returns:
        Probabilities, shape (A,); None for a method that has no fixed reference.

    Raises:
        GameError: No fixed point was found.
    """
    if not isinstance(method.magnet, FixedMagnet):
        return None
    tree = ResponseTree.of(responses)
    tokens = _next_token_aim(method, game, tree, responses, reference_A, score_A)
    if tokens is not None:
        return tree.policy(_fixed_point(tokens, tree.conditionals(reference_A), tree.normalize))
    whole = _whole_response_aim(method, game, tree, reference_A, score_A)
    return None if whole is None else np.exp(_fixed_point(whole, np.log(reference_A), log_normalize))


Step = Callable[[FloatArray], FloatArray]


def _whole_response_aim(
    method: Method, game: PreferenceGame, tree: ResponseTree, reference_A: FloatArray, score_A: FloatArray | None
) -> Step | None:
    """Log-probabilities of responses that a method moves to, up to a constant, as a function of those it has."""
    objective, log_reference = method.objective, np.log(reference_A)
    if isinstance(objective, RewardTransformedPolicyGradient):
        weight, pull = method.opponent.reference_weight, objective.magnet_strength

        def opponent(logits: FloatArray) -> FloatArray:
            policy = np.exp(logits)
            return token_mixture(tree, policy, reference_A, weight) if method.opponent.role == "mixture" else policy

        return lambda logits: log_reference + game.payoff(opponent(logits)) / pull
    if isinstance(objective, PairwiseRegression) and objective.needs_magnet:
        strength = objective.magnet_weight / objective.scale
        return lambda logits: log_reference + game.payoff(np.exp(logits)) / strength
    if isinstance(objective, DirectPreference) and objective.pairs == "all" and not objective.hard_labels:
        return lambda logits: log_reference + fit_bradley_terry(game.P, np.exp(logits)) / objective.kl_coef
    if isinstance(objective, RewardObjective):
        aim = log_reference + _required(score_A, method) / objective.kl_coef
        return lambda logits: aim
    return None


def _next_token_aim(
    method: Method,
    game: PreferenceGame,
    tree: ResponseTree,
    responses: list[list[int]],
    reference_A: FloatArray,
    score_A: FloatArray | None,
) -> Step | None:
    """The same of next-token log-probabilities, for losses whose terms take the visited prefixes as given."""
    objective, log_reference = method.objective, tree.conditionals(reference_A)
    if isinstance(objective, GroupRelativeGradient):
        return _group_relative(objective, tree, responses, log_reference, _required(score_A, method))
    if isinstance(objective, MagneticPolicyGradient) and objective.needs_magnet:
        pull = objective.magnet_strength

        def better(logits: FloatArray) -> FloatArray:
            policy = tree.policy(logits)
            return log_reference + tree.values(policy, game.payoff(policy)) / pull

        return better
    return None


def _required(score_A: FloatArray | None, method: Method) -> FloatArray:
    if score_A is None:
        raise ValueError(f"score_A is None, expected the judge's scores: method {method.name!r} learns from them")
    return score_A


def token_mixture(tree: ResponseTree, policy_A: FloatArray, reference_A: FloatArray, weight: float) -> FloatArray:
    """Probabilities of responses whose tokens are each drawn from ``π^(1−w) ref^w``, normalised at every prefix."""
    return tree.policy((1.0 - weight) * tree.conditionals(policy_A) + weight * tree.conditionals(reference_A))


def _group_relative(
    objective: GroupRelativeGradient,
    tree: ResponseTree,
    responses: list[list[int]],
    log_reference: FloatArray,
    score_A: FloatArray,
) -> Step:
    """Next-token log-probabilities at which the gradient vanishes, given the advantages under other ones."""
    weight_A = np.array([1.0 / len(r) if objective.token_average else 1.0 for r in responses])
    beta = objective.kl_coef

    def better(logits: FloatArray) -> FloatArray:
        policy = tree.policy(logits)
        weight = beta * tree.values(policy, weight_A)
        gain = tree.values(policy, weight_A * objective.advantage(score_A, policy))
        if objective.kl_estimator == "sampled":
            return tree.normalized_by(lambda shift: log_reference + (gain - shift) / weight, gain, weight)
        return tree.normalized_by(
            lambda shift: log_reference - np.log(np.maximum(1.0 + (shift - gain) / weight, TINY)), gain, weight
        )

    return better


def _fixed_point(better: Step, start: FloatArray, normalize: Step) -> FloatArray:
    """Follow ``x ← (1 − d) x + d better(x)`` until it stands still."""
    logits = normalize(start)
    for _ in range(MAX_STEPS):
        aim = normalize(better(logits))
        if np.abs(aim - logits).max() < TOLERANCE:
            return logits
        logits = normalize((1.0 - DAMPING) * logits + DAMPING * aim)
    raise GameError(
        f"no fixed point after {MAX_STEPS} damped steps: the pull is too weak for this game; raise magnet_strength or "
        "kl_coef"
    )
