"""The typed gRPC API: the server, the handling around every call, and one servicer for each service."""
