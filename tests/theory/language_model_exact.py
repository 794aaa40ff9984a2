"""Exact losses over every response of the enumerable model: plain forward passes, recursion and sums, none of ours."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from enumerable_setup import GAME, sum_of_logs
from torch import Tensor
from torch.nn.functional import logsigmoid

Tables = dict[tuple[int, ...], Tensor]
"""log π(·|prefix) for every prefix that can be continued."""

Values = dict[tuple[int, ...], Tensor]
"""A critic's value of every prefix that can be continued."""

WIN_PROB = torch.tensor(GAME.game.P)
WINNER = torch.sign(WIN_PROB - 0.5)
SCORE = 2.0 * WIN_PROB.mean(1) + 0.1 * torch.arange(len(WIN_PROB)) / len(WIN_PROB)
"""What a judge that scores says of each response."""
STD_FLOOR = 1e-4  # the methods' own: equal rewards give no advantage
INDEX = {tuple(tokens): k for k, tokens in enumerate(GAME.responses)}


@dataclass(frozen=True)
class Situation:
    """Policies that all differ, in the middle of an update; only the current one has a gradient.

    Attributes:
        current: π_θ, after the first optimiser step on a batch.
        behavior: π_k, which sampled the batch.
        others: The other roles by name: "magnet", "reference", "previous", "lookahead".
        value: The critic's values now, with a gradient; empty without a critic.
        behavior_value: Its values when the batch was sampled.
    """

    current: Tables
    behavior: Tables
    others: dict[str, Tables] = field(default_factory=dict)
    value: Values = field(default_factory=dict)
    behavior_value: Values = field(default_factory=dict)

    @property
    def now_A(self) -> Tensor:
        """log π_θ of all responses, shape (A,)."""
        return responses_logp(self.current)

    @property
    def behavior_A(self) -> Tensor:
        """log π_k of all responses, shape (A,)."""
        return responses_logp(self.behavior)

    def log_A(self, role: str) -> Tensor:
        """Log-probabilities of all responses under another role, shape (A,)."""
        return responses_logp(self.others[role])

    def payoff_A(self, role: str = "behavior") -> Tensor:
        """What each response wins against a role, shape (A,)."""
        return WIN_PROB @ (self.behavior_A if role == "behavior" else self.log_A(role)).exp()


Formula = Callable[[Situation], Tensor]


def responses_logp(tables: Tables) -> Tensor:
    """Log-probabilities of all responses, shape (A,)."""
    return torch.stack([sum_of_logs(tables, tuple(tokens)) for tokens in GAME.responses])


def against_itself(at: Situation) -> Tensor:
    """Payoffs of self-play."""
    return at.payoff_A()


def extrapolated(at: Situation) -> Tensor:
    """Payoffs of an optimistic update."""
    return 2 * at.payoff_A() - at.payoff_A("previous")


def against(role: str) -> Formula:
    """Payoffs against one other role."""
    return lambda at: at.payoff_A(role)


def against_mixture(weight: float) -> Formula:
    """Payoffs against ``π_k^(1−w) ref^w``, normalised at every token."""

    def payoff(at: Situation) -> Tensor:
        reference = at.others["reference"]
        mixed = {
            prefix: ((1 - weight) * at.behavior[prefix] + weight * reference[prefix]).log_softmax(-1)
            for prefix in reference
        }
        return WIN_PROB @ responses_logp(mixed).exp()

    return payoff


def policy_gradient(
    payoff: Formula = against_itself, *, step_size: float, strength: float = 0.0, transformed: bool = False
) -> Formula:
    """Loss of MPO, MPO-RT and their relatives, by recursion over the tree of prefixes.

    ``Σ_s d_k(s) [ −Σ_a π_θ(a|s) Q_k(s, a) + α KL(π_θ‖ρ) + KL(π_θ‖π_k)/η ]`` where d_k is the probability of reaching
    s and Q_k the expected return of a at s, under π_k. With the reward transformation α log(π_k/ρ) is charged to the
    return, and the loss has no magnet term.
    """

    def loss(at: Situation) -> Tensor:
        advantage_A = payoff(at) - 0.5

        def returns(prefix: tuple[int, ...]) -> Tensor:
            """Q_k(prefix, ·), shape (V,)."""
            values = []
            for token in range(len(GAME.tokenizer)):
                after = (*prefix, token)
                ended = after in INDEX
                value = advantage_A[INDEX[after]] if ended else (at.behavior[after].exp() * returns(after)).sum()
                if transformed:
                    value = value - strength * (at.behavior[prefix][token] - at.others["magnet"][prefix][token])
                values.append(value)
            return torch.stack(values)

        total = torch.zeros((), dtype=torch.float64)
        for prefix, logp in at.current.items():
            here = -(logp.exp() * returns(prefix)).sum() + kl(logp, at.behavior[prefix]) / step_size
            if strength and not transformed:
                here = here + strength * kl(logp, at.others["magnet"][prefix])
            total = total + reach(at, prefix) * here
        return total

    return loss


