"""The whole way on faces that are drawn on the spot: `faces` draws, `run` does, `page` shows."""
