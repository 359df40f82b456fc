"""The processes of one machine: starts, watches and stops workers and Envoy together."""
