"""``python -m msam`` is the command ``msam``."""

from msam.cli.main import main

if __name__ == "__main__":
    main()
