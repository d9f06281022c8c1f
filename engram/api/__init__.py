"""HTTP in, HTTP out: routes, schemas, OpenAPI, middleware."""
