"""``calotype files`` as a script runs it, against a real server."""

import json
from pathlib import Path

import pytest

from acceptance.commands import run, run_json, told
from harness import picture


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a lighthouse.png"
    path.write_bytes(picture(size=(40, 30)))
    return path


@pytest.mark.usefixtures("account")
def test_a_file_is_uploaded_used_listed_and_deleted(image: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.jpg"
    other.write_bytes(picture("JPEG"))
    reference, second = run("files", "upload", "-q", image, other).stdout.splitlines()
    assert reference.startswith("asset://asset_")
    (line,) = run("files", "upload", image).stdout.splitlines()
    assert line.startswith(f"{reference}  {image}  png 40x30, until 20")
    shown = json.loads(run("files", "upload", "--json", image).stdout)
    assert (shown["reference"], shown["width"]) == (reference, 40)

    out = tmp_path / "out.png"
    run("generate", "it in snow", "--model", "gpt-image-2", "--image", reference, "-o", out)
    assert out.read_bytes().startswith(b"\x89PNG")

    listed = run_json("files", "list", "--limit", "2")
    assert [file["reference"] for file in listed] == [second, reference]
    assert run("files", "list", "-q", "--limit", "1").stdout == f"{second}\n"
    table = run("files", "list").stdout.splitlines()
    assert table[0].split() == ["REFERENCE", "TYPE", "SIZE", "PIXELS", "CREATED", "EXPIRES"]
    assert table[2].split()[:2] == [reference, "image/png"]

    ended = run("files", "delete", reference, listed[0]["id"])
    assert ended.stdout.splitlines() == [
        f"{reference} is deleted.",
        f"{listed[0]['id']} is deleted.",
    ]
    assert told("files", "delete", reference, code=1).endswith("(file_not_found)")
    line = told("generate", "x", "--model", "gpt-image-2", "--image", reference, code=1)
    assert "is no image of this account" in line


@pytest.mark.usefixtures("account")
def test_what_cannot_be_uploaded_is_told_before_anything_is_sent(
    image: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.png"
    assert told("files", "upload", image, missing, code=2) == f"{missing}: is no file."
    text = tmp_path / "text.png"
    text.write_text("a text that is no image at all")
    assert "(unsupported_reference_type)" in told("files", "upload", text, code=1)
