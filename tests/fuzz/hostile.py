"""Files that are made to run code or to fill the memory, for every reader that unpacks or unpickles."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import torch

from tests.fuzz.seeds import Read, read_checkpoint, read_data, read_linear, read_result, read_training_state, take_out
from tests.zip_files import write_zip

GIB = 2**30
Make = Callable[[Path, Path], Path]
"""``make(folder, canary)`` writes the file and returns what is to be read; the canary is what its code would create."""


class Harm:
    """Unpickled, it would create a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def write_records(path: Path, records: dict[str, bytes]) -> Path:
    """An LMDB of exactly these values."""
    with lmdb.open(str(path), subdir=False, map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value)
    path.with_name(f"{path.name}-lock").unlink(missing_ok=True)
    return path


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _saved(value: Any, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _npy(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=True)
    return stream.getvalue()


def _object_array(canary: Path) -> Any:
    values = np.empty(1, dtype=object)
    values[0] = Harm(canary)
    return values


def _bomb_npz(path: Path, shape: tuple[int, ...]) -> Path:
    """Arrays whose headers claim ``shape`` and whose bytes are 64 MiB of zeros, compressed to 64 KiB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    content = header.getvalue() + bytes(2**26)
    return write_zip(path, {f"{name}.npy": content for name in ("R", "E", "F", "z")})


def _deepmd(folder: Path, **arrays: bytes) -> Path:
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("0 0\n")
    (folder / "type_map.raw").write_text("H\n")
    for name, content in arrays.items():
        (folder / "set.000" / f"{name}.npy").write_bytes(content)
    return folder


def _huge_npy(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _tar(size: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("set/structures.xyz")
        info.size = size
        archive.addfile(info, io.BytesIO(bytes(size)))
    return stream.getvalue()


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def _pair(folder: Path, frames: bytes, table: bytes) -> Path:
    folder.mkdir()
    (folder / "0.extxyz.xz").write_bytes(frames)
    (folder / "0.txt.xz").write_bytes(table)
    return folder


def _row_of_atoms(**more: object) -> bytes:
    return zlib.compress(json.dumps({"numbers": [1], "positions": [[0, 0, 0]], **more}).encode())


HOSTILE: dict[str, tuple[Make, Read]] = {
    "pickle in an LMDB": (lambda f, c: write_records(f / "a.lmdb", {"0": pickle.dumps(Harm(c)), "length": pickle.dumps(1)}), read_data),
    "pickle as an LMDB's length": (lambda f, c: write_records(f / "a.lmdb", {"0": b"", "length": pickle.dumps(Harm(c))}), read_data),
    "length of an LMDB of 2^62": (lambda f, c: write_records(f / "a.lmdb", {"0": b"", "length": pickle.dumps(2**62)}), read_data),
    "negative length": (lambda f, c: write_records(f / "a.lmdb", {"length": pickle.dumps(-3)}), read_data),
    "tensor within a dict": (
        lambda f, c: write_records(f / "a.lmdb", {"0": pickle.dumps({"pos": [Harm(c)]}), "length": pickle.dumps(1)}),
        read_data,
    ),
    "zlib bomb in an ASE LMDB": (
        lambda f, c: write_records(f / "a.aselmdb", {"nextid": zlib.compress(b"2"), "1": zlib.compress(bytes(2**29), 9)}),
        read_data,
    ),
    "nextid of an ASE LMDB of 10^18": (
        lambda f, c: write_records(f / "a.aselmdb", {"nextid": zlib.compress(b"1000000000000000000"), "1": _row_of_atoms()}),
        read_data,
    ),
    "object in the JSON of an ASE LMDB": (
        lambda f, c: write_records(
            f / "a.aselmdb",
            {"nextid": zlib.compress(b"2"), "1": _row_of_atoms(data={"__ase_objtype__": "os.system", "x": f"touch {c}"})},
        ),
        read_data,
    ),
    "deleted rows of an endless ASE LMDB": (
        lambda f, c: write_records(f / "a.aselmdb", {"nextid": zlib.compress(b"1" + b"0" * 18), "deleted_ids": zlib.compress(b"[5]")}),
        read_data,
    ),
    "nested JSON in an ASE LMDB": (
        lambda f, c: write_records(f / "a.aselmdb", {"nextid": zlib.compress(b"2"), "1": zlib.compress(_nested(200_000))}),
        read_data,
    ),
    "PyG data": (lambda f, c: _processed(f, _saved((Harm(c), None))), read_data),
    "old PyG data": (lambda f, c: _processed(f, _saved((Harm(c), None), zipped=False)), read_data),
    "object array in an npz": (lambda f, c: write_zip(f / "a.npz", {"R.npy": _npy(_object_array(c))}), read_data),
    "object array in a DeePMD folder": (lambda f, c: _deepmd(f / "system", coord=_npy(_object_array(c))), read_data),
    "claimed terabyte in a DeePMD folder": (lambda f, c: _deepmd(f / "system", coord=_huge_npy((10**12, 6))), read_data),
    "npz bomb": (lambda f, c: _bomb_npz(f / "a.npz", (2**23, 1, 1)), read_data),
    "npz that claims a terabyte": (lambda f, c: _bomb_npz(f / "a.npz", (10**11, 1, 3)), read_data),
    "pickle under an npz's name": (lambda f, c: _written(f / "a.npz", pickle.dumps(Harm(c))), read_data),
    "pickle as linear references": (lambda f, c: _written(f / "a.npz", pickle.dumps(Harm(c))), read_linear),
    "object array as linear references": (lambda f, c: write_zip(f / "a.npz", {"coeff.npy": _npy(_object_array(c))}), read_linear),
    "npz bomb of eight million frames": (lambda f, c: _bomb_npz(f / "a.npz", (2**23, 1, 3)), read_data),
    "compressed bomb of PyG data": (lambda f, c: _processed(f, write_zip(f / "z", {"m/data/0": bytes(2**28)}).read_bytes()), read_data),
    "tar bomb": (lambda f, c: _written(f / "a.tar.gz", gzip.compress(_tar(2**28), 9)), take_out),
    "tar bomb of bz2": (lambda f, c: _written(f / "a.tar.bz2", bz2.compress(_tar(2**28))), take_out),
    "zip bomb of a download": (lambda f, c: write_zip(f / "a.zip", {"set/structures.xyz": bytes(2**28)}), take_out),
    "record of nested JSON": (lambda f, c: _written(f / "record.json", _nested(200_000)), read_result),
    "record of 100 MB": (lambda f, c: _written(f / "record.json", b" " * 10**8), read_result),
    "pickle as a training checkpoint": (lambda f, c: _written(f / "last.ckpt", _saved({"equizoo": Harm(c)})), read_training_state),
    "old pickle as a training checkpoint": (lambda f, c: _written(f / "last.ckpt", _saved(Harm(c), zipped=False)), read_training_state),
    "bomb of a training checkpoint": (lambda f, c: write_zip(f / "last.ckpt", {"m/data.pkl": bytes(2**29)}), read_training_state),
    "zip with a way out": (lambda f, c: write_zip(f / "a.zip", {f"../../../../../../{c}.xyz": b"1\n\nH 0 0 0\n"}), read_data),
    "zip bomb of an xyz": (lambda f, c: write_zip(f / "a.zip", {"a.xyz": bytes(2**28)}), read_data),
    "zip in a zip": (lambda f, c: write_zip(f / "a.zip", {"a.zip": b"PK\x05\x06" + bytes(18)}), read_data),
    "many empty members": (lambda f, c: write_zip(f / "a.zip", {f"{i}.xyz": b"" for i in range(2000)}), read_data),
    "gz bomb of JSON": (lambda f, c: _written(f / "a.json.gz", gzip.compress(b"[" + b" " * 2**29, 9)), read_data),
    "nested JSON": (lambda f, c: _written(f / "a.json", _nested(200_000)), read_data),
    "xz bomb of OC20's pairs": (lambda f, c: _pair(f / "raw", lzma.compress(bytes(2**28)), lzma.compress(b"a,frame0,0\n")), read_data),
    "gz bomb of extended XYZ": (lambda f, c: _written(f / "a.extxyz.gz", gzip.compress(b"9" * 2**28, 9)), read_data),
    "xz bomb of a CIF": (lambda f, c: _written(f / "a.cif.xz", lzma.compress(b"data_x\n" + b"#" * 2**28)), read_data),
    "bz2 bomb of a POSCAR": (lambda f, c: _written(f / "POSCAR.bz2", bz2.compress(b"x" * 2**28)), read_data),
    "gz bomb of an OUTCAR": (lambda f, c: _written(f / "OUTCAR.gz", gzip.compress(b" vasp.6.3.2\n" + b" " * 2**29, 9)), read_data),
    "extended XYZ of 10^15 atoms": (lambda f, c: _written(f / "a.extxyz", b"1000000000000000\nenergy=1\nH 0 0 0\n"), read_data),
    "extended XYZ of -1 atoms": (lambda f, c: _written(f / "a.extxyz", b"-1\nenergy=1\nH 0 0 0\n"), read_data),
    "extended XYZ with 10^9 columns": (
        lambda f, c: _written(f / "a.extxyz", b'1\nProperties="species:S:1:pos:R:1000000000"\nH 0 0 0\n'),
        read_data,
    ),
    "trajectory of pickles": (lambda f, c: _written(f / "a.trj", b"PickleTrajectory" + pickle.dumps(Harm(c))), read_data),
    "Python as a structure": (lambda f, c: _written(f / "a.py", f"import os; os.system('touch {c}')".encode()), read_data),
    "bundle of pickles": (lambda f, c: _bundle(f / "a.bundle", c), read_data),
    "XML bomb": (lambda f, c: _written(f / "vasprun.xml", _laughing()), read_data),
    "XML of another file": (
        lambda f, c: _written(f / "vasprun.xml", b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><modeling>&x;</modeling>'),
        read_data,
    ),
    **{
        f"checkpoint {suffix} of a pickle, zipped={zipped}": (
            lambda f, c, suffix=suffix, zipped=zipped: _written(f / f"a{suffix}", _saved({"model_state_dict": Harm(c)}, zipped)),
            read_checkpoint,
        )
        for suffix in (".pth", ".pt", ".model", ".ckpt", ".nqx", ".safetensors")
        for zipped in (True, False)
    },
    "pickle under a checkpoint's name": (lambda f, c: _written(f / "a.model", pickle.dumps(Harm(c))), read_checkpoint),
    "bomb of a checkpoint": (lambda f, c: write_zip(f / "a.pth", {"m/data.pkl": b"model_state_dict" + bytes(2**28)}), read_checkpoint),
    "bomb of a package": (lambda f, c: write_zip(f / "a.nequip.zip", {"m/data.pkl": bytes(2**28)}), read_checkpoint),
    "YAML that calls": (
        lambda f, c: _written(f / "a.yaml", f"!!python/object/apply:os.system ['touch {c}']\n".encode()),
        read_checkpoint,
    ),
    "YAML bomb": (lambda f, c: _written(f / "a.yaml", _yaml_bomb()), read_checkpoint),
}


def _processed(folder: Path, content: bytes) -> Path:
    (folder / "processed").mkdir()
    (folder / "processed" / "data.pt").write_bytes(content)
    return folder / "processed"


def _bundle(path: Path, canary: Path) -> Path:
    path.mkdir()
    (path / "metadata.json").write_text('{"format": "BundleTrajectory"}')
    (path / "state").write_bytes(pickle.dumps(Harm(canary)))
    return path


def _laughing() -> bytes:
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    return f'<?xml version="1.0"?><!DOCTYPE m [<!ENTITY l0 "lol">{entities}]><modeling>&l11;</modeling>'.encode()


def _yaml_bomb() -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join(lines).encode()
