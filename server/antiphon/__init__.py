"""Antiphon: a self-hosted LLM chat gateway. One typed gRPC contract and documented REST dialects in front of every provider."""
