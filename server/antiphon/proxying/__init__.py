"""The byte-for-byte proxies."""
