"""How the HTTP door answers: JSON, or a problem (RFC 9457) for whatever could not be done."""

from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from navarch_api.types import Problem
from navarch_gateway.refusal import refusal_of

_CODES = {404: "not-found", 405: "method-not-allowed"}
_RETRY_AFTER_S = "1"


def answer(view: object, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(view), status, media_type="application/json", headers={"Cache-Control": "no-store"}
    )


def problem(status: int, code: str, detail: str, *, instance: str = "", field: str = "") -> Response:
    title = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
    body = Problem(title=title, status=status, code=code, detail=detail, instance=instance[:1024], field=field)
    headers = {"Cache-Control": "no-store"}
    if status in (429, 503):
        headers["Retry-After"] = _RETRY_AFTER_S
    return Response(msgspec.json.encode(body), status, media_type="application/problem+json", headers=headers)


def failure(request: Request, error: Exception) -> Response:
    found = refusal_of(error)
    return problem(found.status, found.code, found.detail, instance=request.url.path, field=found.field)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: an unknown path, a method that a path does not have."""
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "refused")
    detail = f"{request.method} {request.url.path[:200]}: {error.detail}"
    response = problem(error.status_code, code, detail, instance=request.url.path)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response
