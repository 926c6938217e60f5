"""The page that a browser shows: its files, read once, sent compressed and known by what is in them."""

from __future__ import annotations

import gzip
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class File(NamedTuple):
    """A file of the page: as it is, and compressed."""

    kind: str
    etag: str
    plain: bytes
    packed: bytes


@cache
def files() -> dict[str, File]:
    """By name. They are 100 KiB together, and stay in memory from the first question on."""
    found = [one for one in Path(__file__).parent.iterdir() if one.suffix in TYPES]
    return {one.name: _file(one.suffix, one.read_bytes()) for one in found}


def _file(suffix: str, data: bytes) -> File:
    return File(TYPES[suffix], f'"{sha256(data).hexdigest()[:16]}"', data, gzip.compress(data, mtime=0))


async def index(request: web.Request) -> web.Response:
    return _answer(request, "index.html")


async def static(request: web.Request) -> web.Response:
    return _answer(request, request.match_info["name"])


def _answer(request: web.Request, name: str) -> web.Response:
    """A browser asks each time, and is told when it has the file already: a new version shows at once."""
    file = files().get(name)
    if file is None:
        raise web.HTTPNotFound
    headers = {"Cache-Control": "no-cache", "ETag": file.etag, "Vary": "Accept-Encoding"}
    if request.headers.get("If-None-Match") == file.etag:
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = file.kind
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=file.plain, headers=headers)
    return web.Response(body=file.packed, headers=headers | {"Content-Encoding": "gzip"})