def clipped(
    payoff: Formula = against_itself, *, clip_range: float, strength: float = 0.0, transformed: bool = False
) -> Formula:
    """The same with PPO's clipping in place of the proximal KL: response by response, for the minimum is of each."""

    def loss(at: Situation) -> Tensor:
        advantage_A, weight_A = payoff(at) - 0.5, at.behavior_A.exp()
        total = torch.zeros((), dtype=torch.float64)
        for k, tokens in enumerate(map(tuple, GAME.responses)):
            gain = advantage_A[k]
            for t in reversed(range(len(tokens))):
                prefix, token = tokens[:t], tokens[t]
                if transformed:
                    gain = gain - strength * (at.behavior[prefix][token] - at.others["magnet"][prefix][token])
                ratio = (at.current[prefix][token] - at.behavior[prefix][token]).exp()
                kept = torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
                total = total - weight_A[k] * torch.minimum(ratio * gain, kept * gain)
        if strength and not transformed:
            for prefix, logp in at.current.items():
                total = total + strength * reach(at, prefix) * kl(logp, at.others["magnet"][prefix])
        return total

    return loss


def pairs(c: float, scale: float, target: Formula, factor: float = 1.0) -> Formula:
    """``factor · Σ_ij π_k(i) π_k(j) (h_i − h_j − s t_ij)²`` with ``h = log π_θ − (1 − c) log π_k − c log ρ``."""

    def loss(at: Situation) -> Tensor:
        weight = at.behavior_A.exp()
        h = at.now_A - (1 - c) * at.behavior_A - (c * at.log_A("magnet") if c else 0.0)
        squared = (h[:, None] - h[None, :] - scale * target(at)) ** 2
        return factor * (weight[:, None] * weight[None, :] * squared).sum()

    return loss


def differences(payoff: Formula) -> Formula:
    """``t_ij = q_i − q_j``."""
    return lambda at: payoff(at)[:, None] - payoff(at)[None, :]


def own_preference(at: Situation) -> Tensor:
    """``t_ij = P_ij − 1/2``."""
    return WIN_PROB - 0.5


def own_winner(at: Situation) -> Tensor:
    """``t_ij = ±1/2`` by who is likelier to win."""
    return WINNER / 2


def pointwise(step_size: float, payoff: Formula = against_itself) -> Formula:
    """``Σ_i π_k(i) (log π_θ(i) − log π_k(i) − η (q_i − 1/2))²``."""
    return lambda at: (at.behavior_A.exp() * (at.now_A - at.behavior_A - step_size * (payoff(at) - 0.5)) ** 2).sum()


def direct_preference(beta: float, *, hard: bool) -> Formula:
    """Logistic loss on all pairs of the behaviour policy."""

    def loss(at: Situation) -> Tensor:
        weight, score = at.behavior_A.exp(), beta * (at.now_A - at.log_A("magnet"))
        margin = score[:, None] - score[None, :]
        target = (WINNER + 1) / 2 if hard else WIN_PROB
        both = -target * logsigmoid(margin) - (1 - target) * logsigmoid(-margin)
        return (weight[:, None] * weight[None, :] * both).sum()

    return loss


def most_extreme_pair(beta: float, *, hard: bool) -> Formula:
    """The same on the response that wins most against the behaviour policy and the one that wins least."""

    def loss(at: Situation) -> Tensor:
        score = beta * (at.now_A - at.log_A("magnet"))
        best, worst = int(at.payoff_A().argmax()), int(at.payoff_A().argmin())
        target = ((WINNER + 1) / 2 if hard else WIN_PROB)[best, worst]
        margin = score[best] - score[worst]
        return -target * logsigmoid(margin) - (1 - target) * logsigmoid(-margin)

    return loss


def leave_one_out(beta: float, clip_range: float, *, average: bool) -> Formula:
    """RLOO: ``−Σ_y π_k(y) Σ_t min(ρ_t A_y, clip(ρ_t) A_y)``, A the reward less its mean, the penalty in the reward."""

    def loss(at: Situation) -> Tensor:
        weight_A = at.behavior_A.exp()
        reward_A = SCORE - beta * (at.behavior_A - at.log_A("magnet"))
        advantage_A = reward_A - (weight_A * reward_A).sum()
        return _surrogates(at, lambda k, t: advantage_A[k], clip_range, average=average)

    return loss


