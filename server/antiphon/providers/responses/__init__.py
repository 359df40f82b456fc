"""The protocol of OpenAI's Responses API."""
