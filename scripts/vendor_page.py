#!/usr/bin/env python3
"""Writes the libraries of the page at `/` with their licences to src/http/page/vendor/.

    python3 scripts/vendor_page.py            fetches them with npm, checks them, writes them
    python3 scripts/vendor_page.py --check    says whether what is there is what would be written

Needs npm. The versions and their digests stand below.
"""

import argparse
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "src" / "http" / "page" / "vendor"

# Package: version, the archive's SHA-256, its licence, and of its files the names that they get here.
PACKAGES = {
    "preact": (
        "10.29.8",
        "b18cb0a457f3d43c7bb30391a74ade7d13e03bc6e77915e061c70c0fe1123299",
        "MIT",
        {"dist/preact.module.js": "preact.js", "hooks/dist/hooks.module.js": "hooks.js"},
    ),
    "htm": (
        "3.1.1",
        "2425b9bee11409177bcabc7f32e319926fc6690c1701c0b257c88bdff2d5ba90",
        "Apache-2.0",
        {"dist/htm.module.js": "htm.js"},
    ),
}


def fetched(package, version, digest, folder):
    """The package's archive, once its digest is right."""
    command = ["npm", "pack", "--silent", "--ignore-scripts", f"{package}@{version}"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    archive = folder / f"{package}-{version}.tgz"
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != digest:
        raise SystemExit(f"{archive.name} has the SHA-256 {found}, but {digest} is expected")
    return archive


def script(text, package, version, licence):
    """A module as a browser reads it: without a bundler, which would find "preact" and the source map."""
    lines = [line for line in text.splitlines() if not line.startswith("//# sourceMappingURL")]
    text = "\n".join(lines).replace('from"preact"', 'from"./preact.js"')
    return f"// {package} {version}, {licence}: see licences.txt\n{text}\n"


def files(folder):
    """What is written: name and text."""
    made, licences = {}, []
    for package, (version, digest, licence, names) in PACKAGES.items():
        with tarfile.open(fetched(package, version, digest, folder)) as archive:
            read = lambda name: archive.extractfile(f"package/{name}").read().decode()
            for name, own in names.items():
                made[own] = script(read(name), package, version, licence)
            licences.append(f"{package} {version}\n\n{read('LICENSE').strip()}\n")
    made["licences.txt"] = "\n\n".join(licences)
    return made


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        made = files(Path(folder))
    VENDOR.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        path = VENDOR / name
        if check and (not path.exists() or path.read_text() != text):
            raise SystemExit(f"{path} is not what is fetched; run scripts/vendor_page.py")
        if not check:
            path.write_text(text)
            print(f"{path.name}: {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
