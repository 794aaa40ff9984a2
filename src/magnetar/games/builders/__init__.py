"""Ready-made games: a registry of builders by name, games from files and from judged pairs, suites of many."""
