"""`python -m tests.docs.masklet`: the command line, whichever sources are on the path."""

from masklet.cli import main

if __name__ == "__main__":
    main()
