"""Backbones and their registry, model files, and the one door to any model: `open_model`."""
