"""Asking before minutes of work: may we push there at all?"""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING

from packager.registry.transport import RegistrySession

if TYPE_CHECKING:
    import httpx

    from packager.models.reference import Reference
    from packager.registry.access import RegistryAccess
    from packager.registry.retries import Retries

log = logging.getLogger(__name__)


def check_push(
    reference: Reference,
    access: RegistryAccess,
    *,
    transport: httpx.BaseTransport | None = None,
    retries: Retries | None = None,
) -> None:
    """Begin an upload into a repository and call it off: whoever may do that may push.

    Raises:
        RegistryAuthError: The registry refuses the credentials, or this user may not push there.
        RegistryUnreachableError: It can't be reached, or its certificate can't be trusted.
        RegistryError: It answers with another error.
    """
    with closing(RegistrySession(reference, access, verb="push", transport=transport, retries=retries)) as session:
        response = session.request("POST", session.url("blobs/uploads/"))
        location = session.location(response)
        if not location:  # a web page's server may answer everything with 200: containers/image#1421
            raise session.wrong("begins an upload without saying where")
        log.debug("%s accepts pushes to %s", reference.host, reference.repository)
        session.cancel(location)
