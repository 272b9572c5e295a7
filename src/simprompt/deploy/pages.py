"""The documentation page of the HTTP interface, made from its OpenAPI description; no script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def docs_page(openapi: dict[str, Any]) -> str:
    """HTML with each path of an OpenAPI 3 description, its fields and its answers."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    schemas = openapi.get("components", {}).get("schemas", {})

    def fields(schema: dict[str, Any]) -> list[tuple[str, str, str]]:
        """(name, type, description) of an object's properties."""
        resolved = schemas.get(schema.get("$ref", "").rsplit("/", 1)[-1], schema)
        return [
            (name, _type(kind), kind.get("description", ""))
            for name, kind in resolved.get("properties", {}).items()
        ]

    environment.globals["fields"] = fields
    return environment.get_template("docs.html").render(api=openapi)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " or ".join(_type(variant) for variant in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    binary = schema.get("format") == "binary" or "contentMediaType" in schema
    return "file" if binary else str(schema.get("type", "object"))
