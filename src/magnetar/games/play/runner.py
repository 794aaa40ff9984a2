"""Play a method on exact games: every action enumerated, payoffs exact or from sampled duels."""

import reprlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from magnetar.errors import ConfigError, GameError
from magnetar.games.game import PreferenceGame
from magnetar.games.gaps import duality_gap, log_probabilities
from magnetar.games.length import check_length, counted, round_ends
from magnetar.games.play.feedback import SampledFeedback
from magnetar.games.play.state import PlayState
from magnetar.games.play.trace import Recorder, Trace
from magnetar.methods import MagnetClock, Method, OracleObjective

__all__ = ["run", "run_batch"]

FloatArray = NDArray[np.float64]


def run(
    method: Method,
    game: PreferenceGame,
    updates: int = 1000,
    *,
    initial: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    magnet: ArrayLike | None = None,
    feedback: SampledFeedback | None = None,
    rounds: int = 1,
    stop_at_gap: float | None = None,
    record: bool = False,
    progress: bool = False,
) -> Trace:
    """Run a method's exact updates on a game.

    One update against the current policy is one matrix–vector product and work linear in the number of actions: the
    payoffs of the policy just reached give its gap, and are the payoffs of the next update. All in log-probabilities;
    an action of probability zero stays there, except in the Euclidean methods.

    Args:
        method: Opponent, objective and magnet schedule.
        game: The game.
        updates: Number of updates, at least 0.
        initial: Starting policy, probabilities, shape (A,); uniform by default (the command line's is skewed).
        reference: Policy for the role "reference", probabilities, shape (A,); the starting policy by default.
        magnet: Starting magnet, probabilities, shape (A,); the reference by default.
        feedback: How the method's payoffs are sampled; exact by default.
        rounds: Self-play rounds that the updates are split into as evenly as possible, for schedules that move the
            magnet at the end of each round.
        stop_at_gap: Stop as soon as the current policy's duality gap is at most this; the trace is then shorter.
        record: Keep every policy and magnet in the trace; takes about (updates + 1) · A floats.
        progress: Show a progress bar on stderr.

    Returns:
        The trace.

    Raises:
        ConfigError: A negative number of updates, rounds that do not fit, or a magnet that excludes every action that
            the starting policy plays.
        GameError: A start that is not a distribution over the game's actions.
        NonFiniteLossError: An update gave NaN, which no setting should.
    """
    _check_method(method)
    check_length(updates, rounds)
    if not isinstance(game, PreferenceGame):
        many = "; for many games at once use games.run_batch" if isinstance(game, Sequence) else ""
        raise GameError(
            f"game is {reprlib.repr(game)}, expected a PreferenceGame: PreferenceGame(matrix), or "
            f"games.by_name('rps'){many}"
        )
    if feedback is not None and not isinstance(feedback, SampledFeedback):
        raise ConfigError(f"feedback is {feedback!r}, expected SampledFeedback(...), or None for exact payoffs")
    if stop_at_gap is not None and not stop_at_gap >= 0:
        raise ConfigError(f"stop_at_gap is {stop_at_gap}, expected a duality gap of at least 0")
    log_policy, log_reference, log_magnet = _starting_points(game, initial, reference, magnet)
    state = PlayState(method, game.P, log_policy, log_reference, log_magnet, feedback)
    recorder = Recorder(updates, state, record)
    _play(state, recorder, updates, rounds, stop_at_gap, progress)
    return recorder.trace(method.name, game.name, state)


def run_batch(
    method: Method,
    games: Sequence[PreferenceGame],
    updates: int = 1000,
    *,
    rounds: int = 1,
    record: bool = False,
    progress: bool = False,
) -> list[Trace]:
    """Run a method on many games in one call; games of the same size are played at once.

    Every game starts at the uniform policy, as with `run`, and gets the same trace. Where small games are many this is
    tens of times as fast as one after another, because an update of all of them costs a few calls of NumPy. Methods
    that ask each game questions of their own, or whose magnet watches the policy, still run one game after another.

    Args:
        method: Opponent, objective and magnet schedule.
        games: The games, of any sizes.
        updates: Number of updates, at least 0.
        rounds: As in `run`.
        record: As in `run`; takes (updates + 1) times the number of all actions.
        progress: Show a progress bar on stderr, for each size of game.

    Returns:
        One trace a game, in the order given.

    Raises:
        ConfigError: A negative number of updates, or rounds that do not fit.
        NonFiniteLossError: An update gave NaN, which no setting should.
    """
    _check_method(method)
    check_length(updates, rounds)
    games = list(games) if isinstance(games, Iterable) else [games]
    for game in games:
        if not isinstance(game, PreferenceGame):
            raise GameError(f"games holds {reprlib.repr(game)}, expected PreferenceGame objects only")
    if isinstance(method.objective, OracleObjective) or method.magnet.needs_progress:  # each game goes its own way
        return [run(method, game, updates, rounds=rounds, record=record, progress=progress) for game in games]
    traces: dict[int, Trace] = {}
    for size in dict.fromkeys(game.num_actions for game in games):
        members = [i for i, game in enumerate(games) if game.num_actions == size]
        start = np.full((len(members), size), -np.log(size))
        state = PlayState(method, np.stack([games[i].P for i in members]), start, start, start, feedback=None)
        recorder = Recorder(updates, state, record)
        _play(state, recorder, updates, rounds, None, progress)
        for place, i in enumerate(members):
            traces[i] = recorder.trace(method.name, games[i].name, state, index=place)
    return [traces[i] for i in range(len(games))]


def _check_method(method: Method) -> None:
    if not isinstance(method, Method):
        raise ConfigError(
            f"method is {method!r}, expected a Method: call its function, methods.mpo(), or methods.build_method('mpo')"
        )


def _play(
    state: PlayState, recorder: Recorder, updates: int, rounds: int, stop_at_gap: float | None, progress: bool
) -> None:
    """Make the updates and record them."""
    method = state.method
    ends = round_ends(updates, rounds)
    first_move: float | None = None
    # A step beyond the range of float64 rightly ends at log-probability -inf: that overflow is no error.
    with np.errstate(over="ignore"):
        for update in counted(updates, progress):
            if stop_at_gap is not None and duality_gap(state.payoff) <= stop_at_gap:
                break
            before = state.policy
            state.update_policy()
            if (own := state.own_magnet()) is not None:
                state.place_magnet(own)
                recorder.record_move(update, state)
            move = None
            if method.magnet.needs_progress:
                move = 0.5 * float(np.abs(state.policy - before).sum())
                first_move = move if first_move is None else first_move
            rate = method.magnet.rate(MagnetClock(update, update in ends, move, first_move))
            if rate > 0:
                state.move_magnet(rate)
                recorder.record_move(update, state)
                first_move = None
            recorder.record(update, state)


def _starting_points(
    game: PreferenceGame, initial: ArrayLike | None, reference: ArrayLike | None, magnet: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log-probabilities of policy, reference and magnet; each that is not given is the one before it."""
    uniform = np.full(game.num_actions, 1.0 / game.num_actions)
    start = log_probabilities(game.distribution(uniform if initial is None else initial, "initial"))
    log_reference = start if reference is None else log_probabilities(game.distribution(reference, "reference"))
    log_magnet = log_reference if magnet is None else log_probabilities(game.distribution(magnet, "magnet"))
    if np.isneginf(start + log_magnet).all():
        raise ConfigError(
            "the magnet gives probability zero to every action that the starting policy plays, expected at least one "
            "in common; give the magnet all the actions that the policy may use"
        )
    return start, log_reference, log_magnet
