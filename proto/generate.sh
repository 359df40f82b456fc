#!/usr/bin/env bash
# Makes what is generated from the protos, under the folder ROOT: Python modules with stubs in ROOT/server, and in ROOT/gateway Envoy's
# descriptor set and the sections of its files that are about the REST dialects.
# Usage: proto/generate.sh PYTHON [ROOT]; ROOT is this repository unless told otherwise.
set -euo pipefail
cd "$(dirname "$0")"
python=$1
root=${2:-$PWD/..}
mkdir -p "$root/server" "$root/gateway"
bin=$(dirname "$("$python" -c 'import sys; print(sys.executable)')")
include=$("$python" -c 'import google.api, pathlib; print(pathlib.Path(list(google.api.__path__)[0]).parents[1])')
mapfile -t protos < <(find antiphon -name '*.proto' | LC_ALL=C sort)
PATH="$bin:$PATH" "$python" -m grpc_tools.protoc -I . -I "$include" \
  --python_out="$root/server" --grpc_python_out="$root/server" \
  --mypy_out=quiet:"$root/server" --mypy_grpc_out=quiet,only_async:"$root/server" \
  "${protos[@]}"
# The transcoder prints an error's details only if it knows their types.
"$python" -m grpc_tools.protoc -I . -I "$include" \
  --include_imports --descriptor_set_out="$root/gateway/antiphon.pb" \
  "${protos[@]}" google/rpc/error_details.proto
"$python" -m antiphon.edge.dialects ../gateway "$root/gateway"
