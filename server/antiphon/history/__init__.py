"""Conversations that lose nothing."""
