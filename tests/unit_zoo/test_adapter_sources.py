"""Adapters from paths, addresses and a repository that looks like Hugging Face, served on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ase.build import molecule

import zoo
from adapters.method import create_method
from tests import direct_family
from tests.refusals import cli_refusal, lacks, refusal_of
from zoo import adapter_sources
from zoo.adapter_sources import is_address, local_adapter
from zoo.backbones import load_family
from zoo.loading import load
from zoo.potential import Potential
from zoo.training.config import TrainingConfig
from zoo.training.module import FineTuning
from zoo.training.plan import Plan

TOKEN = "hf_secret"


class Server(ThreadingHTTPServer):
    """Answers with `files` by path, redirects by `moved`, and wants the token for what is `private`; every request is kept."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.moved: dict[str, str] = {}
        self.private = False
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization")
        self.server.requests.append((self.path, authorization))
        if self.path in self.server.moved:
            self.send_response(307)
            self.send_header("Location", self.server.moved[self.path])
            self.end_headers()
        elif self.server.private and authorization != f"Bearer {TOKEN}":
            self.send_error(401)
        elif self.path not in self.server.files:
            self.send_error(404)
        else:
            body = self.server.files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """The hub and another host."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    both = Server(), Server()
    for server in both:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(adapter_sources, "_HUB", both[0].url)
    yield both
    for server in both:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def adapter_file(toy_checkpoint, tmp_path_factory) -> Path:
    """A trained adapter of the toy, with reference energies."""
    potential = zoo.load(toy_checkpoint)
    potential.adapters.add("elora", create_method({"name": "elora", "rank": 2}))
    potential.adapters.randomise("elora", 1)
    potential.set_reference_shifts({1: 0.25, 8: -1.0})
    return potential.save_adapter("elora", tmp_path_factory.mktemp("source") / "adapter.safetensors")


def energy(potential) -> float:
    return float(potential.predict([molecule("H2O")])[0].energy)


def test_a_path_is_itself_and_a_file_address_is_its_path(adapter_file, tmp_path, toy_checkpoint):
    assert local_adapter(adapter_file) == local_adapter(str(adapter_file)) == local_adapter(adapter_file.as_uri()) == adapter_file
    assert local_adapter(f"file://{tmp_path}/with%20space.safetensors") == tmp_path / "with space.safetensors"
    assert not is_address("hf/adapter.safetensors")
    assert energy(zoo.load(toy_checkpoint, adapter=adapter_file.as_uri())) == energy(zoo.load(toy_checkpoint, adapter=adapter_file))


def test_an_address_is_fetched_once_and_must_serve_the_same_file_from_then_on(servers, adapter_file, toy_checkpoint, capsys):
    web = servers[1]
    web.files["/a/adapter.safetensors"] = web.files["/b/adapter.safetensors"] = adapter_file.read_bytes()
    expected = energy(zoo.load(toy_checkpoint, adapter=adapter_file))
    for _ in range(2):
        assert energy(zoo.load(toy_checkpoint, adapter=f"{web.url}/a/adapter.safetensors")) == expected
    assert len(web.requests) == 1
    assert "nobody has verified this file yet" in capsys.readouterr().err
    here = local_adapter(f"{web.url}/a/adapter.safetensors")
    assert here != local_adapter(f"{web.url}/b/adapter.safetensors")  # of one name, and two addresses
    here.unlink()
    web.files["/a/adapter.safetensors"] += b"x"
    assert "SHA-256" in refusal_of(local_adapter, f"{web.url}/a/adapter.safetensors")


def test_a_repository_on_the_hub_by_name_revision_and_file(servers, adapter_file, toy_checkpoint):
    hub = servers[0]
    content = adapter_file.read_bytes()
    paths = {
        "hf://owner/my.model-1": "/owner/my.model-1/resolve/main/adapter.safetensors",
        "hf://owner/name@v1.0": "/owner/name/resolve/v1.0/adapter.safetensors",
        "hf://owner/name/runs/b.safetensors": "/owner/name/resolve/main/runs/b.safetensors",
        "hf://owner/name@abc/runs/b.safetensors": "/owner/name/resolve/abc/runs/b.safetensors",
    }
    for address, path in paths.items():
        hub.files = {path: content}
        assert local_adapter(address).read_bytes() == content
    assert [path for path, _ in hub.requests] == list(paths.values())
    assert all(authorization is None for _, authorization in hub.requests)
    potential = zoo.load(toy_checkpoint, adapter="hf://owner/name@v1.0")
    assert potential.get_reference_shifts() == {1: 0.25, 8: -1.0}


def test_the_token_opens_private_repositories_and_goes_to_the_hub_alone(servers, adapter_file, monkeypatch):
    hub, other = servers
    hub.private = True
    content = adapter_file.read_bytes()
    stored, renamed = "/owner/name/resolve/main/adapter.safetensors", "/new/name/resolve/main/adapter.safetensors"
    hub.files[stored] = hub.files[renamed] = content
    assert "HF_TOKEN is not set" in refusal_of(local_adapter, "hf://owner/name")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "the one in HF_TOKEN does not open it" in refusal_of(local_adapter, "hf://owner/name")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert local_adapter("hf://owner/name").read_bytes() == content
    # within the hub it goes along, to the store of large files it does not, nor back from there
    hub.moved["/old/name/resolve/main/adapter.safetensors"] = renamed
    assert local_adapter("hf://old/name").read_bytes() == content
    other.files["/large"] = content
    hub.moved["/far/name/resolve/main/adapter.safetensors"] = f"{other.url}/large"
    assert local_adapter("hf://far/name").read_bytes() == content
    assert other.requests == [("/large", None)]
    # an address that only looks like the hub gets none
    other.files["/owner/name/resolve/main/adapter.safetensors"] = content
    assert local_adapter(f"{other.url}/owner/name/resolve/main/adapter.safetensors").read_bytes() == content
    assert all(authorization is None for _, authorization in other.requests)
    assert f"Bearer {TOKEN}" in {authorization for _, authorization in hub.requests}


def test_the_hub_is_hugging_face():
    assert adapter_sources._HUB == "https://huggingface.co"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host/a.safetensors", "wanted a path or one of: file, http, https, hf"),
        ("hf://owner", "not of the form hf://owner/name"),
        ("hf://owner/../secret", "not of the form hf://owner/name"),
        ("hf://owner/name/../../x.safetensors", "not of the form hf://owner/name"),
        ("hf://owner/name@a/b@c", "not of the form hf://owner/name"),
        ("hf://owner/name@../other/main/adapter.safetensors", "not of the form hf://owner/name"),  # the cache of another repository
        ("https://host/", "names no file"),
        ("file://runs/adapter.safetensors", "a file on the host 'runs'"),
    ],
)
def test_an_address_of_another_form_is_one_line_and_asks_nobody(servers, address, message):
    assert message in refusal_of(local_adapter, address)
    assert servers[0].requests == servers[1].requests == []


def test_a_repository_that_is_not_there_is_one_line(servers):
    assert "answered 404" in refusal_of(local_adapter, "hf://owner/absent")


def test_several_adapters_are_loaded_and_swapped_with_their_reference_energies(adapter_file, toy_checkpoint, tmp_path):
    alone = zoo.load(toy_checkpoint, adapter=adapter_file)
    base = zoo.load(toy_checkpoint)
    bare = energy(base)
    base.load_adapter(adapter_file, "wet")
    assert base.adapters.active == ()
    assert energy(base) == bare
    base.adapters.add("dense", "full")
    base.adapters.randomise("dense", 3)
    base.adapters.activate(["dense"])
    base.level_of_theory = "PBE0"
    dense = energy(base)
    base.adapters.activate(["wet"])
    assert energy(base) == energy(alone)
    assert base.get_reference_shifts() == {1: 0.25, 8: -1.0}
    base.adapters.scale("wet", 0.5)
    assert base.get_reference_shifts() == {1: 0.125, 8: -0.5}
    assert "a file does not hold" in refusal_of(base.save_adapter, "wet", tmp_path / "no.safetensors")
    base.adapters.scale("wet", 1)
    assert base.save_adapter("wet", tmp_path / "again.safetensors").read_bytes() == adapter_file.read_bytes()
    base.adapters.activate(["dense"])
    assert energy(base) == dense
    assert base.level_of_theory == "PBE0"
    copied = base.to_dtype(base.dtype)
    copied.adapters.activate(["wet"])
    assert energy(copied) == energy(alone)


def test_an_adapter_of_another_base_family_or_way_to_forces_is_refused_in_one_line(adapter_file, toy_checkpoint, tmp_path):
    same_architecture = Potential(load_family("sevennet").toy(1))
    message = refusal_of(same_architecture.load_adapter, adapter_file, "a")
    assert not lacks(message, zoo.load(toy_checkpoint).base_sha256, same_architecture.base_sha256, "toy.pth")
    assert "sevennet model (toy.pth)" in refusal_of(Potential(load_family("nequix").toy(0)).load_adapter, adapter_file, "a")
    with direct_family.registered():
        direct = Potential(load_family(direct_family.FAMILY.name).toy(0), forces="gradient")
        direct.adapters.add("a", "full")
        path = direct.save_adapter("a", tmp_path / "direct.safetensors")
        other = Potential(direct.backbone, forces="direct")
        assert "its own force output is untrained" in refusal_of(other.load_adapter, path, "b")
        assert other.adapters.names == same_architecture.adapters.names == ()
    potential = zoo.load(toy_checkpoint)
    potential.load_adapter(adapter_file, "a")
    assert "in use" in refusal_of(potential.load_adapter, adapter_file, "a")
    potential.adapters.activate(["a"])
    potential.adapters.merge()
    assert "unmerge" in refusal_of(potential.load_adapter, adapter_file, "b")


def test_reference_energies_of_a_file_are_not_added_to_those_of_the_potential(adapter_file, toy_checkpoint):
    potential = load(toy_checkpoint)
    potential.set_reference_shifts({8: 1.0})
    assert not lacks(refusal_of(potential.load_adapter, adapter_file, "a"), "both would count", "set_reference_shifts({})")
    potential.set_reference_shifts({})
    potential.load_adapter(adapter_file, "a")
    potential.adapters.activate(["a"])
    assert potential.get_reference_shifts() == load(toy_checkpoint, adapter=adapter_file).get_reference_shifts()


def test_reference_energies_that_are_set_belong_to_the_one_active_adapter(adapter_file, toy_checkpoint):
    potential = load(toy_checkpoint, adapter=adapter_file)
    bare = energy(load(toy_checkpoint))
    potential.set_reference_shifts({8: 3.0})
    assert potential.get_reference_shifts() == {8: 3.0}
    potential.adapters.deactivate()
    assert potential.get_reference_shifts() == {}
    assert energy(potential) == bare
    potential.set_reference_shifts({1: 0.5})  # none active: whatever will be
    assert energy(potential) == bare + 1.0
    potential.adapters.activate(["elora"])
    assert potential.get_reference_shifts() == {1: 0.5, 8: 3.0}
    potential.adapters.scale("elora", 0.5)
    assert potential.get_reference_shifts() == {1: 0.5, 8: 1.5}
    potential.set_reference_shifts({6: 1.0})  # scaled: nobody's own
    assert potential.get_reference_shifts() == {6: 1.0}
    potential.adapters.deactivate()
    assert potential.get_reference_shifts() == {6: 1.0}


def test_an_adapter_that_was_trained_here_and_one_from_a_file_do_not_share_reference_energies(adapter_file, toy_checkpoint, tmp_path):
    potential = load(toy_checkpoint, adapter={"name": "full"})
    potential.set_reference_shifts({8: -4.0})
    path = potential.save_adapter("full", tmp_path / "full.safetensors")
    potential.load_adapter(adapter_file, "wet")
    potential.load_adapter(path, "again")
    expected = energy(potential)
    potential.adapters.activate(["again"])
    assert energy(potential) == expected
    potential.adapters.activate(["wet"])
    assert energy(potential) == energy(load(toy_checkpoint, adapter=adapter_file))


def test_a_checkpoint_of_a_run_that_goes_on_from_a_file_counts_its_reference_energies_once(adapter_file, toy_checkpoint):
    """As a resumed run does: the file is read again, and then the checkpoint."""
    potential = load(toy_checkpoint, adapter=adapter_file)
    checkpoint: dict[str, object] = {}
    FineTuning(potential, TrainingConfig(), Plan.of(TrainingConfig(), 5), {}).on_save_checkpoint(checkpoint)
    potential.set_reference_shifts({8: 3.0})
    later: dict[str, object] = {}
    FineTuning(potential, TrainingConfig(), Plan.of(TrainingConfig(), 5), {}).on_save_checkpoint(later)
    again = load(toy_checkpoint, adapter=adapter_file)
    for saved, expected in ((checkpoint, {1: 0.25, 8: -1.0}), (later, {8: 3.0})):
        FineTuning(again, TrainingConfig(), Plan.of(TrainingConfig(), 5), {}).on_load_checkpoint(saved)
        assert again.get_reference_shifts() == expected


def test_the_command_line_takes_addresses_where_it_takes_files(zoo, servers, adapter_file, toy_checkpoint, tmp_path):
    hub = servers[0]
    hub.files["/owner/name/resolve/main/adapter.safetensors"] = adapter_file.read_bytes()
    shown = zoo("adapter", "inspect", "hf://owner/name")
    assert shown.code == 0
    assert "elora (" in shown.out
    assert "reference energies" in shown.out
    composed = zoo("train", "--cfg", "job", f"backbone={toy_checkpoint}", "adapter=hf://owner/name")
    assert composed.code == 0, composed.err
    assert "path: hf://owner/name" in composed.out
    assert "not of the form" in cli_refusal(zoo("adapter", "inspect", "hf://owner"))


def test_inspect_and_diff_on_the_command_line(zoo, adapter_file, toy_checkpoint, tmp_path):
    potential = load(toy_checkpoint, adapter=adapter_file)
    potential.adapters.combine({"elora": 0.5}, into="halved")
    potential.adapters.activate(["halved"])
    other = potential.save_adapter("halved", tmp_path / "half.safetensors")
    shown = zoo("adapter", "inspect", str(adapter_file)).out
    assert f"{adapter_file.stat().st_size:,} bytes" in shown
    roles = {line.split()[0] for line in shown.split("nonzero")[1].splitlines() if line}
    assert roles == {block.role for block in potential.adapters.get("elora").blocks}
    listed = zoo("adapter", "inspect", str(adapter_file), "--blocks").out
    assert all(block.key in listed for block in potential.adapters.get("elora").blocks)
    difference = zoo("adapter", "diff", str(adapter_file), str(other)).out
    assert "training.combined" in difference
    rows = [line.split() for line in difference.splitlines() if line.split()[-1:] == ["1.000"]]
    assert rows
    assert all(float(row[-4]) == pytest.approx(2 * float(row[-3]), rel=1e-3) for row in rows)
    assert "are the same" in zoo("adapter", "diff", str(adapter_file), str(adapter_file), "--blocks").out
    for words, message in (
        ((), "no action"),
        (("inspct", "a"), "did you mean 'inspect'"),
        (("inspect",), "takes 1 file and --blocks, found 0"),
        (("diff", "a"), "takes 2 files"),
        (("inspect", "a", "--block"), "unknown --block"),
        (("inspect", "absent.safetensors"), "cannot be read"),
    ):
        assert message in cli_refusal(zoo("adapter", *words))
