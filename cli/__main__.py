"""`python -m mpserve.cli` is the mpserve command."""

from mpserve.cli import main

if __name__ == "__main__":
    main()
