"""The objects that the routes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packager.api.validation import ValidationContext, complete_packaging, connection_ids

if TYPE_CHECKING:
    from packager.api.config import ApiSettings
    from packager.api.entities import NewPackaging
    from packager.api.identity import Identity
    from packager.api.store import Store


@dataclass(frozen=True, kw_only=True)
class Service:
    """Settings, store and identity of one process; routes find it in `request.app.state.service`."""

    settings: ApiSettings
    store: Store
    identity: Identity

    def complete(self, new: NewPackaging) -> NewPackaging:
        """Validate a packaging against the stored entities and return it with its defaults filled in.

        Raises:
            RequestError: The packaging is invalid; lists every problem.
        """
        name, default = new.spec.integration_name, self.settings.output_connection
        integration = self.store.integrations.find_all([name]).get(name)
        context = ValidationContext(
            integration=integration,
            connections=self.store.connections.find_all(connection_ids(new.spec, integration, default)),
            output_connection=default,
            has_models_dir=self.settings.models_dir is not None,
        )
        return complete_packaging(new, context)
