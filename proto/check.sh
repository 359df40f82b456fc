#!/usr/bin/env bash
# Checks the protos: style, no break of what was released, and that the generated files are those that the protos make.
# Usage: proto/check.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")"
python=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bin=$(dirname "$("$python" -c 'import sys; print(sys.executable)')")
include=$("$python" -c 'import google.api, pathlib; print(pathlib.Path(list(google.api.__path__)[0]).parents[1])')
mapfile -t protos < <(find antiphon -name '*.proto' | LC_ALL=C sort)
"$python" -m grpc_tools.protoc -I . -I "$include" --include_imports --include_source_info \
  --descriptor_set_out="$work/image.binpb" "${protos[@]}"
"$bin/buf" lint "$work/image.binpb" --config buf.yaml
# released.binpb is the contract of the last release; a release replaces it: proto/check.sh PYTHON --release
[ "${2:-}" != --release ] || cp "$work/image.binpb" released.binpb
"$bin/buf" breaking "$work/image.binpb" --against released.binpb --config buf.yaml
./generate.sh "$python" "$work/made"
status=0
(cd "$work/made" && find . -type f | LC_ALL=C sort) > "$work/files"
while read -r file; do
  cmp -s "$work/made/$file" "../$file" || { echo "${file#./} is not what the protos and the dialects make: run make proto"; status=1; }
done < "$work/files"
while read -r file; do
  grep -qxF "$file" "$work/files" || { echo "${file#./} is made by no proto: delete it"; status=1; }
done < <(cd .. && find ./server/antiphon -name '*_pb2*.py*' -not -path '*/__pycache__/*')
exit $status
