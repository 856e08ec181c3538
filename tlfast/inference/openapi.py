"""The OpenAPI description of the REST API of `tlfast serve`, as JSON and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from .classifier import Classifier
from .uploads import FIELD, Limits

BINARY = {"type": "string", "format": "binary"}
PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
TEXT = {"type": "string"}
HEALTH = {"type": "object", "properties": {"status": {"const": "ok"}}}
MODEL = {
    "type": "object",
    "properties": {"run": TEXT, "classes": {"type": "array", "items": TEXT}, "info": {"type": "object", "additionalProperties": TEXT}},
}
STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"


def build_openapi(classifier: Classifier, limits: Limits, with_token: bool, root_path: str = "") -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of the API. `with_token` adds bearer authentication; `root_path` is the path of the service behind a proxy."""
    description: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": f"tlfast: {classifier.info.get('task', '')}", "version": classifier.info.get("tlfast", "")},
        "paths": {
            "/predict": {"post": _describe_predict(classifier.classes, limits)},
            "/model": {"get": {"summary": "Classes and metadata of the model", "responses": {"200": _describe_json("run, classes, info", MODEL)}}},
            "/health": {
                "get": {"summary": "Health check; also /healthz", "responses": {"200": _describe_json("the server is running", HEALTH)}, "security": []}
            },
            "/metrics": {
                "get": {"summary": "Figures for Prometheus", "responses": {"200": {"description": "counters", "content": {"text/plain": {"schema": TEXT}}}}}
            },
        },
    }
    if root_path:
        description["servers"] = [{"url": root_path}]
    if with_token:
        description["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        description["security"] = [{"token": []}]
    return description


def _describe_predict(classes: Sequence[str], limits: Limits) -> dict[str, Any]:
    form = {"type": "object", "properties": {FIELD: {"type": "array", "items": BINARY}}, "required": [FIELD]}
    success = {"description": "the label of each image and its probabilities", "content": _json_content(_response_schema(classes))}
    problem = _json_content({"type": "object", "properties": {"error": {"type": "string"}}})
    errors = {code: {"description": text, "content": problem} for code, text in _describe_errors(limits).items()}
    return {
        "summary": f"Classify one or more images: files in the field '{FIELD}' of a form, or one image as the body",
        "parameters": [
            {"name": "top", "in": "query", "schema": {"type": "integer", "minimum": 1}, "description": "number of classes to return; all by default"}
        ],
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}, "image/*": {"schema": BINARY}}},
        "responses": {"200": success, **errors},
    }


def _response_schema(classes: Sequence[str]) -> dict[str, Any]:
    prediction = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "label": {"enum": list(classes)},
            "probability": PROBABILITY,
            "probabilities": {"type": "object", "additionalProperties": PROBABILITY},
        },
    }
    return {"type": "object", "properties": {"run": {"type": "string"}, "predictions": {"type": "array", "items": prediction}}}


def _describe_errors(limits: Limits) -> dict[str, str]:
    return {
        "400": "the client ended the request before its body was complete",
        "401": "the token is missing or wrong",
        "403": "the request is for another host, or from a page of another site",
        "408": f"the request did not arrive within {limits.seconds:g} seconds",
        "413": f"the request has more than {limits.body >> 20} MB or {limits.files} files",
        "415": "the content type is neither a form nor an image",
        "422": "an image or a parameter is invalid",
        "429": f"more than {limits.per_client} concurrent requests from one address",
        "503": f"more than {limits.requests} concurrent requests, or the server is stopping",
    }


def _describe_json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": _json_content(schema)}


def _json_content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def render_docs(description: dict[str, Any], address: str) -> str:
    """Return an OpenAPI description as an HTML page, with an example for the service at `address`, such as "http://127.0.0.1:8000"."""
    header = ' -H "Authorization: Bearer TOKEN"' if "security" in description else ""
    example = escape(f'curl -F file=@photo.jpg{header} "{address}/predict?top=3"')
    sections = "".join(_render_operation(path, method, operation) for path, methods in description["paths"].items() for method, operation in methods.items())
    title = escape(description["info"]["title"])
    head = f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{title}</title><style>{STYLE}</style>"
    return f"{head}<h1>{title}</h1><pre>{example}</pre>{sections}<p>OpenAPI description: <code>/openapi.json</code></p>"


def _render_operation(path: str, method: str, operation: dict[str, Any]) -> str:
    responses = "".join(f"<li><b>{code}</b> {escape(response['description'])}</li>" for code, response in operation["responses"].items())
    return f"<h2><code>{method.upper()} {path}</code></h2><p>{escape(operation['summary'])}</p><ul>{responses}</ul>"