def standardised(at: Situation) -> Tensor:
    """Scores less their mean, over their standard deviation under the behaviour policy."""
    weight_A = at.behavior_A.exp()
    centred_A = SCORE - (weight_A * SCORE).sum()
    return centred_A / ((weight_A * centred_A**2).sum().sqrt() + STD_FLOOR)


def centred(at: Situation) -> Tensor:
    """Scores less their mean under the behaviour policy."""
    return SCORE - (at.behavior_A.exp() * SCORE).sum()


def standardised_in_twos(at: Situation) -> Tensor:
    """The mean advantage of a response in a group of two: half the difference over its standard deviation."""
    difference = (SCORE[:, None] - SCORE[None, :]) / 2.0
    return ((difference / (2**0.5 * difference.abs() + STD_FLOOR)) * at.behavior_A.exp()[None, :]).sum(1)


def group_relative(
    beta: float, clip_range: float, advantage: Formula, *, average: bool, k3: bool, factor: float = 1.0
) -> Formula:
    """GRPO: the clipped gain of the advantages, and ``ref/π_θ − log(ref/π_θ) − 1`` or KL(π_θ‖ref) as the penalty."""

    def loss(at: Situation) -> Tensor:
        advantage_A, weight_A, reference = factor * advantage(at), at.behavior_A.exp(), at.others["magnet"]
        total = _surrogates(at, lambda k, t: advantage_A[k], clip_range, average=average)
        for k, tokens in enumerate(map(tuple, GAME.responses)):
            for t, token in enumerate(tokens):
                now, before = at.current[tokens[:t]][token], at.behavior[tokens[:t]][token]
                u = reference[tokens[:t]][token] - now
                # The KL at a state, as the mean of ρ log(π_θ/ref) over the tokens of the behaviour policy.
                penalty = u.exp() - u - 1 if k3 else (now - before).exp() * -u
                total = total + beta * weight_A[k] * penalty / (len(tokens) if average else 1)
        return total

    return loss


def actor_critic(
    beta: float,
    clip_range: float,
    *,
    value_clip: float = 5.0,
    reward_clip: float = 50.0,
    discount: float = 1.0,
    decay: float = 0.95,
    average: bool = True,
) -> Formula:
    """PPO: generalised advantages by their definition as a sum, and the clipped squared error of the critic."""

    def loss(at: Situation) -> Tensor:
        reference, total = at.others["magnet"], torch.zeros((), dtype=torch.float64)
        advantage: dict[tuple[int, int], Tensor] = {}
        for k, tokens in enumerate(map(tuple, GAME.responses)):
            n, error = len(tokens), []
            for t, token in enumerate(tokens):
                reward = -beta * (at.behavior[tokens[:t]][token] - reference[tokens[:t]][token])
                reward = reward + SCORE[k] if t == n - 1 else reward
                after = at.behavior_value[tokens[: t + 1]] if t < n - 1 else 0.0
                error.append(
                    torch.clamp(reward, -reward_clip, reward_clip) + discount * after - at.behavior_value[tokens[:t]]
                )
            for t in range(n):
                gains = [(discount * decay) ** (s - t) * error[s] for s in range(t, n)]
                advantage[k, t] = torch.stack(gains).sum()
                old, now = at.behavior_value[tokens[:t]], at.value[tokens[:t]]
                goal, near = advantage[k, t] + old, torch.clamp(now, old - value_clip, old + value_clip)
                squared = torch.maximum((now - goal) ** 2, (near - goal) ** 2) / 2
                total = total + at.behavior_A[k].exp() * squared / (n if average else 1)
        return total + _surrogates(at, lambda k, t: advantage[k, t], clip_range, average=average)

    return loss


def _surrogates(at: Situation, gain: Callable[[int, int], Tensor], clip_range: float, *, average: bool) -> Tensor:
    total, weight_A = torch.zeros((), dtype=torch.float64), at.behavior_A.exp()
    for k, tokens in enumerate(map(tuple, GAME.responses)):
        for t, token in enumerate(tokens):
            ratio = (at.current[tokens[:t]][token] - at.behavior[tokens[:t]][token]).exp()
            least = torch.minimum(ratio * gain(k, t), torch.clamp(ratio, 1 - clip_range, 1 + clip_range) * gain(k, t))
            total = total - weight_A[k] * least / (len(tokens) if average else 1)
    return total


def kl(logp_V: Tensor, other_V: Tensor) -> Tensor:
    """KL of two next-token distributions."""
    return (logp_V.exp() * (logp_V - other_V)).sum()


def reach(at: Situation, prefix: tuple[int, ...]) -> Tensor:
    """Probability that the behaviour policy comes by a prefix."""
    return sum_of_logs(at.behavior, prefix).exp()
