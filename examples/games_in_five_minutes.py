"""Why the magnet moves: four methods on biased rock–paper–scissors, exactly, in a second."""

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


if __name__ == "__main__":
    main()
