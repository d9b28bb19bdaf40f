"""Where a step runs: how many processes, and how they agree on norms and decisions."""
