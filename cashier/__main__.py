"""`python -m cashier`, the same as the command `cashier`."""

from cashier.cli.commands import main

if __name__ == "__main__":
    main()
