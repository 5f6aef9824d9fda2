"""The addresses of the explorer: a page and the JSON functions of each view, and the files that pages consist of.

``/`` leads to the first view, ``/NAME`` is the page of a view, ``/api/NAME/FUNCTION`` one of its functions, and
``/static/…`` a file of this package: those are read once, and looked up by their name, so no path is ever joined.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from convoxel import __version__
from convoxel.draw.theme import DARK, LIGHT, colour, hexadecimal
from convoxel.errors import ConvoxelError
from convoxel.explorer import fields_view, inside_view, layer_view, lecture_view, network_view, opened_image, runs_view
from convoxel.explorer.session import ForbiddenPath, Session
from convoxel.explorer.view import Answer, Picture, Query, View, plain

VIEWS: tuple[View, ...] = (
    layer_view.VIEW, network_view.VIEW, fields_view.VIEW, inside_view.VIEW, runs_view.VIEW, lecture_view.VIEW,
)  # fmt: skip
# Functions that pages of several views ask.
SHARED: tuple[View, ...] = (
    opened_image.VIEW,
    View("session", "", "", {"entries": lambda session, query: {"entries": session.entries(query.text("path"))}}),
)
# More pairs than any page sends.
_MOST_PAIRS = 200
_RAMP = 16  # steps of the ramp that style sheets know
_HERE = Path(__file__).parent
_IMPORT = re.compile(r'\bfrom\s+"(\./[\w./]+)"')
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2"}


def page_templates() -> Environment:
    """Return the templates of all pages."""
    return Environment(
        loader=FileSystemLoader(_HERE / "templates"), undefined=StrictUndefined, autoescape=True,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def build_app(session: Session, views: tuple[View, ...] = VIEWS) -> Starlette:
    """Return the application; whoever reaches it may ask everything, so it belongs behind a ``Gate``."""
    templates = page_templates()
    files = static_files(templates)
    routes = [
        Route("/", partial(_start, session=session, views=views)),
        Route("/static/{name:path}", partial(_static, files=files)),
    ]
    for view in (*views, *SHARED):
        for name, answer in view.answers.items():
            asked = partial(_answered, session=session, answer=answer)
            routes.append(Route(f"/api/{view.name}/{name}", asked))
        for name, answer in view.actions.items():
            acted = partial(_answered, session=session, answer=answer, changes=True)
            routes.append(Route(f"/api/{view.name}/{name}", acted, methods=["POST"]))
    for view in views:
        modules = imported_modules(files, f"{view.name}.js")
        page = partial(_page, templates=templates, session=session, view=view, views=views, modules=modules)
        routes.append(Route(f"/{view.name}", page))
    app = Starlette(routes=routes, exception_handlers={HTTPException: _missing, Exception: _broken})
    app.router.redirect_slashes = False  # every page has one address
    return app


async def _start(request: Request, session: Session, views: tuple[View, ...]) -> Response:
    """Lead to the network that was named, else to the first view."""
    named = session.roots or session.networks
    view = next((view for view in views if named and view.name == "network"), views[0])
    return RedirectResponse(f"/{view.name}", status_code=303)


async def _page(
    request: Request, templates: Environment, session: Session, view: View, views: tuple[View, ...], modules: list[str]
) -> Response:
    text = templates.get_template(f"{view.name}.html.jinja").render(
        view=view, views=views, version=__version__, readonly=session.readonly, networks=session.networks, kept=None,
        modules=modules,
    )  # fmt: skip
    return Response(text, media_type="text/html")


async def _static(request: Request, files: Mapping[str, tuple[bytes, str]]) -> Response:
    found = files.get(request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    return Response(found[0], media_type=found[1])


def static_files(templates: Environment) -> dict[str, tuple[bytes, str]]:
    """Return the content and the kind of every file that pages consist of, by its address below ``/static``."""
    folder = _HERE / "static"
    found = {
        path.relative_to(folder).as_posix(): (path.read_bytes(), _KINDS[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.suffix in _KINDS
    }
    style = templates.get_template("style.css.jinja").render(themes={"light": _tokens(False), "dark": _tokens(True)})
    return {**found, "style.css": (style.encode(), _KINDS[".css"])}


def imported_modules(files: Mapping[str, tuple[bytes, str]], name: str) -> list[str]:
    """Return the modules that a module imports, directly or by others: a page names them, to load all at once."""
    found, open_ones = dict[str, None](), [name]
    for module in open_ones:
        text = files[module][0].decode() if module in files else ""
        new = [posixpath.normpath(posixpath.join(posixpath.dirname(module), path)) for path in _IMPORT.findall(text)]
        open_ones += [each for each in dict.fromkeys(new) if each not in found]
        found.update(dict.fromkeys(new))
    return sorted(found)


def _tokens(dark: bool) -> dict[str, str]:
    """Return the colours of one theme: those of pictures, the ramp in steps, and text over either."""
    steps = {f"ramp{step}": f"ramp:{step / (_RAMP - 1):.3f}" for step in range(_RAMP)}
    over = {f"on-c{number}": f"on:c{number}" for number in range(1, 8)} | {
        f"on-{n}": f"on:{r}" for n, r in steps.items()
    }
    return {
        **(DARK if dark else LIGHT),
        **{name: hexadecimal(colour(role, dark)) for name, role in {**steps, **over}.items()},
    }


async def _answered(request: Request, session: Session, answer: Answer, changes: bool = False) -> Response:
    """Run a function of a view in a thread, so that pages answer meanwhile."""
    if changes and session.readonly:
        return _json({"error": "The explorer was started with --readonly; it starts and measures nothing."}, 403)
    pairs = tuple(request.query_params.multi_items())
    if changes:
        try:
            given = json.loads(await request.body() or b"[]")
            pairs = tuple((str(name), str(value)) for name, value in given)
        except (ValueError, TypeError, RecursionError):
            return _json({"error": "The body is not a list of pairs in JSON."}, 400)
    if len(pairs) > _MOST_PAIRS:
        return _json({"error": f"More than {_MOST_PAIRS} words came with the request."}, 400)
    try:
        found = await run_in_threadpool(answer, session, Query(pairs))
        return Response(found.content, media_type="image/png") if isinstance(found, Picture) else _json(found)
    except ForbiddenPath as error:
        return _json({"error": str(error), "kind": "ForbiddenPath"}, 403)
    except ConvoxelError as error:
        # A layer that does not fit is an answer like others; browsers would report a failure for another status.
        return _json({"error": str(error), "kind": type(error).__name__})


def _json(value: object, status: int = 200) -> Response:
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A signed number of a lone half of a character, as file names may hold, has no UTF-8.
    return Response(text.encode("utf-8", "replace"), status, media_type="application/json")


async def _missing(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    reason = {404: "There is nothing at this address.", 405: "This address is asked in another way."}.get(status, "")
    return Response(reason, status, headers, "text/plain")


async def _broken(request: Request, error: Exception) -> Response:
    """Tell the page that it met a bug; the terminal gets the details."""
    traceback.print_exception(error, file=sys.stderr)
    return _json({"error": "this is a bug in Convoxel; the terminal shows where. Please report it."}, 500)
