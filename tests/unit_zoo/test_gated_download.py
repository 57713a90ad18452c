"""Files for accounts that accepted a licence: whose token is sent where, and what is said where it is missing. Servers of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import zoo
import zoo.backbones
import zoo.tokens
from tests.refusals import lacks, refusal_of
from zoo.download import fetch

BODY = b"weights" * 1000
PLACE = "/facebook/UMA/resolve/main/checkpoints/model.pt"


class Server(ThreadingHTTPServer):
    """A hub that hands files to accounts and sends on to another server; ``seen`` holds what each request said of its account."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[str | None] = []
        self.sends_on_to: Server | None = None

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        account = self.headers.get("Authorization")
        self.server.seen.append(account)
        elsewhere = self.server.sends_on_to
        if elsewhere is None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)
        elif account == "Bearer mine":
            self.send_response(302)
            self.send_header("Location", elsewhere.origin + "/blob")
            self.end_headers()
        else:
            self.send_error(401 if account is None else 403)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A hub whose origin wants HF_TOKEN, and which sends on to a server that does not."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    hub, storage = Server(), Server()
    hub.sends_on_to = storage
    for server in (hub, storage):
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(zoo.tokens, "TOKEN_OF_ORIGIN", {hub.origin: "HF_TOKEN"})
    yield hub
    for server in (hub, storage):
        server.shutdown()
        server.server_close()


def test_the_token_goes_to_the_hub_and_not_to_where_it_sends_on(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "mine")
    assert fetch(hub.origin + PLACE, tmp_path / "model.pt", sha256=None).read_bytes() == BODY
    assert hub.seen == ["Bearer mine"]
    assert hub.sends_on_to is not None
    assert hub.sends_on_to.seen == [None]


def test_no_other_server_gets_the_token(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "mine")
    storage = hub.sends_on_to
    assert storage is not None
    fetch(storage.origin + "/blob", tmp_path / "model.pt", sha256=None)
    assert storage.seen == [None]


@pytest.mark.parametrize(
    ("token", "answer", "said"), [(None, "401", "HF_TOKEN is not set"), ("other", "403", "the token in HF_TOKEN was not enough")]
)
def test_without_an_account_that_may_one_line_says_what_to_accept_and_to_set(hub, monkeypatch, tmp_path, token, answer, said):
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    message = refusal_of(fetch, hub.origin + PLACE, tmp_path / "model.pt", sha256=None, description="uma-s-1p1")
    assert not lacks(message, "uma-s-1p1", answer, said, f"accept it on {hub.origin}/facebook/UMA,", "set HF_TOKEN")
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_the_token_is_hugging_faces_over_https_alone():
    assert zoo.tokens.TOKEN_OF_ORIGIN == {"https://huggingface.co": "HF_TOKEN"}
    for url in (
        "http://huggingface.co/a",
        "https://huggingface.co.example.org/a",
        "https://example.org/huggingface.co",
        "file:///huggingface.co",
    ):
        assert zoo.tokens.token_variable(url) is None
    assert zoo.tokens.token_variable("https://huggingface.co/facebook/UMA/resolve/main/x.pt") == "HF_TOKEN"


def test_cards_of_uma_and_esen_ask_for_head_and_licence_before_anything_is_fetched(monkeypatch):
    monkeypatch.delenv("ZOO_ACCEPT_LICENCES", raising=False)
    names = [*zoo.list_models("uma-*"), *zoo.list_models("esen-*")]
    assert len(names) == 13
    for name in names:
        card = zoo.describe(name)
        assert card.family == "uma"
        assert card.file.url is not None
        assert card.file.url.startswith("https://huggingface.co/facebook/")
        assert card.file.sha256 is None
        assert card.conservative == ("direct" not in name)
        assert set(card.level_of_theory_of_head) == set(card.heads)
        assert "doi" in card.citation
    assert not lacks(refusal_of(zoo.load, "uma-s-1p1"), "several heads", "oc20, odac, omat, omc, omol")
    if zoo.backbones.is_installed("uma"):
        message = refusal_of(zoo.load, "uma-s-1p1", head="omat")
        assert not lacks(message, "FAIR Chemistry License", "ZOO_ACCEPT_LICENCES=fair-chemistry")


@pytest.mark.parametrize("token", ["hf_secret\nnext", "hf secret", "hf_sécret"])
def test_a_token_that_no_header_can_hold_is_refused_without_being_shown(monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    message = refusal_of(zoo.tokens.token_for, "https://huggingface.co/owner/name/resolve/main/model.pt")
    assert "HF_TOKEN" in message
    assert "secret" not in message
