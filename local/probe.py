"""Does a conda channel answer? Prints its address; exits 0 when it does, 1 when it doesn't.

python local/probe.py conda-forge
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

from packager.settings import Settings

SECONDS = 5


def main() -> int:
    """Ask the channel, where this machine's settings say it is, for the head of its index."""
    url = Settings.from_env(os.environ).conda_channel_alias.rstrip("/") + "/" + sys.argv[1]
    print(url)
    request = urllib.request.Request(f"{url}/noarch/repodata.json.zst", method="HEAD")  # noqa: S310  (the user's setting)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310
            return 0
    except (urllib.error.URLError, OSError):
        return 1


if __name__ == "__main__":
    sys.exit(main())
