"""Conversion between typed (protobuf) messages and domain values."""
