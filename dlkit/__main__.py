"""`python -m dlkit` is `dlkit`."""

from dlkit.cli import run

if __name__ == "__main__":
    run()
