"""Tables: what the lines of pip requirement files mean, and which are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from packager.environment.requirements import Requirements, read_requirements
from packager.environment.text import read_text_file
from packager.errors import DependenciesError

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "https://index.example/simple"


def read(folder: Path, text: str, *, root: Path | None = None) -> Requirements:
    return read_requirements(text.splitlines(), file=folder / "requirements.txt", root=root or folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# nothing\n\n", Requirements()),
        (f"--index-url {INDEX}", Requirements(index_url=INDEX)),
        (f"-i{INDEX}", Requirements(index_url=INDEX)),
        (f"--pypi-url={INDEX}", Requirements(index_url=INDEX)),
        (f"-i https://first/simple\n-i {INDEX}", Requirements(index_url=INDEX)),
        (
            f"--index-url {INDEX} --trusted-host index.example",
            Requirements(index_url=INDEX, trusted_hosts=("index.example",)),
        ),
        (
            f'--pre --extra-index-url="{INDEX}" --extra-index-url https://b/simple  # both',
            Requirements(extra_index_urls=(INDEX, "https://b/simple"), switches=frozenset({"--pre"})),
        ),
        (
            "--no-index --require-hashes -f https://page/wheels.html",
            Requirements(
                switches=frozenset({"--no-index", "--require-hashes"}), find_links=("https://page/wheels.html",)
            ),
        ),
        (
            "--no-binary lxml,numpy --only-binary=:all:",
            Requirements(formats=("--no-binary lxml", "--no-binary numpy", "--only-binary :all:")),
        ),
        ("--prefer-binary --use-feature fast-deps -q", Requirements()),
        ("six --use-pep517", Requirements(lines=("six",))),
    ],
)
def test_options_of_a_line_are_read_as_pip_reads_them(tmp_path: Path, text: str, expected: Requirements) -> None:
    assert read(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("flask>=2 ; python_version > '3'  # a comment", ("flask>=2 ; python_version > '3'",)),
        ("uvicorn[standard]~=0.30", ("uvicorn[standard]~=0.30",)),
        ("torch==2.1.0+cpu", ("torch==2.1.0+cpu",)),
        ("six==1.\\\n17", ("six==1.17",)),
        ("six \\\n  ==1.17", ("six   ==1.17",)),
        ("six \\\n# a comment\nflask", ("six", "flask")),
        ("six \\", ("six",)),
        ("six \\\n  --hash=sha256:aa \\\n  --hash sha256:bb", ("six --hash=sha256:aa --hash=sha256:bb",)),
        ("# ${TOKEN}\nsix", ("six",)),
        ("git+https://host/repo.git@main#egg=x", ("git+https://host/repo.git@main#egg=x",)),
        ("git+ssh://git@host/repo.git", ("git+ssh://git@host/repo.git",)),
        ("https://host/x-1.0.tar.gz", ("https://host/x-1.0.tar.gz",)),
        ("pkg@https://host/pkg.whl", ("pkg @ https://host/pkg.whl",)),
        ("x @ git+https://host/x.git ; os_name=='posix'", ('x @ git+https://host/x.git ; os_name == "posix"',)),
    ],
)
def test_requirements_are_kept(tmp_path: Path, text: str, lines: tuple[str, ...]) -> None:
    assert read(tmp_path, text) == Requirements(lines=lines)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (".", "{}"),
        ("./folder", "{}/folder"),
        ("folder/", "{}/folder"),
        ("pkg.whl", "{}/pkg.whl"),
        ("./pkg.whl[extra] ; python_version > '3'", "{}/pkg.whl[extra] ; python_version > '3'"),
        ("pkg @ ./pkg.whl", "pkg @ {}/pkg.whl"),
        ("pkg[extra]@pkg.whl ; python_version > '3'", 'pkg[extra] @ {}/pkg.whl ; python_version > "3"'),
        ("pkg @ file:pkg.whl#sha256=aa", "pkg @ {}/pkg.whl#sha256=aa"),
        ("FILE:./pkg.whl", "{}/pkg.whl"),
        ("pkg.whl --hash=sha256:aa", "{}/pkg.whl --hash=sha256:aa"),
    ],
)
def test_a_path_in_the_archive_becomes_a_url(tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / "pkg.whl").touch()
    (tmp_path / "folder").mkdir()
    assert read(tmp_path, line).lines == (expected.format(tmp_path.as_uri()),)


def test_included_files_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    inner = tmp_path / "deps" / "inner"
    (inner / "wheels").mkdir(parents=True)
    (tmp_path / "more").mkdir()
    (tmp_path / "deps" / "a.txt").write_text("six\n-r inner/b.txt -r inner/d.txt\n", encoding="utf-8")
    (inner / "b.txt").write_text("-c c.txt\nflask\n-f wheels\n-f more\n", encoding="utf-8")
    (inner / "c.txt").write_text(f"flask<4\n-i {INDEX}\n", encoding="utf-8")
    (inner / "d.txt").write_bytes("click\r\njinja2\r\n".encode("utf-16"))
    assert read(tmp_path, "-r deps/a.txt\nnumpy") == Requirements(
        lines=("six", "flask", "click", "jinja2", "numpy"),
        constraints=("flask<4",),
        index_url=INDEX,
        find_links=(str(inner / "wheels"), str(tmp_path / "more")),
    )


OUTSIDE = "points outside the model archive"
FROM_CONDA = f"{OUTSIDE}: `pip freeze` writes such lines for conda packages"
UNSUPPORTED = "has a URL of an unsupported scheme"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("-r missing.txt", "refers to 'missing.txt', which is not in the model archive"),
        ("-r ../outside.txt", OUTSIDE),
        ("--pre -c /etc/passwd", OUTSIDE),
        ("-r https://host/r.txt", "includes a remote file, which is not supported"),
        ("-c https://u:s3cret@host/constraints.txt", "includes a remote file, which is not supported"),
        ("-r loop.txt", "nests included files more than ten levels deep"),
        ("-r .", "can't be read: not a regular file"),
        ("..", OUTSIDE),
        ("../pkg.whl", OUTSIDE),
        ("pkg @ ../pkg.whl", OUTSIDE),
        ("file:///etc/passwd", FROM_CONDA),
        ("x@file:///etc/passwd", FROM_CONDA),
        ("numpy @ file:///croot/numpy_and_numpy_base_1/work", FROM_CONDA),
        ("numpy @ file:///C:/b/abs_1/numpy/work", FROM_CONDA),
        ("x @ file:gone.whl", "refers to 'gone.whl', which is not in the model archive"),
        ("git+file:///srv/repo", UNSUPPORTED),
        ("x @ git+file:///srv/repo", UNSUPPORTED),
        ("x @ ftp://../../etc/x.whl", UNSUPPORTED),
        ("x@bogus:../x.whl", UNSUPPORTED),
        ("x@file:../outside.txt ; bogus == '1'", UNSUPPORTED),
        ("hg+https://host/x", UNSUPPORTED),
        ("git+git@host:org/x.git", UNSUPPORTED),
        ("C:\\wheels\\x.whl", UNSUPPORTED),
        ("-f ../wheels", OUTSIDE),
        ("-f file:///etc", OUTSIDE),
        ("-f ftp://../wheels", "which is not in the model archive"),
        ("-i file:///srv/simple", "has an index that is not an http or https URL"),
        ("--extra-index-url ../simple", "has an index that is not an http or https URL"),
        ("-e .", "is editable"),
        ("--editable=git+https://host/x.git#egg=x", "is editable"),
        ("--target /x", "has '--target', which is not an option of a requirements file"),
        ("--pre torch", "has 'torch' after its options"),
        ("--index-url", "expected one argument"),
        ("--extra https://host/simple", "has '--extra', which is not an option"),
        ("--index-url 'https://host", "is invalid: No closing quotation"),
        ("torch --index-url https://host/simple", "has an option that pip ignores after a package"),
        ("--hash=sha256:aa", "has a hash but no package"),
        ("six --global-option=--x", "has build options"),
        ("six --config-settings a=b", "has build options"),
        ("numpy=1.21.2=py38_0", "has conda syntax, not pip syntax"),
        ("numpy=1.21", "has conda syntax, not pip syntax"),
        ("@EXPLICIT", "has conda syntax, not pip syntax"),
        ("six>=1.0.*", "is invalid: .* suffix"),
        ("name: x", "is invalid: Expected"),
        ("\0", "is invalid"),
        ("./\0", "which is not a valid path"),
        ("six @ https://host/${TOKEN}/x.whl", "uses an environment variable, which is not supported"),
        ("-i https://${USER}:${WORD}@host/simple", "uses an environment variable, which is not supported"),
        (f"-r {'x' * 100_000}", "refers to"),
        (f"--x{'x' * 100_000}", "which is not an option"),
        (f"six {'x' * 100_000}", "is invalid"),
    ],
)
def test_lines_that_are_refused(tmp_path: Path, line: str, problem: str) -> None:
    root = tmp_path / "artifact"
    root.mkdir()
    (tmp_path / "outside.txt").touch()
    (root / "loop.txt").write_text("-r loop.txt\n", encoding="utf-8")
    with pytest.raises(DependenciesError) as caught:
        read(root, f"six\n{line}")
    assert problem in caught.value.message
    assert caught.value.message.startswith(("requirements.txt: ", "loop.txt: "))
    assert len(caught.value.message) < 1000
    assert caught.value.hint
    assert "s3cret" not in caught.value.message


def test_a_link_does_not_lead_out(tmp_path: Path) -> None:
    root = tmp_path / "artifact"
    root.mkdir()
    (root / "reqs.txt").symlink_to("/etc/hostname")
    with pytest.raises(DependenciesError, match=OUTSIDE):
        read(root, "-r reqs.txt")


def test_files_beside_the_files_folder_are_in_the_archive(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "reqs.txt").write_text("six\n", encoding="utf-8")
    assert read(folder, "-r ../reqs.txt", root=tmp_path).lines == ("six",)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_text("six\n" * 300_000, encoding="utf-8")
    with pytest.raises(DependenciesError, match="is larger than 1,048,576 bytes"):
        read(tmp_path, "-r large.txt")


def test_files_that_are_too_large_together_are_refused(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text(f"-r {number + 1}.txt\n" * 100, encoding="utf-8")
    (tmp_path / "4.txt").write_text("six\n", encoding="utf-8")
    with pytest.raises(DependenciesError, match="exceeds the limit of"):
        read(tmp_path, "-r 0.txt")


def test_many_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("a\n" * 50_000, encoding="utf-8")
    assert len(read(tmp_path, "-r many.txt").lines) == 50_000


@pytest.mark.parametrize(
    "data",
    [
        b"six\r\nflask\r\n",
        "\ufeffsix\nflask\n".encode(),
        "\ufeffsix\r\nflask".encode("utf-16-le"),
        "\ufeffsix\nflask".encode("utf-16-be"),
    ],
)
def test_files_are_read_with_any_byte_order_mark_and_line_ending(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes(data)
    assert read(tmp_path, read_text_file(path)).lines == ("six", "flask")


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes("# Bücher\nsix\n".encode("latin-1"))
    with pytest.raises(DependenciesError) as caught:
        read_text_file(path)
    assert caught.value.message == "requirements.txt: is not text in UTF-8 (byte 4)"
    assert caught.value.hint == "save the file in UTF-8"
