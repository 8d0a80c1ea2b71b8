"""Errors as OpenAPI describes them: every one has the same body."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

Described = dict[int | str, dict[str, Any]]


class Misfit(BaseModel):
    """One place where a request does not fit the route's description."""

    where: str = Field(description="Such as body.prompts.0.ijk")
    what: str


class Problem(BaseModel):
    """What was wrong, and the remedy."""

    detail: str
    errors: list[Misfit] | None = Field(None, description="For programs, where a request does not fit")


def problems(why: Mapping[int, str], *codes: int) -> Described:
    """Describe errors.

    Args:
        why: what each status means.
        codes: those that can come; default: all.
    """
    return {code: {"model": Problem, "description": why[code]} for code in codes or why}


COMMON = problems(
    {
        401: "Nobody is logged in, where logins are needed",
        403: "Your role, your address or the page that you came from may not do this",
        404: "There is no such image, label, model, study or case",
        413: "The request is too large",
        422: "The request cannot be used; the detail says why",
    }
)
"""What most routes can answer."""


def as_json(described: dict[str, Any]) -> dict[str, Any]:
    """Say that errors are JSON; FastAPI describes them in the type of a route's good answers. Changes what it gets."""
    operations = [operation for ways in described["paths"].values() for operation in ways.values()]
    for code, answer in [item for operation in operations for item in operation["responses"].items()]:
        if code >= "400" and answer.get("content"):
            answer["content"] = {"application/json": next(iter(answer["content"].values()))}
    return described
