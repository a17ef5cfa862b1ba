"""The viewer: OHIF below /viewer, where `make viewer` has put it, over this node's own DICOMweb.

It is a program of others and needs more than our own pages may do: scripts, workers and WebAssembly, from this origin
alone. That is allowed below its path and nowhere else. It contacts no third party.
"""

import json
import os
import re
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from starlette.exceptions import HTTPException

from dicom_node.web.dicomweb.service import PREFIX, READ

#: Where it is found.
VIEWER = "/viewer"

#: For this path alone: `unsafe-eval` is what its codecs' glue and its schema compiler ask for.
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob:; "
        "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self' data:; connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}

_ABSENT = (
    "The viewer is not installed. Whoever runs this node can fetch it once with `make viewer`, in the folder of the "
    "node's source; it then lies where viewer_dir of [web] says. The pages of the studies have pictures of their own."
)

#: Scripts that a viewer inside a hospital must not start: they speak to other hosts.
_UNWANTED = re.compile(r"<script[^>]*init-service-worker[^>]*></script>")


def study_template(folder: Path) -> str:
    """Where the viewer opens a study, with {study}; empty where nobody has put it into its folder."""
    return "" if _index_of(folder) is None else f"{VIEWER}/viewer?StudyInstanceUIDs={{study}}"


def _index_of(folder: Path) -> Path | None:
    """The viewer's first page; None where it is not there, or nobody lets this process look."""
    try:
        index = folder.expanduser() / "index.html"
    except RuntimeError:  # a service's user may have no home
        return None
    # Not by pathlib, which raises where a folder on the way is closed.
    return index if os.path.isfile(index) else None


def build_viewer(folder: Path, *, prefix: str = VIEWER, dicomweb: str = PREFIX) -> APIRouter:
    """The router over the folder that holds OHIF's files; they may come later."""
    router = APIRouter(tags=[READ])
    router.add_api_route(prefix, partial(_home, prefix), methods=["GET", "HEAD"], include_in_schema=False)

    def file(request: Request, path: str) -> Response:
        return _answer(request, folder, path, prefix, dicomweb)

    router.add_api_route(f"{prefix}/{{path:path}}", file, methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _home(prefix: str) -> Response:
    return Response(status_code=HTTPStatus.PERMANENT_REDIRECT, headers={"Location": f"{prefix}/"})


def _answer(request: Request, folder: Path, path: str, prefix: str, dicomweb: str) -> Response:
    index = _index_of(folder)
    if index is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, _ABSENT)
    headers = dict(SECURITY_HEADERS)
    if path == "app-config.js":
        root = f"{str(request.base_url).rstrip('/')}{dicomweb}"
        headers["Cache-Control"] = "no-cache"
        return Response(_configuration(root, prefix), headers=headers, media_type="text/javascript")
    found = _inside(index.parent, path)
    if found is not None:
        # Its names carry checksums of their contents.
        headers["Cache-Control"] = "private, max-age=3600"
        return FileResponse(found, headers=headers)
    if "." in path.rsplit("/", 1)[-1]:
        return Response(status_code=HTTPStatus.NOT_FOUND, headers=headers)
    # A page of the viewer's own, such as /viewer/viewer?StudyInstanceUIDs=...
    headers["Cache-Control"] = "no-cache"
    return HTMLResponse(_page(index.read_text(encoding="utf-8"), prefix), headers=headers)


def _inside(folder: Path, path: str) -> Path | None:
    """A file of the folder by its path; None for what is none, and for what leads out of it."""
    if "\x00" in path or not path or path == "index.html":
        return None
    root, found = folder.resolve(), (folder / path).resolve()
    return found if found.is_relative_to(root) and os.path.isfile(found) else None


def _page(html: str, prefix: str) -> str:
    """Its first page, which was made for the root of a host, below our path."""
    html = _UNWANTED.sub("", html)
    html = re.sub(r'(href|src|content)="/(?!/)', rf'\1="{prefix}/', html)
    html = html.replace('window.PUBLIC_URL="/"', f'window.PUBLIC_URL="{prefix}/"')
    return html.replace("<head>", f'<head><base href="{prefix}/">', 1)


def _configuration(root: str, prefix: str) -> str:
    """OHIF's configuration: one source of data, which is this node."""
    source = {
        "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
        "sourceName": "node",
        "configuration": {
            "friendlyName": "this node",
            "name": "node",
            "qidoRoot": root,
            "wadoRoot": root,
            "wadoUriRoot": root,
            "qidoSupportsIncludeField": True,
            "supportsFuzzyMatching": True,
            "supportsWildcard": True,
            "imageRendering": "wadors",
            "thumbnailRendering": "wadors",
            "enableStudyLazyLoad": True,
            "dicomUploadEnabled": False,
            "singlepart": "bulkdata,video",
            "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
            "omitQuotationForMultipartRequest": False,
        },
    }
    configuration = {
        "routerBasename": prefix,
        "extensions": [],
        "modes": [],
        "showStudyList": True,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": True,
        "showLoadingIndicator": True,
        "investigationalUseDialog": {"option": "always"},
        "maxNumberOfWebWorkers": 3,
        "defaultDataSourceName": "node",
        "dataSources": [source],
    }
    return f"window.config = {json.dumps(configuration)};\n"
