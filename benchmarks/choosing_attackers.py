"""How often the interval of the best of several attackers covers what the chosen one is worth, by how it is chosen.

    python benchmarks/choosing_attackers.py

All attackers are worth the same: choosing among equals is where luck counts most. "split" chooses on one half of the
prompts and reports on the other; "crossed" does that both ways round and reports the mean over all prompts; "none"
chooses and reports on all of them.
"""

import json

import numpy as np

PROMPTS, REPETITIONS, QUANTILE = 80, 4000, 1.959963984540054


def covers(values: np.ndarray) -> bool:
    return bool(abs(values.mean()) < QUANTILE * values.std(ddof=1) / len(values) ** 0.5)


def coverage(attackers: int, correlation: float, rng: np.random.Generator) -> dict[str, float]:
    """Coverage of 95% intervals; win rates of two attackers on one prompt have the given correlation."""
    counts = dict.fromkeys(("split", "crossed", "none"), 0)
    for _ in range(REPETITIONS):
        own = rng.normal(size=(attackers, PROMPTS))
        rates = correlation**0.5 * rng.normal(size=PROMPTS) + (1.0 - correlation) ** 0.5 * own
        first, second = rates[:, : PROMPTS // 2], rates[:, PROMPTS // 2 :]
        best_of_first, best_of_second = first.mean(1).argmax(), second.mean(1).argmax()
        counts["split"] += covers(second[best_of_first])
        counts["crossed"] += covers(np.concatenate([second[best_of_first], first[best_of_second]]))
        counts["none"] += covers(rates[rates.mean(1).argmax()])
    return {name: count / REPETITIONS for name, count in counts.items()}


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    for attackers, correlation in ((2, 0.0), (12, 0.0), (12, 0.7)):
        found = {"attackers": attackers, "correlation": correlation, **coverage(attackers, correlation, rng)}
        print(json.dumps(found), flush=True)
