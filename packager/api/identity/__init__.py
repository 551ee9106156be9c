"""Who calls: bearer tokens of a file, tokens of an OpenID Connect provider, or everyone on this machine."""

from __future__ import annotations

from packager.api.identity.base import Identity, Principal, UnknownCallerError
from packager.api.identity.selection import identity_from

__all__ = ["Identity", "Principal", "UnknownCallerError", "identity_from"]
