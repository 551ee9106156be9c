"""`python -m packager`."""

from packager.launcher import main

main()
