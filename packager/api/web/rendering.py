"""HTML from templates, and the headers that every page is sent with."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import jinja2
from fastapi.responses import HTMLResponse

from packager import __version__

if TYPE_CHECKING:
    from fastapi import Request

    from packager.api.entities import ModelPackaging

_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: a form's Origin would then be null, and by it we tell our own forms from those of other sites.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def security_headers(**changed: str) -> dict[str, str]:
    """Return the headers of a page; a keyword replaces the policy of its directive (`style_src="'self'"`)."""
    policy = _SECURITY["Content-Security-Policy"]
    for name, value in changed.items():
        directive = name.replace("_", "-")
        policy = "; ".join(
            f"{directive} {value}" if part.split()[0] == directive else part for part in policy.split("; ")
        )
    return {**_SECURITY, "Content-Security-Policy": policy}


def age_of(time: str, now: datetime | None = None) -> str:
    """Say how long ago an RFC 3339 time was, in its largest unit; nothing for what is no time."""
    try:
        then = datetime.fromisoformat(time.replace("Z", "+00:00"))
    except ValueError:
        return ""
    seconds = max(0, int(((now or datetime.now(timezone.utc)) - then).total_seconds()))
    size, unit = next((each for each in _UNITS if seconds >= each[0]), _UNITS[-1])
    return f"{seconds // size} {unit}"


def image_of(packaging: ModelPackaging) -> str:
    """Return the image that a packaging has made, by digest where that's known."""
    results = {result.name: result.value for result in packaging.status.results}
    return results.get("imageDigest") or results.get("image", "")


def shortened_image(image: str) -> str:
    """Return an image with the first twelve digits of its digest."""
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
_environment.filters.update(age=age_of, image=image_of, short=shortened_image)
