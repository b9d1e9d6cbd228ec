"""The training loop, its stages, schedule, recipes and checkpoints."""
