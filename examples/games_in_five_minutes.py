"""Why the magnet moves, and what it gains by moving at the right time: exactly, in seconds."""

from magnetar import games, methods


def main() -> None:
    game = games.biased_rps()
    print("equilibrium", game.equilibrium().round(4))
    for method in (
        methods.mirror_descent(step_size=0.1),  # plain self-play: the last policy circles
        methods.mmd(step_size=1.2, magnet_strength=0.3),  # a fixed magnet: stops beside the equilibrium
        methods.mpo(step_size=1.2, magnet_strength=0.3, magnet_every=10),  # a moving magnet: arrives
        methods.mpo_rt(step_size=1.2, magnet_strength=0.3, magnet_every=10),
    ):
        trace = games.run(method, game, updates=1000)
        print(f"{method.name:<15} last gap {trace.duality_gap[-1]:.1e}  average's gap {trace.average_gap[-1]:.1e}")

    game = games.noisy_bradley_terry(50, seed=0)
    print(f"\nevaluations of the payoffs until the gap is at most 1e-2, 1e-4, 1e-6 on {game.name}")
    for method in (
        methods.omwu(),  # optimistic, no magnet
        methods.mpo(),  # the magnet moves every ten updates
        methods.mpo_optimistic(),  # optimistic, and the magnet moves when steps are short
        methods.mpo_adaptive(),  # sets its own step size, and the magnet moves when the gap has shrunk
        methods.mpo_recall(),  # remembers every evaluation: for games only
    ):
        trace = games.run(method, game, updates=10_000, stop_at_gap=1e-6)
        counts = [trace.evaluations_to(gap) for gap in (1e-2, 1e-4, 1e-6)]
        print(f"{method.name:<15}", *(f"{count or 'never':>6}" for count in counts))


if __name__ == "__main__":
    main()
