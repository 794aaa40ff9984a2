"""A small network learns to play from judged samples alone: where self-play, a fixed and a moving magnet end."""

from magnetar import games, methods
from magnetar.games.neural import GroupSampling, MLPPolicy, OptimizerSettings, run_neural


def main() -> None:
    game = games.biased_rps()
    for method in (
        methods.mirror_descent(step_size=1.0),  # plain self-play: collapses onto one action after the other
        methods.mmd(step_size=1.0, magnet_strength=0.3),  # a fixed magnet: stops beside the equilibrium
        methods.mpo(step_size=1.0, magnet_strength=0.3, magnet_every=20),  # a moving magnet: arrives, up to the noise
    ):
        trace = run_neural(
            method,
            game,
            updates=300,
            policy=MLPPolicy(hidden=10, layers=3, seed=1),
            feedback=GroupSampling(responses=64, seed=1),  # 64 responses an update, every pair one coin flip of P
            optimizer=OptimizerSettings("adam", learning_rate=0.003, inner_steps=4),
        )
        print(f"{method.name:<15} last gap {trace.duality_gap[-50:].mean():.3f}  after {trace.duels[-1]} duels")


if __name__ == "__main__":
    main()
