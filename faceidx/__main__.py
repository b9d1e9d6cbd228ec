"""`python -m faceidx` does what `faceidx` does."""

from faceidx.cli import run

if __name__ == "__main__":
    run()
