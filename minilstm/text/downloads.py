"""The files of the named corpora: where each comes from, and how we know that it is the right one.

A file is known by its SHA-256, so any mirror will do: one that serves something else, such as an
error page, is passed over. `MINILSTM_DATA` names a folder that holds the files already; without
it they are downloaded into the user's cache folder. They are not ours to ship: WikiText-2
(Merity et al. 2016, arXiv:1609.07843) is under CC BY-SA.
"""

import hashlib
import os
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


def _files(path: str, *addresses: str, **splits: tuple[int, str]) -> dict[str, DataFile]:
    """The files of the splits, (size, SHA-256) each; {0} stands for a split's name."""
    return {split: DataFile(path.format(split), *known, tuple(a.format(split) for a in addresses))
            for split, known in splits.items()}


# name -> split -> file; "hello" is built in
CORPORA: dict[str, dict[str, DataFile]] = {
    "hello": {},
    "shakespeare": _files(
        "tinyshakespeare.txt",
        "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
        "https://storage.googleapis.com/download.tensorflow.org/data/shakespeare.txt",
        train=(1_115_394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),
    ),
    "wikitext2": _files(
        "wikitext-2/{0}.txt",
        "https://raw.githubusercontent.com/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8/word_language_model/data/wikitext-2/{0}.txt",
        "https://wikitext.smerity.com/wikitext-2-v1.zip#wikitext-2/wiki.{0}.tokens",
        train=(10_797_148, "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"),
        valid=(1_121_681, "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
        test=(1_256_449, "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
    ),
    "wikitext2-raw": _files(
        "wikitext-2-raw/{0}.txt",
        "https://huggingface.co/ggml-org/ci/resolve/927b3642933080f1b0e811e2f916e14c292992f9/wikitext-2-raw-v1.zip#wikitext-2-raw/wiki.{0}.raw",
        "https://wikitext.smerity.com/wikitext-2-raw-v1.zip#wikitext-2-raw/wiki.{0}.raw",
        train=(10_940_747, "6707892fa3788b5ab9ed78ab5ff37d9fe825f6011a2ad4fcd6a6d467f0e7da57"),
        valid=(1_146_846, "4cd0f6876d07a413aa911261ff6d363c72d757d47f0fdd6015702014c89cb9c7"),
        test=(1_290_590, "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"),
    ),
}
ARCHIVES = {  # SHA-256
    "wikitext-2-v1.zip": "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
    "wikitext-2-raw-v1.zip": "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11",
}


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
