"""`python -m orchestrator` is the same as the command `ota`."""

from orchestrator.cli.main import main

if __name__ == "__main__":
    main()
