"""Self-play with a neural policy: episodes are sampled, and the loss is the method's own, from `magnetar.methods`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from magnetar.errors import ConfigError, NonFiniteLossError, checked_integer
from magnetar.games.checks import LARGEST_SEED, check_kind
from magnetar.games.extensive.exact import ExtensiveTrace, check_schedule, check_tremble, measuring_points
from magnetar.games.extensive.openspiel import Exploitability, infostate_tensors
from magnetar.games.extensive.tree import CHANCE, TERMINAL, ExtensiveGame, check_extensive
from magnetar.games.length import counted
from magnetar.methods import MagnetClock, Method
from magnetar.methods.objectives import PolicyGradient, RewardTransformedPolicyGradient
from magnetar.methods.objectives.base import check_positive
from magnetar.types import RolloutBatch

__all__ = ["Decisions", "Episodes", "SelfPlaySettings", "play_episodes", "run_sampled", "sampled_form"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

IMPOSSIBLE = -1e30  # logit of an illegal action: probability exactly 0, and no infinities in differences of logs


@dataclass(frozen=True)
class SelfPlaySettings:
    """How episodes are sampled and the network follows the loss.

    Attributes:
        episodes: Episodes sampled for each update, at least 2.
        gradient_steps: Steps of Adam on each batch, at least 1.
        learning_rate: Of Adam, positive.
        hidden: Widths of the hidden layers, at least one, each at least 1.

    Raises:
        ConfigError: A number outside its range, or a count that is not an integer.
    """

    episodes: int = 4096
    gradient_steps: int = 8
    learning_rate: float = 2e-3
    hidden: Sequence[int] = (64, 64)

    def __post_init__(self) -> None:
        if checked_integer("episodes", self.episodes, 0) < 2:
            raise ConfigError(f"episodes is {self.episodes}, expected at least 2: the baseline is the others' mean")
        checked_integer("gradient_steps", self.gradient_steps, 1)
        check_positive(learning_rate=self.learning_rate)
        if not isinstance(self.hidden, Iterable) or isinstance(self.hidden, str):
            raise ConfigError(
                f"hidden is {self.hidden!r}, expected the width of each hidden layer; for instance (64, 64)"
            )
        widths = tuple(checked_integer(f"hidden[{layer}]", width, 1) for layer, width in enumerate(self.hidden))
        if not widths:
            raise ConfigError(f"hidden is {self.hidden!r}, expected at least one width; for instance (64, 64)")
        object.__setattr__(self, "hidden", widths)


@dataclass(frozen=True, eq=False)
class Episodes:
    """Finished games, split by player: row e of player p is what p decided in episode e, and what p earned.

    Attributes:
        infostate: Information state of each of the player's decisions, shape (episodes, 2, T); 0 at padding.
        action: Action taken there, same shape; 0 at padding.
        mask: True at decisions, same shape.
        payoff: Chips won by each player, shape (episodes, 2).
    """

    infostate: IntArray
    action: IntArray
    mask: NDArray[np.bool_]
    payoff: FloatArray


def play_episodes(game: ExtensiveGame, policy_IA: FloatArray, episodes: int, rng: np.random.Generator) -> Episodes:
    """Play many games at once, both seats by the same policy, on the flat arrays.

    Args:
        game: The listed game.
        policy_IA: Behavioural policy, shape (I, A).
        episodes: How many games.
        rng: Source of every random number; the same generator state gives the same episodes.

    Returns:
        The episodes.
    """
    longest = len(game.levels)
    infostate = np.zeros((episodes, 2, longest), dtype=np.int64)
    action, mask = np.zeros_like(infostate), np.zeros(infostate.shape, dtype=bool)
    decided = np.zeros((episodes, 2), dtype=np.int64)
    # The last legal action takes the rest, so that rounding in the sum can never choose an illegal one.
    last_legal = game.num_actions - 1 - game.legal[:, ::-1].argmax(axis=1)
    cumulative = np.where(np.arange(game.num_actions) >= last_legal[:, None], 1.0, np.cumsum(policy_IA, axis=1))
    node = np.zeros(episodes, dtype=np.int64)
    running = np.arange(episodes)
    while len(running) > 0:
        draw = rng.random(len(running))
        at = node[running]
        kind, row = game.node_kind[at], game.node_row[at]
        step = np.empty(len(running), dtype=np.int64)
        for where, table in ((kind == CHANCE, game.chance_cumulative), (kind < CHANCE, cumulative)):
            step[where] = (draw[where, None] >= table[row[where]]).sum(axis=1)
        deciding = kind < CHANCE
        who, episode = kind[deciding], running[deciding]
        slot = decided[episode, who]
        infostate[episode, who, slot] = row[deciding]
        action[episode, who, slot] = step[deciding]
        mask[episode, who, slot] = True
        decided[episode, who] += 1
        node[running] = game.child[at, step]
        running = running[game.node_kind[node[running]] != TERMINAL]
    won = game.node_payoff[node]
    return Episodes(infostate, action, mask, np.stack([won, -won], axis=1))


@dataclass(frozen=True, eq=False)
class Decisions:
    r"""What a batch of episodes says about each action, with equal decisions merged.

    The baseline is that of a group: the mean result of the *other* decisions at the same information state,
    ``A_i = w_i − mean_{j ≠ i} w_j``, with w the episode's result mapped to [0, 1]. It does not depend on the action
    taken, so the gradient stays unbiased, and no critic has to be learned. Rows of the same information state, action
    and sign of A are merged into one with their mean and their number as weight: every policy-gradient loss, the
    clipped one too, is linear in A as long as its sign stays, so the loss is exactly that of the single decisions.

    Attributes:
        infostate: Shape (G,).
        action: Shape (G,).
        advantage: Mean of A, shape (G,).
        weight: Share of the decisions, shape (G,), sums to one.
    """

    infostate: Tensor
    action: Tensor
    advantage: Tensor
    weight: Tensor

    @classmethod
    def collect(cls, game: ExtensiveGame, episodes: Episodes, fee_IA: FloatArray | None = None) -> "Decisions":
        """Merge the decisions of all episodes.

        Args:
            game: The listed game.
            episodes: From `play_episodes`.
            fee_IA: Paid to the other player by whoever takes an action, on the scale of win probabilities, shape
                (I, A). A decision answers for the fees that its player pays later and for those that it receives; its
                own is the objective's business.

        Returns:
            The decisions.
        """
        wins = (episodes.payoff / game.payoff_bound + 1.0) / 2.0
        result = np.repeat(wins[:, :, None], episodes.mask.shape[2], axis=2)
        if fee_IA is not None:
            paid = np.where(episodes.mask, fee_IA[episodes.infostate, episodes.action], 0.0)
            total = paid.sum(axis=2, keepdims=True)
            result += total[:, ::-1] - (total - np.cumsum(paid, axis=2))
        infostate, action = episodes.infostate[episodes.mask], episodes.action[episodes.mask]
        result = result[episodes.mask]
        count = np.bincount(infostate, minlength=game.num_infostates)[infostate]
        total = np.bincount(infostate, weights=result, minlength=game.num_infostates)[infostate]
        # A decision without company says nothing about whether its action was better than others: no advantage.
        others = np.where(count > 1, (total - result) / np.maximum(count - 1, 1), result)
        advantage = result - others
        key = (infostate * game.num_actions + action) * 2 + (advantage > 0)
        merged, where, number = np.unique(key, return_inverse=True, return_counts=True)
        return cls(
            infostate=torch.from_numpy(merged // (2 * game.num_actions)),
            action=torch.from_numpy(merged // 2 % game.num_actions),
            advantage=torch.from_numpy(np.bincount(where, weights=advantage) / number),
            weight=torch.from_numpy(number / len(key)),
        )

    def batch(
        self, current_IA: Tensor, behavior_IA: Tensor, magnet_IA: Tensor, objective: PolicyGradient
    ) -> RolloutBatch:
        """The decisions in the form in which a language model's responses reach an objective.

        An information state is the prompt, an action a response of one token, the result of its episode the payoff. An
        objective subtracts 1/2 from payoffs itself, so 1/2 is added to advantages here.

        Args:
            current_IA: Log-probabilities of the trained policy, shape (I, A), differentiable.
            behavior_IA: The same of the policy that played the episodes.
            magnet_IA: The same of the magnet.
            objective: Says what it needs.

        Returns:
            The batch; B = 1 and T = 1.
        """

        def of(table: Tensor) -> Tensor:
            return table[self.infostate, self.action][None, :, None]

        def kl_to(table: Tensor) -> Tensor:
            return (current_IA.exp() * (current_IA - table)).sum(-1)[self.infostate][None, :, None]

        payoff_BGH = 0.5 + self.advantage[None, :, None]
        return RolloutBatch(
            logp_BGT=of(current_IA),
            behavior_logp_BGT=of(behavior_IA),
            magnet_logp_BGT=of(magnet_IA) if objective.needs_magnet else None,
            mask_BGT=torch.ones_like(payoff_BGH, dtype=torch.bool),
            win_prob_BGH=payoff_BGH,
            opponent_weight_BGH=torch.ones_like(payoff_BGH),
            response_weight_BG=self.weight[None],
            magnet_kl_BGT=kl_to(magnet_IA) if objective.needs_magnet_distribution else None,
            behavior_kl_BGT=kl_to(behavior_IA) if objective.needs_behavior_distribution else None,
        )


def _fees(objective: PolicyGradient, behavior_IA: Tensor, magnet_IA: Tensor) -> FloatArray | None:
    """``α log(π_k/ρ)`` of each action if the magnet is in the reward, else None."""
    if not isinstance(objective, RewardTransformedPolicyGradient):
        return None
    return (objective.magnet_strength * (behavior_IA - magnet_IA)).numpy()


def run_sampled(
    method: Method,
    game: ExtensiveGame,
    updates: int = 300,
    *,
    seed: int = 0,
    settings: SelfPlaySettings | None = None,
    tremble: float = 0.0,
    measure_at: Iterable[int] | None = None,
    measure: Callable[[FloatArray], float] | None = None,
    progress: bool = False,
) -> ExtensiveTrace:
    """Train a small network by sampled self-play with a method's own policy-gradient loss.

    Each update: play episodes with the current network in both seats, take ``gradient_steps`` steps of Adam on the
    method's loss of that batch, let the schedule move the magnet network (weights are mixed, as for language models).
    No value of any action is ever looked up in the tree; it serves to play many episodes at once and to measure.

    Args:
        method: Its objective must be a policy gradient, its opponent itself.
        game: The listed game.
        updates: Number of updates, at least 0.
        seed: Of the first weights and of the episodes; the same seed gives the same run.
        settings: See `SelfPlaySettings`.
        tremble: As in `magnetar.games.extensive.run_exact`, mixed into the magnet's probabilities.
        measure_at: Numbers of updates at which to measure; by default `measuring_points`.
        measure: Exploitability of a policy (I, A); OpenSpiel's function by default.
        progress: Show a progress bar on stderr.

    Returns:
        The trace; exact, as every information state is listed, though the training is not.

    Raises:
        ConfigError: A count or a seed that is not an integer in its range, tremble outside [0, 1), settings of another
            kind, or a method without a sampled behavioural form.
        GameError: Not a listed game.
        NonFiniteLossError: The loss became NaN or infinite.

    Source: arXiv:2410.16714, Algorithm 1.
    """
    check_extensive(game)
    points = measuring_points(updates, measure_at)
    check_tremble(tremble)
    checked_integer("seed", seed, 0, at_most=LARGEST_SEED)
    settings = SelfPlaySettings() if settings is None else settings
    check_kind("settings", settings, SelfPlaySettings, "for instance SelfPlaySettings(episodes=4096)")
    learner = _Learner(method, game, settings, seed, tremble)
    rng = np.random.default_rng(seed)
    measure = Exploitability(game) if measure is None else measure
    wanted, last, moves = set(points.tolist()), [], []
    if 0 in wanted:
        last.append(measure(learner.policy()))
    for update in counted(updates, progress, f"{game.name} {method.name} seed {seed}", leave=False):
        learner.learn(play_episodes(game, learner.policy(), learner.settings.episodes, rng), update)
        rate = method.magnet.rate(MagnetClock(update=update))
        if rate > 0:
            learner.move_magnet(rate)
            moves.append(update)
        if update in wanted:
            last.append(measure(learner.policy()))
    return ExtensiveTrace(
        method=method.name,
        game=game.name,
        updates=points,
        exploitability=np.array(last),
        average_exploitability=None,
        policy=learner.policy(),
        magnet=np.where(game.legal, learner.magnet_table().exp().numpy(), 0.0),
        magnet_moves=np.array(moves, dtype=np.int64),
    )


class _Learner:
    """The network, its magnet and its optimiser. Every table of log-probabilities is one pass over all inputs."""

    def __init__(
        self, method: Method, game: ExtensiveGame, settings: SelfPlaySettings, seed: int, tremble: float
    ) -> None:
        self.objective = sampled_form(method)
        self.game, self.settings, self.tremble = game, settings, tremble
        self.inputs = torch.from_numpy(infostate_tensors(game)).float()
        self.legal = torch.from_numpy(game.legal)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _network(self.inputs.shape[1], settings.hidden, game.num_actions)
            self.magnet = _network(self.inputs.shape[1], settings.hidden, game.num_actions)
        self.magnet.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self._magnet_table: Tensor | None = None

    def table(self, network: nn.Module) -> Tensor:
        """Log-probabilities of every action everywhere, shape (I, A)."""
        return torch.log_softmax(network(self.inputs).double().masked_fill(~self.legal, IMPOSSIBLE), dim=-1)

    @torch.no_grad()
    def policy(self) -> FloatArray:
        """The current policy, shape (I, A)."""
        return np.where(self.game.legal, self.table(self.network).exp().numpy(), 0.0)

    @torch.no_grad()
    def magnet_table(self) -> Tensor:
        """Log-probabilities of the magnet, computed once after each move."""
        if self._magnet_table is None:
            table = self.table(self.magnet)
            if self.tremble > 0:
                uniform = self.legal / self.legal.sum(-1, keepdim=True)
                mixed = (1.0 - self.tremble) * table.exp() + self.tremble * uniform
                table = mixed.log().masked_fill(~self.legal, IMPOSSIBLE)
            self._magnet_table = table
        return self._magnet_table

    def learn(self, episodes: Episodes, update: int) -> None:
        """Steps of Adam on one batch."""
        with torch.no_grad():
            behavior = self.table(self.network)
        magnet = self.magnet_table()
        decisions = Decisions.collect(self.game, episodes, _fees(self.objective, behavior, magnet))
        for _ in range(self.settings.gradient_steps):
            batch = decisions.batch(self.table(self.network), behavior, magnet, self.objective)
            loss = (self.objective(batch).loss_BG * batch.response_weight_BG).sum()
            if not torch.isfinite(loss):
                raise NonFiniteLossError(f"the loss in update {update} is {loss.item()}; use a smaller learning rate")
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def move_magnet(self, rate: float) -> None:
        """Mix the network's weights into the magnet's; a rate of 1 copies them."""
        for old, new in zip(self.magnet.parameters(), self.network.parameters(), strict=True):
            old.lerp_(new, rate)
        self._magnet_table = None


def _network(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def sampled_form(method: Method) -> PolicyGradient:
    """The loss that a method has on sampled episodes.

    Args:
        method: Any method of the zoo.

    Returns:
        Its objective.

    Raises:
        ConfigError: It is not a policy gradient in self-play, or its magnet watches exact payoffs or waits for rounds.
    """
    check_kind("method", method, Method, "build it, for instance methods.mpo()")
    objective = method.objective
    if not isinstance(objective, PolicyGradient) or not method.opponent.is_self_play or method.prediction != "none":
        raise ConfigError(
            f"method {method.name!r} has no sampled form in extensive games, expected a policy gradient in self-play "
            "without prediction; choose mpo, mpo_rt, mmd or mirror_descent"
        )
    if method.magnet.needs_progress:
        raise ConfigError(f"method {method.name!r} has a magnet that watches exact payoffs, which sampling has not")
    check_schedule(method)
    return objective
