"""Where pictures come from, how they are decoded, and how they are fitted to a model."""
