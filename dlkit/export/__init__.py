"""Runs in other forms: bundles to send or ship, and what other programs read."""
