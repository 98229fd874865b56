"""Downloads: right files, wrong files, no files; from a server on this machine alone."""

import hashlib
import http.server
import io
import logging
import subprocess
import sys
import threading
import zipfile

import pooch
import pytest

from minilstm.errors import InputError
from minilstm.text.downloads import (
    ARCHIVES,
    CORPORA,
    DataFile,
    corpus_files,
    data_folder,
    fetch,
    verify,
)

GOOD = b"To be, or not to be\n"
ERROR_PAGE = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"
NOBODY = "http://127.0.0.1:1/file.txt"  # a port on which nobody listens


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"folder/{name}.txt", data)
    return buffer.getvalue()


@pytest.fixture
def server():
    """A web server: `pages` says what stands at which path, `asked` who asked for which."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append((self.path, self.headers["User-Agent"]))
            page = server.pages.get(self.path)
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Length", str(len(page or b"")))
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages, server.asked = {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache folder, which is not there yet; downloads go there."""
    monkeypatch.delenv("MINILSTM_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(pooch.get_logger(), "level", logging.ERROR)
    return tmp_path / "cache" / "minilstm"


@pytest.fixture
def play(monkeypatch):
    """play(*addresses): the corpus "play" with one file, folder/play.txt, there."""

    def play(*addresses: str, data: bytes = GOOD) -> DataFile:
        file = DataFile("folder/play.txt", len(data), sha256(data), addresses)
        monkeypatch.setitem(CORPORA, "play", {"train": file})
        return file

    return play


def by_hand(file, folder):
    at = folder / "folder" / "play.txt"
    return f"put the file with SHA-256 {file.sha256} (20 bytes) at {at} by hand"


def test_a_file_is_downloaded_once_and_then_used(server, cache, play):
    play(server.url + "/file.txt")
    server.pages["/file.txt"] = GOOD
    path = cache / "folder" / "play.txt"
    assert fetch("play") == fetch("play") == {"train": path}
    assert path.read_bytes() == GOOD
    assert server.asked == [("/file.txt", "minilstm")]
    assert [p.name for p in path.parent.iterdir()] == ["play.txt"]  # nothing half-done beside it


@pytest.mark.parametrize("wrong", [ERROR_PAGE, b"", GOOD[:-1], GOOD + b"\n", None])
def test_a_mirror_that_serves_something_else_is_passed_over(server, cache, play, wrong):
    play(server.url + "/wrong", NOBODY, server.url + "/right", server.url + "/never")
    server.pages |= {"/wrong": wrong, "/right": GOOD}
    assert fetch("play")["train"].read_bytes() == GOOD
    assert [path for path, _ in server.asked] == ["/wrong", "/right"]


def test_a_file_in_the_cache_that_went_bad_is_downloaded_anew(server, cache, play):
    file = play(server.url + "/file.txt")
    server.pages["/file.txt"] = GOOD
    file.local_path.parent.mkdir(parents=True)
    file.local_path.write_bytes(GOOD[:-1])
    assert verify("play") == {file: "wrong"}
    assert fetch("play")["train"].read_bytes() == GOOD
    assert verify("play") == {file: "ok"}


def test_a_download_that_fails_says_why_and_what_to_do_by_hand(server, cache, play):
    file = play(server.url + "/wrong", server.url + "/missing", NOBODY)
    server.pages["/wrong"] = ERROR_PAGE
    with pytest.raises(InputError) as refused:
        fetch("play")
    assert str(refused.value) == (
        f"cannot download folder/play.txt from {server.url}/wrong (another file came: its SHA-256 "
        f"differs) or {server.url}/missing (HTTPError) or {NOBODY} (ConnectionError): "
        + by_hand(file, cache)
    )
    assert verify("play") == {file: "missing"}
    assert not any(path.is_file() for path in cache.rglob("*"))  # the wrong file is nowhere


def test_a_bad_file_stays_as_it_is_where_no_mirror_has_a_better_one(cache, play):
    file = play(NOBODY)
    file.local_path.parent.mkdir(parents=True)
    file.local_path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"^cannot download folder/play\.txt from "):
        fetch("play")
    assert file.local_path.read_bytes() == b"mine"


def test_a_cache_that_cannot_be_written_says_so(server, cache, play):
    play(server.url + "/file.txt")
    server.pages["/file.txt"] = GOOD
    cache.parent.mkdir()
    cache.write_bytes(b"a file where the folder should be")
    with pytest.raises(InputError, match=r"/file\.txt \((File exists|Not a directory)\): put "):
        fetch("play")


