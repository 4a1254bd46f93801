"""`python -m orchestrator.demo` runs the demo."""

from orchestrator.demo.play import main

if __name__ == "__main__":
    main()
