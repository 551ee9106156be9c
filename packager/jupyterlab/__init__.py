"""The JupyterLab panel: the browser extension (`labextension/`) and the server extension.

The browser extension is built from the top-level folder `labextension`. The server extension calls the API service with
a token that no browser sees.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

NAME = "packager-jupyterlab"


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": NAME}]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "packager.jupyterlab"}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    """Add the routes to a Jupyter server; the server calls this function."""
    from packager.jupyterlab.access import find_access  # noqa: PLC0415  (only in a Jupyter server)
    from packager.jupyterlab.handlers import routes  # noqa: PLC0415
    from packager.jupyterlab.service import Service  # noqa: PLC0415

    service = Service(partial(find_access, dict(os.environ)))
    server.web_app.add_handlers(".*$", routes(server.web_app.settings["base_url"], service))  # type: ignore[no-untyped-call]
    server.log.info("packager: the panel's server is loaded")
