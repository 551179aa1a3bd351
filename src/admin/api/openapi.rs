//! What the API is, for programs: an OpenAPI 3.1 document.

use serde_json::{Value, json};

/// The document.
pub(super) fn document() -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let content = |name: &str| json!({ "application/json": { "schema": reference(name) } });
    let problem = |description: &str| json!({ "description": description, "content": { "application/problem+json": { "schema": reference("Problem") } } });
    let of = |description: &str, name: &str| json!({ "description": description, "content": content(name) });
    let service_in = json!({ "required": true, "content": content("Service") });
    let tag = json!({ "ETag": { "schema": { "type": "string" } } });
    let tagged = |description: &str, name: &str| json!({ "description": description, "headers": tag, "content": content(name) });
    let if_match = json!({ "name": "If-Match", "in": "header", "schema": { "type": "string" }, "description": "Only if the service is the one of this ETag." });
    let (unauthorized, unavailable) =
        (problem("No token, or a wrong one"), problem("The store does not answer"));
    let (invalid, missing) =
        (problem("The service cannot be served; `problems` says why"), problem("There is no such service"));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Edgeward Admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Services that are served as routes while the gateway runs. Errors are RFC 9457 problems.",
        },
        "security": [{ "token": [] }],
        "paths": {
            "/api/v1/services": {
                "get": {
                    "operationId": "listServices",
                    "summary": "All services, and what becomes of each",
                    "responses": { "200": of("The services, the oldest first", "ServiceList"), "401": unauthorized, "503": unavailable },
                },
                "post": {
                    "operationId": "addService",
                    "summary": "Add a service; it is served when this returns with `applied`",
                    "requestBody": service_in,
                    "responses": {
                        "201": tagged("Added", "Service"), "401": unauthorized, "403": problem("No token is configured: nothing can be changed"),
                        "409": problem("There is a service of this name"), "422": invalid, "503": unavailable,
                    },
                },
            },
            "/api/v1/services/check": {
                "post": {
                    "operationId": "checkService",
                    "summary": "Say what adding or replacing would come to; nothing is written",
                    "requestBody": service_in,
                    "responses": { "200": of("It would be served", "Verdict"), "401": unauthorized, "422": invalid, "503": unavailable },
                },
            },
            "/api/v1/services/{name}": {
                "parameters": [{ "name": "name", "in": "path", "required": true, "schema": { "type": "string" } }],
                "get": {
                    "operationId": "showService",
                    "summary": "One service",
                    "responses": { "200": tagged("The service", "Service"), "401": unauthorized, "404": missing, "503": unavailable },
                },
                "put": {
                    "operationId": "putService",
                    "summary": "Add a service, or replace it",
                    "parameters": [if_match, { "name": "If-None-Match", "in": "header", "schema": { "type": "string" }, "description": "`*`: only if there is none." }],
                    "requestBody": service_in,
                    "responses": {
                        "200": tagged("Replaced", "Service"), "201": tagged("Added", "Service"), "401": unauthorized,
                        "412": problem("Somebody else has changed it meanwhile"), "422": invalid, "503": unavailable,
                    },
                },
                "delete": {
                    "operationId": "removeService",
                    "summary": "Remove a service",
                    "parameters": [if_match],
                    "responses": {
                        "204": { "description": "Removed" }, "401": unauthorized, "404": missing,
                        "412": problem("Somebody else has changed it meanwhile"), "503": unavailable,
                    },
                },
            },
            "/api/v1/status": {
                "get": {
                    "operationId": "status",
                    "summary": "The configuration in force, and what became of the services",
                    "responses": { "200": of("The status of this process", "Status"), "401": unauthorized },
                },
            },
            "/api/v1/openapi.json": {
                "get": {
                    "operationId": "document",
                    "summary": "This document",
                    "responses": { "200": { "description": "OpenAPI 3.1", "content": { "application/json": {} } }, "401": unauthorized },
                },
            },
        },
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": {
                "Service": {
                    "type": "object",
                    "required": ["name", "path", "endpoints"],
                    "properties": {
                        "name": { "type": "string", "maxLength": 128, "pattern": "^[A-Za-z0-9._-]+$" },
                        "path": { "type": "string", "description": "/a/b, /a/{id} or /a/*" },
                        "methods": { "type": "array", "items": { "type": "string" }, "description": "Empty: GET where all endpoints are http-get, else POST" },
                        "hosts": { "type": "array", "items": { "type": "string" } },
                        "endpoints": { "type": "array", "minItems": 1, "maxItems": 32, "items": reference("Endpoint") },
                        "roles": { "type": "array", "items": { "type": "string" }, "description": "All of them must be held" },
                        "enabled": { "type": "boolean", "default": true },
                        "state": { "readOnly": true, "enum": ["served", "left_out", "disabled", "pending"] },
                        "problems": { "readOnly": true, "type": "array", "items": reference("Diagnostic") },
                        "warnings": { "readOnly": true, "type": "array", "items": reference("Diagnostic") },
                        "applied": { "readOnly": true, "type": "boolean", "description": "Whether this process serves it already" },
                    },
                },
                "Endpoint": {
                    "type": "object",
                    "required": ["type", "url"],
                    "properties": {
                        "type": { "enum": ["http-get", "http-post", "amqp"] },
                        "url": { "type": "string", "description": "http://, https:// or upstream://NAME/path; of amqp BROKER/QUEUE" },
                        "name": { "type": "string" },
                        "required": { "type": "boolean", "default": false },
                        "group": { "type": "string" },
                        "timeout": { "type": "string", "examples": ["800ms"] },
                    },
                },
                "ServiceList": {
                    "type": "object",
                    "properties": { "number": { "type": "integer" }, "services": { "type": "array", "items": reference("Service") } },
                },
                "Verdict": {
                    "type": "object",
                    "properties": { "name": { "type": "string" }, "ok": { "const": true }, "warnings": { "type": "array", "items": reference("Diagnostic") } },
                },
                "Diagnostic": {
                    "type": "object",
                    "properties": {
                        "code": { "type": "string" }, "column": { "type": "string", "examples": ["endpoints[0].url"] },
                        "message": { "type": "string" }, "hint": { "type": "string" }, "related": { "type": "string" },
                    },
                },
                "Status": {
                    "type": "object",
                    "properties": {
                        "version": { "type": "string" }, "generation": { "type": "integer" }, "routes": { "type": "integer" },
                        "store": { "type": ["object", "null"] }, "services": { "type": ["object", "null"] },
                    },
                },
                "Problem": {
                    "type": "object",
                    "properties": {
                        "type": { "type": "string" }, "title": { "type": "string" }, "status": { "type": "integer" },
                        "detail": { "type": "string" }, "code": { "type": "string" },
                        "problems": { "type": "array", "items": reference("Diagnostic") },
                    },
                },
            },
        },
    })
}
