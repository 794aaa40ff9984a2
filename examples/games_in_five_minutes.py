# %% [markdown]
# # Games in five minutes
#
# What it means that preferences run in circles, what goes wrong then, and why a magnet that moves puts it right. All of
# it is exact, and takes seconds.

# %%
import matplotlib.pyplot as plt
import numpy as np

from magnetar import games, methods

# %% [markdown]
# ## Three responses, and none is best
#
# A preference game is a matrix: `P[i, j]` is the probability that response i beats response j. Here 0 usually beats 1,
# 1 beats 2, and 2 beats 0. Annotators with different tastes make such circles all the time.

# %%
game = games.biased_rps()
print(game.P)

# %% [markdown]
# Always giving one answer is a bad idea: whichever it is, another one beats it. The *duality gap* of a policy says how
# much an opponent that knows it can win. Only the Nash equilibrium, which is a mixture here, has gap zero. A linear
# programme finds it:

# %%
for name, policy in {"always 0": [1, 0, 0], "uniform": [1 / 3] * 3, "equilibrium": game.equilibrium()}.items():
    print(f"{name:<12} {np.round(policy, 3)}  gap {game.duality_gap(np.asarray(policy, float)):.1e}")

# %% [markdown]
# ## Three ways to learn
#
# A language model cannot solve a linear programme over all texts. It can play against itself, and make what wins more
# likely. Each of these methods takes 1,000 such updates, from the uniform policy:

# %%
learners = {
    "self-play": methods.mirror_descent(step_size=0.1),  # no magnet
    "fixed magnet": methods.mmd(step_size=1.2, magnet_strength=0.3),  # a magnet that stays where training started
    "MPO": methods.mpo(step_size=1.2, magnet_strength=0.3, magnet_every=10),  # it moves to the policy every ten updates
    "MPO-RT": methods.mpo_rt(step_size=1.2, magnet_strength=0.3, magnet_every=10),  # the pull is part of the reward
}
traces = {name: games.run(method, game, updates=1000) for name, method in learners.items()}
for name, trace in traces.items():
    print(f"{name:<13} last gap {trace.duality_gap[-1]:.1e}  average's gap {trace.average_gap[-1]:.1e}")

# %% [markdown]
# Self-play's *average* is not bad, but nobody can serve the average of a thousand language models; its last policy is
# as far away as ever. The fixed magnet brings it to rest at the wrong place. With a magnet that moves, the last policy
# arrives.

# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for name, trace in traces.items():
    axes.loglog(np.arange(1, len(trace.duality_gap)), np.maximum(trace.duality_gap[1:], 1e-9), label=name)
axes.set(xlabel="update", ylabel="duality gap of the last policy", ylim=(1e-9, 1))
axes.legend()
figure

# %% [markdown]
# ## Where they go
#
# The three corners of the triangle are the three pure answers; every mixture is a point in it. The star is the
# equilibrium. This time they start near a corner.

# %%
corners = np.array([[0, 0], [1, 0], [0.5, 0.75**0.5]])
figure, row = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for axes, name in zip(row, ("self-play", "fixed magnet", "MPO"), strict=True):
    path = games.run(learners[name], game, updates=300, initial=[0.7, 0.2, 0.1], record=True).policies @ corners
    axes.fill(*corners.T, facecolor="none", edgecolor="grey")
    axes.plot(*path.T, linewidth=1)
    axes.plot(*path[-1], "o")
    axes.plot(*(game.equilibrium() @ corners), "*k", markersize=12)
    axes.set_title(name)
    axes.set_axis_off()
figure

# %% [markdown]
# ## A larger game, and a race
#
# Fifty responses with a noisy order between them. Training a language model costs by the question asked, so count
# those: how many evaluations of the payoffs until the gap is at most 1e-2, 1e-4, 1e-6?

# %%
game = games.noisy_bradley_terry(50, seed=0)
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

# %% [markdown]
# ## Your own game
#
# Any matrix with `P + Pᵀ = 1` will do; what is wrong with another is said with its row and column. There are [twenty
# kinds of ready-made games](../docs/games.md), from voters to poker, and real models against each other.

# %%
mine = games.PreferenceGame(np.array([[0.5, 0.7, 0.4], [0.3, 0.5, 0.9], [0.6, 0.1, 0.5]]))
print(mine.equilibrium().round(3))

# %% [markdown]
# A matrix game is a language model whose every response is one token, and the same methods train real ones: see [align
# with your own judge](align_with_your_judge.py).
