"""Launcher for a checkout: `python cli.py train ...` does what `faceidx train ...` does."""

from faceidx.cli import run

if __name__ == "__main__":
    run()
