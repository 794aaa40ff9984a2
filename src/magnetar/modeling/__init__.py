"""Language models: roles of a policy, log-probabilities of packed groups, loading."""
