"""What moves rollouts: evidence, time and operators, each decided by the core and stored in one transaction."""
