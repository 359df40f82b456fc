"""HTTP, addresses and certificates: what leaves this process."""
