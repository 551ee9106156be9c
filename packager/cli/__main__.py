"""`python -m packager.cli`."""

from packager.cli import main

main()
