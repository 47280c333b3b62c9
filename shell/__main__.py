"""`python -m shell`: the command line, for where its script is not installed."""

from shell.cli import main

if __name__ == "__main__":
    main()
