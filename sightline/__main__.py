"""`python -m sightline`: the same as the command `sightline`. Everything else is in `cli`."""

from sightline.cli import main

if __name__ == "__main__":
    main()
