"""Build the wheel, the same to the byte wherever it is built.

.ci/wheel.py FOLDER [MATURIN OPTION ...]

Two things would tell where and when it was built: the folder of Cargo's registry, which is in the
text of panics, and the list of crates that maturin puts into the wheel.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    python = Path(sys.executable)
    maturin = [str(python.parent / "maturin"), "build", "--release", "--locked"]
    options = ["--interpreter", str(python), "-o", str(folder), *sys.argv[2:]]
    cargo = os.environ.get("CARGO_HOME") or Path.home() / ".cargo"
    # Encoded, because a folder's name may have a space.
    flags = [*os.environ.get("RUSTFLAGS", "").split(), f"--remap-path-prefix={cargo}=/cargo"]
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"  # where --zig looks for ziglang
    env = {**os.environ, "PATH": path, "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags)}
    code = subprocess.call([*maturin, *options], cwd=ROOT, env=env)
    if code:
        return code
    (wheel,) = folder.glob("*.whl")
    rewrite(wheel)
    return 0


def rewrite(wheel: Path) -> None:
    """Write the wheel anew, with a list of crates that says the same in every build."""
    new = wheel.with_suffix(".new")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(new, "w") as archive:
        recorded = {}
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith(".cyclonedx.json"):
                data = without_place_and_time(data)
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
                recorded[entry.filename] = f"sha256={digest.decode()},{len(data)}"
            elif entry.filename.endswith(".dist-info/RECORD"):  # the last one
                lines = [line.split(",", 1) for line in data.decode().splitlines()]
                text = "".join(f"{name},{recorded.get(name, rest)}\n" for name, rest in lines)
                data = text.encode()
            archive.writestr(entry, data, compresslevel=9)
    new.replace(wheel)


def without_place_and_time(data: bytes) -> bytes:
    """CycloneDX makes the time and the number optional; maturin 1.16 can leave out neither."""
    bom = json.loads(data)
    bom.pop("serialNumber", None)
    bom["metadata"].pop("timestamp", None)
    text = json.dumps(bom, separators=(",", ":"), ensure_ascii=False)
    return text.replace(f"path+{ROOT.as_uri()}#", "").encode()


if __name__ == "__main__":
    sys.exit(main())
