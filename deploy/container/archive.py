"""Read the archive of an image: write its bill of materials to a file, and print its contents by size.

Usage: archive.py ARCHIVE SBOM
"""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
from collections import Counter
from pathlib import Path

SBOM = "usr/share/antiphon/sbom.cdx.json"
LARGEST = 12
"""The number of entries printed."""


def read(archive: Path) -> tuple[bytes, int, Counter[str]]:
    """Return the bill of materials, the gzipped bytes of all layers as in a registry, and the bytes by part of the image."""
    sbom, compressed, sizes = b"", 0, Counter[str]()
    with tarfile.open(archive) as outer:
        (image,) = json.load(_file(outer, "manifest.json"))
        for name in image["Layers"]:
            layer = _file(outer, name).read()
            compressed += len(gzip.compress(layer, 6))
            with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
                for member in inner:
                    if member.isfile():
                        sizes[_part(member.name)] += member.size
                    if member.name.removeprefix("./") == SBOM:
                        sbom = _file(inner, member.name).read()
    return sbom, compressed, sizes


def _file(archive: tarfile.TarFile, name: str) -> io.BufferedIOBase:
    file = archive.extractfile(name)
    assert file is not None, name
    return file


def _part(name: str) -> str:
    """Return the part to which a file belongs: a Python package, or a folder of the base image."""
    parts = Path(name).parts
    return "/".join(parts[:3] if parts[:2] == ("opt", "antiphon") else parts[:2])


def main(archive: Path, target: Path) -> None:
    """Write `target`, and print the sizes."""
    sbom, compressed, sizes = read(archive)
    target.write_bytes(sbom)
    count = len(json.loads(sbom)["components"])
    print(f"{compressed / 1e6:.1f} MB compressed, {sizes.total() / 1e6:.1f} MB unpacked, {count} components")
    for part, size in sizes.most_common(LARGEST):
        print(f"{size / 1e6:8.1f} MB  /{part}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
