"""The OpenAI chat-completions protocol."""
