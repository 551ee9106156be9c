"""What httpx needs to know of TLS where none is spoken: else each of its clients reads all the system's authorities."""

from __future__ import annotations

import ssl

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
