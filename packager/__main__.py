"""`python -m packager`."""

from packager.start import main

main()
