"""The files of the named corpora: where each comes from, and how we know that it is the right one.

A file is known by its SHA-256, so any mirror will do: one that serves something else, such as an
error page, is passed over. `MINILSTM_DATA` names a folder that holds the files already; without
it they are downloaded into the user's cache folder. They are not ours to ship: WikiText-2
(Merity et al. 2016, arXiv:1609.07843) is under CC BY-SA.
"""

import hashlib
import os
import tomllib
from pathlib import Path
from typing import NamedTuple

from minilstm.errors import InputError, quote, require


class DataFile(NamedTuple):
    """One file of a corpus.

    Attributes:
        path: its place in the data folder.
        size, sha256: of its bytes.
        addresses: where to get it, in the order to try. ARCHIVE.zip#MEMBER is a file in an archive.
    """

    path: str
    size: int
    sha256: str
    addresses: tuple[str, ...]

    @property
    def local_path(self) -> Path:
        return data_folder() / self.path

    def status(self) -> str:
        """ "ok", "missing", or "wrong": there, with another SHA-256."""
        if not self.local_path.is_file():
            return "missing"
        digest = hashlib.sha256(self.local_path.read_bytes()).hexdigest()
        return "ok" if digest == self.sha256 else "wrong"


def _read_registry() -> tuple[dict[str, dict[str, DataFile]], dict[str, str]]:
    """registry.toml: corpus -> split -> file, and archive -> SHA-256."""
    corpora = tomllib.loads(Path(__file__).with_name("registry.toml").read_text("utf-8"))
    archives, found = corpora.pop("archives"), {}
    for name, corpus in corpora.items():
        found[name] = {split: DataFile(corpus["path"].format(split), size, sha256,
                                       tuple(a.format(split) for a in corpus["addresses"]))
                       for split, (size, sha256) in corpus["splits"].items()}  # fmt: skip
    return {"hello": {}, **found}, archives  # "hello" is built in


CORPORA, ARCHIVES = _read_registry()


def data_folder() -> Path:
    """Where the files are: MINILSTM_DATA where it is set, else a folder in the user's cache."""
    if given := os.environ.get("MINILSTM_DATA"):
        return Path(given).expanduser()
    import pooch

    return Path(pooch.os_cache("minilstm"))


def corpus_files(name: str) -> tuple[DataFile, ...]:
    """The files of a named corpus: path, size, SHA-256 and addresses of each; for "hello", none.

    Raises:
        InputError: there is no corpus of that name.
    """
    fits = isinstance(name, str) and name in CORPORA
    require(fits, f"want one of the corpora {', '.join(CORPORA)}", quote(name))
    return tuple(CORPORA[name].values())


def verify(name: str) -> dict[DataFile, str]:
    """Say for each file of a corpus whether it is "ok", "missing" or "wrong"; downloads nothing."""
    return {file: file.status() for file in corpus_files(name)}


def fetch(name: str) -> dict[str, Path]:
    """Return the verified files of a corpus, split -> path, downloading those not there yet.

    Raises:
        InputError: there is no corpus of that name; a file is missing or wrong in MINILSTM_DATA;
            or no mirror serves it. The message says what to put where by hand.
    """
    for file, status in verify(name).items():
        if status != "ok":
            _obtain(file, status)
    return {split: file.local_path for split, file in CORPORA[name].items()}


def _obtain(file: DataFile, status: str) -> None:
    """Download the file from the first address that serves it."""
    known_by = f"SHA-256 {file.sha256} ({file.size:,} bytes)"
    by_hand = f"put the file with {known_by} at {file.local_path} by hand"
    if os.environ.get("MINILSTM_DATA"):
        fault = f"{file.path} is {status} in the folder that MINILSTM_DATA names"
        remedy = f"{' or '.join(file.addresses)}, or unset MINILSTM_DATA to have it downloaded"
        raise InputError(f"{fault}: {by_hand}, from {remedy}")
    failures = []
    for address in file.addresses:
        try:
            return _download(address, file)
        except ValueError:
            failures.append(f"{address} (another file came: its SHA-256 differs)")
        except OSError as error:  # the exceptions of requests are OSErrors, without a strerror
            failures.append(f"{address} ({error.strerror or type(error).__name__})")
    raise InputError(f"cannot download {file.path} from {' or '.join(failures)}: {by_hand}")


def _download(address: str, file: DataFile) -> None:
    """Put the file in its place; a file is there whole and verified, or not there.

    Raises OSError where the address cannot be reached or the file not written, ValueError where
    another file comes.
    """
    import zipfile

    import pooch

    url, _, member = address.partition("#")
    # The author's mirror of WikiText refuses Python's own names.
    plain = pooch.HTTPDownloader(headers={"User-Agent": "minilstm"}, chunk_size=1 << 16)

    def out_of_archive(url: str, target: str, _: object) -> None:
        name = url.rpartition("/")[2]
        known = f"sha256:{ARCHIVES[name]}"
        archive = pooch.retrieve(url, known, name, data_folder(), downloader=plain)
        Path(target).write_bytes(zipfile.Path(archive, member).read_bytes())

    path, download = file.local_path, out_of_archive if member else plain
    pooch.retrieve(url, f"sha256:{file.sha256}", path.name, path.parent, downloader=download)
