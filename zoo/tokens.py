"""Whose token goes where: files for accounts that accepted a licence, and the one server that sees the account's token."""

from __future__ import annotations

import os
import re
import urllib.parse
import urllib.request
from typing import Any

from zoo.errors import ZooError

TOKEN_OF_ORIGIN = {"https://huggingface.co": "HF_TOKEN"}
"""Where files are handed out to accounts, and the environment variable with the account's token; it is sent nowhere else."""


def token_variable(url: str) -> str | None:
    """The environment variable that holds the token for an address, where its server asks for one."""
    parts = urllib.parse.urlsplit(url)
    return TOKEN_OF_ORIGIN.get(f"{parts.scheme}://{parts.netloc}")


def token_for(url: str) -> str:
    """What is sent of that variable, empty where it is not set.

    Raises:
        ZooError: for what no header can hold, without showing it.
    """
    variable = token_variable(url) or ""
    token = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[!-~]*", token):
        raise ZooError(f"{variable} holds spaces, line ends or letters that no token has; set it to the token alone")
    return token


def wants_an_account(url: str, answer: str, sent_token: bool) -> str:
    """What to do where a server asks for an account.

    Args:
        url: of the file.
        answer: of the server, ``"401 Unauthorized"``.
        sent_token: whether a token went along.
    """
    page = url.partition("/resolve/")[0]
    variable = token_variable(url)
    sent = f"the token in {variable} was not enough" if sent_token else f"{variable} is not set"
    return (
        f"{url} answered {answer}, and {sent}: the file is for accounts that accepted its licence; accept it on {page}, set {variable} to "
        "a token of that account that may read, and run again"
    )


class TokenAtHome(urllib.request.HTTPRedirectHandler):
    """A token goes along where an address redirects within its own host, as Hugging Face does, and to no other."""

    def redirect_request(self, req: urllib.request.Request, *answer: Any) -> urllib.request.Request | None:
        """The request that follows, with the token where it stays at home."""
        following = super().redirect_request(req, *answer)
        token = req.unredirected_hdrs.get("Authorization")
        if following is not None and token is not None and _host(following.full_url) == _host(req.full_url):
            following.add_unredirected_header("Authorization", token)
        return following


def _host(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc
