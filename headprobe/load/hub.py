"""A hub name becomes a folder in the cache, with the commit it came from."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from headprobe.errors import EnvironmentFailure, HeadprobeError, InputError, RefusedError, nearest
from headprobe.settings import LoadOptions

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
TIMEOUT = 10.0
WEIGHTS = (  # the last two: Sentence Transformers' older layout, and adapters
    r"model.*\.safetensors", r"\d_Transformer/model.*\.safetensors", r"adapter_model\.safetensors",
)  # fmt: skip
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")


@dataclass(frozen=True)
class Source:
    """Where a checkpoint lies: a folder, the name the user gave, and the hub's commit if it came from there.

    The folder is where its tokenizer or processor is; `gguf` is the file in it that holds everything, if one does.
    """

    folder: Path
    name: str
    commit: str | None = None
    note: str = ""
    gguf: str | None = None


def find(name: str, options: LoadOptions) -> Source:
    """The folder of a checkpoint that is given as a path or as a hub name.

    A path that exists, or that looks like one (`./x`, `/x`, `~/x`, below an existing folder), is never looked up on
    the hub. Raises `InputError` for a path that isn't there and `EnvironmentFailure` when the hub can't help.
    """
    path = local_path(name)
    return from_hub(name, options) if path is None else Source(path, name)


def local_path(name: str) -> Path | None:
    """The path that a name means, or None for a hub name. Raises `InputError` for a path that isn't there."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    parent = path.parent
    local = name.startswith((".", "/", "~")) or (parent != Path() and parent.is_dir())
    if local or not HUB_NAME.fullmatch(name):
        raise InputError("E-PATH", f"no folder at {name}", "Give a checkpoint's folder or a hub name like org/model.")
    return None


def from_hub(name: str, options: LoadOptions) -> Source:
    """The folder of a hub name, downloaded or from the cache, whatever folders there are here."""
    from huggingface_hub import constants, errors

    if constants.is_offline_mode():
        return _from_cache(name, options, "offline mode is on (HF_HUB_OFFLINE)")
    try:
        return _download(name, options)
    except errors.HFValidationError as fault:
        raise InputError("E-PATH", f"{name} is neither a folder nor a hub name") from fault
    except errors.HfHubHTTPError as fault:
        raise _told(name, options.revision, fault) from fault
    except (errors.HTTPError, ConnectionError) as fault:  # type: ignore[attr-defined]  # whichever httpx the hub uses
        return _from_cache(name, options, f"the Hub can't be reached ({type(fault).__name__})")
    except OSError as fault:
        raise EnvironmentFailure("E-DISK", f"{name} can't be downloaded: {fault.strerror or fault}") from fault


def _download(name: str, options: LoadOptions) -> Source:
    """Everything a scan needs of a hub model, at one commit."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    info = HfApi(token=options.token).model_info(name, revision=options.revision, timeout=TIMEOUT)
    wanted = _wanted(name, [file.rfilename for file in info.siblings or []], options)
    folder = snapshot_download(
        name,
        revision=options.revision,  # by its name, so that the cache knows it by that name
        cache_dir=options.cache_dir,
        token=options.token,
        allow_patterns=wanted,
        etag_timeout=TIMEOUT,
    )
    return Source(Path(folder), name, Path(folder).name)


def _from_cache(name: str, options: LoadOptions, reason: str) -> Source:
    """What an earlier download left, with a note that says so."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, revision=options.revision, cache_dir=options.cache_dir, local_files_only=True)
    except (OSError, ValueError) as absent:
        raise EnvironmentFailure(
            "E-OFFLINE",
            f"{name} is no folder here, not in the local cache, and {reason}",
            f"Check the spelling, or download it where there is a network: hf download {name}",
        ) from absent
    commit = Path(folder).name
    return Source(Path(folder), name, commit, f"{reason}: {name} was taken from the cache, commit {commit[:12]}")


def _wanted(name: str, files: list[str], options: LoadOptions) -> list[str]:
    """The files worth downloading: one format of weights, everything small, code only if it is trusted."""
    if options.gguf_file is not None:
        return _wanted_gguf(name, files, options.gguf_file)
    weights = next(filter(None, ([f for f in files if re.fullmatch(form, f)] for form in WEIGHTS)), [])
    pickled = [file for file in files if re.fullmatch(r"pytorch_model.*\.bin|adapter_model\.bin", file)]
    if not weights and pickled and not options.allow_pickle:
        raise RefusedError(
            "E-PICKLE",
            f"{name} has only pickled weights ({pickled[0]}), which can run code when loaded",
            "Pass --allow-pickle if you trust their source.",
        )
    packed = [file for file in files if file.endswith(".gguf")]
    if packed and not weights and not pickled:
        raise InputError("E-FORMAT", f"{name} has only GGUF weights", f"Name a file, e.g. --gguf-file {packed[0]}")
    return [*SMALL_FILES, *(weights or pickled), *(["*.py"] if options.trust_remote_code else [])]


def _wanted_gguf(name: str, files: list[str], wanted: str) -> list[str]:
    if wanted not in files:
        packed = [file for file in files if file.endswith(".gguf")]
        raise InputError("E-GGUF", f"{name} has no file {wanted}", nearest(wanted, packed))
    return [*SMALL_FILES, wanted]


def _told(name: str, revision: str | None, fault: Exception) -> HeadprobeError:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    status = fault.response.status_code if isinstance(fault, HfHubHTTPError) and fault.response is not None else None
    if isinstance(fault, GatedRepoError):
        return EnvironmentFailure(
            "E-GATED",
            f"{name} needs approved access",
            f"Request it at https://huggingface.co/{name}, then set HF_TOKEN.",
        )
    if isinstance(fault, RevisionNotFoundError):
        return EnvironmentFailure("E-REVISION", f'{name} has no branch, tag or commit "{revision}"')
    if isinstance(fault, RepositoryNotFoundError):
        return EnvironmentFailure(
            "E-NOTFOUND", f"no model {name} on the Hub, or it is private", "Check the spelling, or set HF_TOKEN."
        )
    if status in (401, 403):
        return EnvironmentFailure("E-AUTH", f"the Hub rejected the token ({status})", "Check HF_TOKEN or --token.")
    return EnvironmentFailure("E-HUB", f"the Hub failed for {name} (HTTP {status})", "Try again later.")
