"""Fill a folder with the root of the Job image: a Python that needs nothing outside `/kaniko`, and the packager on it.

PYTHONPATH=local python kaniko/make_root.py OUT_DIR

`/kaniko/python` is this distribution's Python with every shared library of its closure, glibc and the dynamic loader
with them. Its programs name that loader as their interpreter (ELF's PT_INTERP), so the kernel starts them as they are,
also when the image's own root has been replaced or emptied: `sys.executable` is a program that can be started.

Outside `/kaniko` lie a loader and a glibc once more, where every Linux program expects them: the Python of a conda
environment is run while the environment is made, before Kaniko unpacks the base image over them. They are copies and
not links, so that nothing that is written to them reaches the Python below `/kaniko`.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from channel import GLIBC, needed_libraries, patchelf, python_package

PROJECT = Path(__file__).parents[1]
DISTRIBUTION = "odahu-packager"
HOME = Path("/kaniko/python")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
MARKER = ".packager-job-image"  # packager/engines/kaniko.py looks for it
OWN_FOLDERS = {"home": 0o700, "work": 0o700, "workspace": 0o755, "tmp": 0o1777, "cache-packager": 0o755}

# A Job submits no Jobs, so the Kubernetes client (75 MB) stays out; the packager imports it in `packager/kube/` alone.
LEFT_OUT = ("kubernetes",)
# What AWS has besides a registry, a place for artifacts, and the ways to log in.
SERVICES = {"ecr", "ecr-public", "s3", "sts", "sso", "sso-oidc", "signin"}
UNUSED = re.compile(
    r"^(include/|bin/pydoc3$|lib/python[\d.]+/(lib2to3|pydoc_data|distutils|wsgiref|curses|dbm|venv|xmlrpc|sqlite3|"
    r"lib-dynload/(_sqlite3|_curses\w*|readline|_dbm|_gdbm)\.|__phello__|site-packages/README.txt))"
)
SCRIPT = "#!{python} -I\nimport sys\n\nfrom {module} import {attribute}\n\nsys.exit({attribute}())\n"


def write_python(home: Path) -> Path:
    """Write the interpreter and its standard library; return the interpreter."""
    members = {name: member for name, member in python_package(Path("/usr")).members.items() if not UNUSED.match(name)}
    for name, member in members.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if member.link:
            path.symlink_to(member.link)
        else:
            path.write_bytes(member.data)
            path.chmod(member.mode)
    return (home / "bin" / "python3").resolve()


def install_packager(home: Path, site_packages: Path) -> None:
    """Install the packager and what it needs when it runs, at the pinned versions, without what a Job never uses."""
    needed = [
        line
        for line in metadata.requires(DISTRIBUTION) or ()
        if "extra ==" not in line and not line.startswith(LEFT_OUT)
    ]
    uv = [Path(sys.executable).parent / "uv", "pip", "install", "-q", "--no-config", "--link-mode", "copy"]
    into = ["--python", "/usr/bin/python3", "--target", site_packages]
    subprocess.run([*uv, *into, "--constraint", PROJECT / "requirements.lock", *needed], check=True)
    subprocess.run([*uv, *into, "--no-deps", "--reinstall-package", DISTRIBUTION, PROJECT], check=True)
    shutil.move(site_packages / "bin" / "uv", home / "bin" / "uv")
    for folder in (site_packages / "bin", *site_packages.rglob("__pycache__"), *site_packages.rglob("tests")):
        shutil.rmtree(folder, ignore_errors=True)
    for pattern in ("*.pyi", "*.c", ".lock", "direct_url.json", "uv_*.json"):
        for path in site_packages.rglob(pattern):
            path.unlink()
    for path in (site_packages / "pygments" / "lexers").glob("[a-z]*.py"):  # nothing that we print is highlighted
        path.unlink()
    for folder in (site_packages / "botocore" / "data").iterdir():
        if folder.is_dir() and folder.name not in SERVICES:
            shutil.rmtree(folder)
    forget_missing(site_packages)
    for entry in metadata.distribution(DISTRIBUTION).entry_points:
        script = home / "bin" / entry.name
        script.write_text(SCRIPT.format(python=HOME / "bin/python3", module=entry.module, attribute=entry.attr))
        script.chmod(0o755)


def forget_missing(site_packages: Path) -> None:
    """Take what was left out out of the lists of installed files: the runtime layer is made of gunicorn's."""
    for record in site_packages.glob("*.dist-info/RECORD"):
        rows = record.read_text().splitlines(keepends=True)
        record.write_text("".join(row for row in rows if (site_packages / next(csv.reader([row]))[0]).exists()))


