"""Run the command line as ``python -m regraft``."""

from regraft.cli import main

if __name__ == "__main__":
    main()
