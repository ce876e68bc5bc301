"""Trunk and head trained phase by phase: heads, phases, augmentation, the one loop, checkpoints."""