def programs_and_libraries(folder: Path) -> list[Path]:
    """Return every ELF file below a folder."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    found.append(path)
    return found


def interpreter_of(program: Path) -> Path:
    """Return the loader that a program names."""
    words = [*patchelf(), "--print-interpreter", program]
    return Path(subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip())


def glibc_of(binaries: list[Path]) -> dict[str, Path]:
    """Find glibc's libraries that the binaries load, and those that other Pythons do."""
    answer = subprocess.run(["ldd", *binaries], check=False, capture_output=True, text=True)
    found = dict(re.findall(r"^\s+(\S+) => (/\S+)", answer.stdout, re.MULTILINE))
    beside = Path(found["libc.so.6"]).parent
    names = {f"lib{name}" for name in ("c.so.6", "m.so.6", "dl.so.2", "pthread.so.0", "rt.so.1", "util.so.1")}
    names |= {name for name in found if GLIBC.match(name)}
    return {name: beside / name for name in sorted(names) if (beside / name).exists()}


def bring_libraries(root: Path, home: Path, python: Path) -> None:
    """Put the loader and every library beside the interpreter, make the programs use them, and copy glibc outside."""
    library_folder = home / "lib"
    binaries = programs_and_libraries(home)
    loader, glibc = interpreter_of(python), glibc_of(binaries)
    inside = {path.name for path in binaries}
    for name, path in {**needed_libraries(binaries), **glibc, loader.name: loader}.items():
        if name not in inside:
            shutil.copy(path.resolve(), library_folder / name)
    for program in (python, home / "bin" / "uv"):
        words = [*patchelf(), "--force-rpath", "--set-rpath", HOME / "lib"]  # $ORIGIN would want /proc
        subprocess.run([*words, "--set-interpreter", HOME / "lib" / loader.name, program], check=True)
    for path in (*glibc.values(), loader):
        outside = root / path.relative_to("/")
        outside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path.resolve(), outside)


def drop_unneeded(home: Path) -> None:
    """Take away the libraries that nothing here loads: the C++ runtime is brought for the sake of other wheels."""
    while True:
        wanted = {name for path in programs_and_libraries(home) for name in _needed(path)}
        libraries = [path for path in (home / "lib").glob("*.so*") if not GLIBC.match(path.name)]
        unneeded = [path for path in libraries if path.name not in wanted]
        if not unneeded:
            return
        for path in unneeded:
            path.unlink()


def strip_symbols(home: Path) -> None:
    """Take the symbols out of the libraries of wheels (25 MB), where binutils is there to do it."""
    if strip := shutil.which("strip"):
        for path in programs_and_libraries(home / "lib"):
            if "site-packages" in path.parts:
                subprocess.run([strip, "--strip-unneeded", path], check=True)


def compile_modules(root: Path, home: Path) -> None:
    """Write bytecode, tied to no time: a start takes 0.5 s with it and 2.3 s without."""
    modules = home / "lib"
    options = ["-q", "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/", "-x", "bad_coding|badsyntax"]
    words = ["/usr/bin/python3", "-I", "-m", "compileall", *options, str(modules)]
    subprocess.run(words, check=True, env={"PYTHONHASHSEED": "0"})


def _needed(path: Path) -> list[str]:
    words = [*patchelf(), "--print-needed", path]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()


def write_rest(kaniko: Path) -> None:
    """Write the certificates, the folders that the work is done in, and the marker."""
    certificates = kaniko / "ssl" / "certs"
    certificates.mkdir(parents=True)
    shutil.copy(CERTIFICATES, certificates)
    for name, mode in OWN_FOLDERS.items():
        (kaniko / name).mkdir()
        (kaniko / name).chmod(mode)
    (kaniko / MARKER).touch()


def main() -> None:
    """Make the root in a new folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path)
    root: Path = parser.parse_args().out_dir
    root.mkdir(parents=True)
    os.umask(0o022)
    home = root / HOME.relative_to("/")
    python = write_python(home)
    install_packager(home, home / "lib" / python.name / "site-packages")
    bring_libraries(root, home, python)
    drop_unneeded(home)
    strip_symbols(home)
    compile_modules(root, home)
    write_rest(home.parent)


if __name__ == "__main__":
    main()
