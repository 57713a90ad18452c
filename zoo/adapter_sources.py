"""Where an adapter file comes from: a path, an address, or a repository on Hugging Face.

``hf://owner/name`` is the ``adapter.safetensors`` of a repository, ``hf://owner/name/folder/file.safetensors`` another file of it, and
``hf://owner/name@revision`` what it was at a branch, tag or commit. The token in ``HF_TOKEN`` opens private repositories; it is sent to
huggingface.co and to no other address, also where that one redirects.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.parse
import urllib.request
from pathlib import Path

from zoo.cache import cache_root
from zoo.download import fetch_remembering
from zoo.errors import ZooError

_HUB = "https://huggingface.co"
_DEFAULT_FILE = "adapter.safetensors"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_REPOSITORY = re.compile(rf"(?P<owner>{_PART})/(?P<name>{_PART})(@(?P<revision>{_PART}))?(?P<file>(/{_PART})*)")
_SCHEMES = ("file", "http", "https", "hf")


def is_address(source: str | Path) -> bool:
    """Whether ``source`` is an address (``scheme://...``) and not a path."""
    return isinstance(source, str) and "://" in source


def local_adapter(source: str | Path) -> Path:
    """The adapter file on this disk; an address is fetched into the cache once and must serve the same bytes from then on.

    Args:
        source: a path, ``file://``, ``http://`` or ``https://`` address, or ``hf://owner/name[@revision][/file]``.

    Raises:
        ZooError: an address of another kind or form, or a file that cannot be fetched.
    """
    if not is_address(source):
        return Path(source)
    address = str(source)
    scheme, _, rest = address.partition("://")
    if scheme not in _SCHEMES:
        raise ZooError(f"{address}: not an address that an adapter can come from; wanted a path or one of: {', '.join(_SCHEMES)}")
    if scheme == "hf":
        return _from_hub(address, rest)
    parts = urllib.parse.urlsplit(address)
    if scheme == "file" and parts.netloc not in ("", "localhost"):
        raise ZooError(f"{address}: a file on the host {parts.netloc!r}; for one of this computer write file:///folder/file")
    if scheme == "file":
        return Path(urllib.request.url2pathname(parts.path))  # a file of one's own may change, so nothing is remembered of it
    name = Path(urllib.parse.unquote(parts.path)).name
    if not name:
        raise ZooError(f"{address}: names no file; pass the address of an adapter file")
    folder = hashlib.sha256(address.encode()).hexdigest()[:16]  # two addresses may end in one file name
    return fetch_remembering(address, cache_root() / "adapters" / "web" / folder / name, sha256=None, description=address)


def _from_hub(address: str, rest: str) -> Path:
    match = _REPOSITORY.fullmatch(rest)
    if match is None:
        raise ZooError(f"{address}: not of the form hf://owner/name, hf://owner/name@revision or hf://owner/name/file.safetensors")
    owner, name, revision = match["owner"], match["name"], match["revision"] or "main"
    file = match["file"].lstrip("/") or _DEFAULT_FILE
    destination = cache_root() / "adapters" / "huggingface" / owner / name / revision / file
    url = f"{_HUB}/{owner}/{name}/resolve/{revision}/{file}"
    token = os.environ.get("HF_TOKEN", "").strip() or None
    try:
        return fetch_remembering(url, destination, sha256=None, description=address, token=token)
    except ZooError as error:
        if " answered 401 " in str(error) or " answered 403 " in str(error):
            state = "the one in HF_TOKEN does not open it" if token else "HF_TOKEN is not set"
            raise ZooError(f"{address}: no such repository, or one that wants a token, and {state}; check the name and HF_TOKEN") from None
        raise
