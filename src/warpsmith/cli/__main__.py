"""`python -m warpsmith.cli`, where the package is not installed."""

from warpsmith.cli import main

if __name__ == "__main__":
    main()
