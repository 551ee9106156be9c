"""HTML from templates, and the security headers of every page."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import jinja2
from fastapi.responses import HTMLResponse

from packager import __version__

if TYPE_CHECKING:
    from fastapi import Request

    from packager.api.entities import StoredPackaging

_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: it sets the Origin of forms to null, and the Origin tells our forms from those of other sites.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def security_headers(**changed: str) -> dict[str, str]:
    """Return the security headers; keywords replace directives of the policy (`style_src="'self'"`)."""
    policy = _SECURITY["Content-Security-Policy"]
    for name, value in changed.items():
        directive = name.replace("_", "-")
        policy = "; ".join(
            f"{directive} {value}" if part.split()[0] == directive else part for part in policy.split("; ")
        )
    return {**_SECURITY, "Content-Security-Policy": policy}


def age_of(time: str, now: datetime | None = None) -> str:
    """Return the age of an RFC 3339 time in its largest unit; empty for an invalid time."""
    try:
        then = datetime.fromisoformat(time.replace("Z", "+00:00"))
    except ValueError:
        return ""
    seconds = max(0, int(((now or datetime.now(timezone.utc)) - then).total_seconds()))
    size, unit = next((each for each in _UNITS if seconds >= each[0]), _UNITS[-1])
    return f"{seconds // size} {unit}"


def image_of(packaging: StoredPackaging) -> str:
    """Return the image of a packaging, by digest if it is known."""
    results = {result.name: result.value for result in packaging.status.results}
    return results.get("imageDigest") or results.get("image", "")


def short_image(image: str) -> str:
    """Return an image with a digest of twelve digits."""
    name, found, digest = image.partition("@sha256:")
    return f"{name}@sha256:{digest[:12]}…" if found else image


def render(request: Request, template: str, status: int = 200, /, **values: object) -> HTMLResponse:
    """Return a page."""
    caller = getattr(request.state, "principal", None)
    text = _environment.get_template(f"{template}.html").render(
        caller=caller,
        has_login=request.app.state.service.settings.has_identity,
        path=request.url.path,
        version=__version__,
        **values,
    )
    return HTMLResponse(text, status)


_environment = jinja2.Environment(
    loader=jinja2.PackageLoader("packager.api.web"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(age=age_of, image=image_of, short=short_image)
