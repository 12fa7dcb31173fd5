"""Training: the loop, optimizers and schedules, losses, checkpoints."""