def test_a_file_in_an_archive_is_taken_out_and_verified(server, cache, play, monkeypatch):
    archive = zipped(play=GOOD, other=b"other")
    monkeypatch.setitem(ARCHIVES, "plays.zip", sha256(archive))
    file = play(server.url + "/a/plays.zip#folder/play.txt")
    address = server.url + "/a/plays.zip#folder/other.txt"
    second = DataFile("folder/other.txt", 5, sha256(b"other"), (address,))
    monkeypatch.setitem(CORPORA, "play", {"train": file, "valid": second})
    server.pages["/a/plays.zip"] = archive
    paths = fetch("play")
    assert paths["train"].read_bytes() == GOOD
    assert paths["valid"].read_bytes() == b"other"
    assert len(server.asked) == 1  # both came out of one archive
    assert {p.name for p in cache.rglob("*.*")} == {"plays.zip", "play.txt", "other.txt"}


def test_an_error_page_in_an_archives_place_is_passed_over(server, cache, play, monkeypatch):
    monkeypatch.setitem(ARCHIVES, "plays.zip", sha256(zipped(play=GOOD)))
    play(server.url + "/plays.zip#folder/play.txt", server.url + "/right")
    server.pages |= {"/plays.zip": ERROR_PAGE, "/right": GOOD}
    assert fetch("play")["train"].read_bytes() == GOOD
    assert not (cache / "plays.zip").exists()


def test_a_folder_that_holds_the_files_is_used_without_a_download(
    server, cache, play, tmp_path, monkeypatch
):
    file = play(server.url + "/file.txt")
    folder = tmp_path / "data"
    (folder / "folder").mkdir(parents=True)
    (folder / "folder" / "play.txt").write_bytes(GOOD)
    monkeypatch.setenv("MINILSTM_DATA", str(folder))
    assert data_folder() == folder
    assert verify("play") == {file: "ok"}
    assert fetch("play") == {"train": folder / "folder" / "play.txt"}
    assert server.asked == []
    assert not cache.exists()


@pytest.mark.parametrize(("content", "status"), [(None, "missing"), (ERROR_PAGE, "wrong")])
def test_a_folder_that_lacks_a_file_is_left_alone_and_named(
    server, cache, play, tmp_path, monkeypatch, content, status
):
    file = play(server.url + "/file.txt", NOBODY)
    server.pages["/file.txt"] = GOOD
    if content is not None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "play.txt").write_bytes(content)
    monkeypatch.setenv("MINILSTM_DATA", str(tmp_path))
    with pytest.raises(InputError) as refused:
        fetch("play")
    assert str(refused.value) == (
        f"folder/play.txt is {status} in the folder that MINILSTM_DATA names: "
        f"{by_hand(file, tmp_path)}, from {server.url}/file.txt or {NOBODY}, "
        "or unset MINILSTM_DATA to have it downloaded"
    )
    assert server.asked == []


def test_the_data_folder_is_the_users_cache_unless_told_otherwise(cache, monkeypatch):
    assert data_folder() == cache
    monkeypatch.setenv("MINILSTM_DATA", "")
    assert data_folder() == cache
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("MINILSTM_DATA", "~/texts")
    assert str(data_folder()) == "/home/me/texts"


def test_each_file_of_the_named_corpora_is_pinned():
    assert list(CORPORA) == ["hello", "shakespeare", "wikitext2", "wikitext2-raw"]
    assert corpus_files("hello") == ()
    assert fetch("hello") == verify("hello") == {}
    assert [file.path for file in corpus_files("shakespeare")] == ["tinyshakespeare.txt"]
    for name, folder in (("wikitext2", "wikitext-2"), ("wikitext2-raw", "wikitext-2-raw")):
        parts = [f"{folder}/{part}.txt" for part in ("train", "valid", "test")]
        assert [file.path for file in corpus_files(name)] == parts
    files = [file for name in CORPORA for file in corpus_files(name)]
    assert len({file.sha256 for file in files}) == len(files) == 7
    for file in files:
        assert len(bytes.fromhex(file.sha256)) == 32
        assert len(file.addresses) == 2
        for address in file.addresses:
            url, _, member = address.partition("#")
            assert url.startswith("https://")
            assert bool(member) == url.endswith(".zip")
            assert not member or url.rpartition("/")[2] in ARCHIVES


@pytest.mark.parametrize("call", [corpus_files, verify, fetch])
@pytest.mark.parametrize("name", ["wikitext", None, ["hello"]])
def test_an_unknown_corpus_is_refused_with_the_names_there_are(call, name):
    with pytest.raises(InputError) as refused:
        call(name)
    names = "hello, shakespeare, wikitext2, wikitext2-raw"
    assert str(refused.value) == f"want one of the corpora {names}, got {name!r}"


def test_the_downloader_is_imported_only_where_it_is_used():
    code = (
        "import sys, minilstm; minilstm.load_corpus('hello');"
        "print(sorted({'pooch', 'requests', 'zipfile'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
