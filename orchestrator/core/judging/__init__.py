"""What the evidence says of a release: its arithmetic, who counts as what, and what follows for the rollout."""
