"""`python -m cashier` is the command `cashier`."""

from cashier.cli.commands import main

if __name__ == "__main__":
    main()
