"""The typed gRPC API: the server, its interceptor, and one servicer for each service."""
