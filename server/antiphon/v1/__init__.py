"""Generated from proto/antiphon/v1: `make proto`."""
