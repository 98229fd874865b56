"""List, fetch and verify the corpora that have a name.

list shows the corpora, their files and which of them are there; fetch downloads what is missing;
verify compares every SHA-256, by which a file is known, and exits with 1 if one is missing or
wrong; path says where the files are. MINILSTM_DATA names a folder that holds them; without it they
are downloaded into a cache folder.
"""

from minilstm.cli import Args, FailedError, Parser, show
from minilstm.text.downloads import CORPORA, corpus_files, data_folder, fetch, verify


def add_flags(parser: Parser) -> None:
    corpora = ", ".join(CORPORA)
    parser.add_argument("action", choices=("list", "fetch", "verify", "path"), help="see above")
    parser.add_argument("corpus", metavar="NAME", nargs="?", help=f"{corpora}; otherwise all")


def main(args: Args) -> None:
    files = {name: corpus_files(name) for name in ([args.corpus] if args.corpus else CORPORA)}
    if args.action == "list":
        for name, of_corpus in files.items():
            size, folder = sum(file.size for file in of_corpus), data_folder()
            show(f"{name}: {size:,} bytes, in {folder}" if of_corpus else f"{name}: built in")
            for file, state in verify(name).items():
                show(f"  {state:7}  {file.path}  {file.size:,} bytes  sha256 {file.sha256}")
                show("\n".join(f"    {address}" for address in file.addresses))
    elif args.action == "fetch":
        for name in files:
            paths = [f"{name} {split}: {path}" for split, path in fetch(name).items()]
            show("\n".join(paths or [f"{name}: built in"]))
    elif args.action == "verify":
        states = {file: state for name in files for file, state in verify(name).items()}
        for file, state in states.items():
            show(f"{state:7}  {file.local_path}")
        if bad := sum(state != "ok" for state in states.values()):
            raise FailedError(f"{bad} of {len(states)} files are missing or wrong")
    elif not args.corpus:
        show(str(data_folder()))
    else:
        for file in files[args.corpus]:
            show(str(file.local_path))
