"""The OpenAPI document of the REST paths."""
