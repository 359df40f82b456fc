"""The protocol of Cohere's chat API, version 2."""
