"""The command `antiphon`."""

import os

# gRPC's core reads this once, when grpc is imported. Without it, it prints a line for each handshake that fails: anybody who can
# reach a port could fill the log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
