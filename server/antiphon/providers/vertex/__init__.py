"""Gemini on Google's Vertex AI. Bodies and replies are those of the Gemini API."""
