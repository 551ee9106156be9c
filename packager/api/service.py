"""What the routes work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packager.api.validation import ValidationContext, complete_packaging, connection_ids

if TYPE_CHECKING:
    from packager.api.config import ApiSettings
    from packager.api.entities import NewPackaging
    from packager.api.identity import Identity
    from packager.api.store import Store
    from packager.models.packaging import PackagingIntegration


@dataclass(frozen=True, kw_only=True)
class Service:
    """All that one process of the service has; the routes find it in `request.app.state.service`."""

    settings: ApiSettings
    store: Store
    identity: Identity

    def complete(self, new: NewPackaging) -> NewPackaging:
        """Return a packaging with its defaults filled in, checked against what is there.

        Raises:
            RequestError: Lists every problem.
        """
        name, default = new.spec.integration_name, self.settings.output_connection
        integration = self.integration(name)
        wanted = connection_ids(new.spec, integration, default)
        world = ValidationContext(
            integration=integration,
            connections=self.store.connections.find_all(wanted),
            output_connection=default,
            models_at_hand=self.settings.models_dir is not None,
        )
        return complete_packaging(new, world)

    def integration(self, integration_id: str) -> PackagingIntegration | None:
        """Return an integration as the packager reads it, or None."""
        from packager.api.store.entity_repository import as_integration  # noqa: PLC0415

        found = self.store.integrations.find_all([integration_id]).get(integration_id)
        return as_integration(found) if found else None
