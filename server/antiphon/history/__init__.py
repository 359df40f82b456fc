"""Conversations that are stored: turns, forks, branches, and what of them a model is sent."""
