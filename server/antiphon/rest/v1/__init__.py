"""Generated from proto/antiphon/rest/v1: `make proto`."""
