"""botocore retries by itself what is transient; here it's made to say so."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from packager.logs.sanitize import sanitize

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest, AWSResponse
    from botocore.client import BaseClient

log = logging.getLogger(__name__)

ATTEMPTS = 5  # of every call, the first included; botocore waits up to 20 seconds between two
_ATTEMPT = re.compile(r"\battempt=(\d+)")


def tell_retries(client: BaseClient) -> None:
    """Log each retry of a client's calls, once, with the reason.

    The events and the header that counts the attempts are those of botocore's `standard` retry mode.
    """
    causes: list[str] = []

    def keep(
        response: tuple[AWSResponse, dict[str, Any]] | None, caught_exception: Exception | None, **_others: object
    ) -> None:
        if response is not None:
            http, parsed = response
            error = parsed.get("Error", {})
            causes[:] = [sanitize(f"{error.get('Code', http.status_code)}: {error.get('Message', '')}")]
        else:
            causes[:] = [sanitize(str(caught_exception))]

    def tell(request: AWSPreparedRequest, **_others: object) -> None:
        header = request.headers.get("amz-sdk-request", b"")
        found = _ATTEMPT.search(header.decode() if isinstance(header, bytes) else header)
        if found and int(found[1]) > 1 and causes:
            log.warning("asking AWS again (attempt %s of %d): %s", found[1], ATTEMPTS, causes[0])

    client.meta.events.register("needs-retry", keep)
    client.meta.events.register("before-send", tell)
