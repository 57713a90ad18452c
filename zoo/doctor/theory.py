"""The level of theory of the data against that of the base."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from zoo.doctor.registry import check
from zoo.doctor.report import Finding
from zoo.doctor.subject import Subject

# longest first: PBE0 is no PBE, and RPBE neither
_FUNCTIONALS = (
    "revPBE0", "PBE0", "PBEsol", "revPBE", "RPBE", "PBE", "r2SCAN", "rSCAN", "SCAN", "TPSS", "M06-2X", "M06-L", "M06",
    "ωB97M", "ωB97X", "ωB97", "CAM-B3LYP", "B3LYP", "BLYP", "BP86", "B97", "HSE06", "HSE03", "HSE", "LDA", "PW91", "BEEF-vdW",
    "optB88", "vdW-DF2", "vdW-DF", "CCSD(T)", "CCSD", "MP2", "HF", "GFN2-xTB", "GFN1-xTB", "xTB", "DFTB", "EMT",
)  # fmt: skip
_DISPERSIONS = ("D3(BJ)", "D3BJ", "D4rev", "D4", "D3", "D2", "TS", "MBD", "rVV10", "VV10")


@dataclass(frozen=True)
class Theory:
    """What a text says of a level of theory: functionals (several of a mixed training set), Hubbard U, dispersion."""

    functionals: frozenset[str]
    hubbard: bool
    dispersion: bool

    @classmethod
    def of(cls, text: str) -> Theory:
        """Read from free text such as ``"PBE+D3/def2-SVP"`` or ``"PBE/PBE+U (Materials Project)"``."""
        plain = re.sub(r"omega|(?<![A-Za-z])w(?=B97)", "ω", text)
        found: set[str] = set()
        rest = plain
        for name in _FUNCTIONALS:
            pattern = rf"(?<![A-Za-z0-9]){re.escape(name)}(?![a-z0-9])"
            if re.search(pattern, rest, flags=re.IGNORECASE):
                found.add(name)
                rest = re.sub(pattern, " ", rest, flags=re.IGNORECASE)
        hubbard = re.search(r"\+U\b|\bHubbard\b", plain) is not None
        dispersion = any(re.search(rf"[-+ (]{re.escape(name)}(?![A-Za-z0-9])", plain) for name in _DISPERSIONS) or "-V" in plain
        return cls(frozenset(found), hubbard, dispersion)


@check("theory.level", "Were the labels computed at the base's level of theory?", needs=("model",))
def level_of_theory(subject: Subject) -> Iterator[Finding]:
    """Another functional is no mistake where all data have it, but zero-shot errors and replay then compare unlike things."""
    data, base = subject.splits.level_of_theory, subject.model.level_of_theory
    if not data:
        found = "the data's level of theory is not stated" + (f"; the base's is {base}" if base else "")
        yield Finding("note", "theory.level", found, remedy="pass data.level_of_theory=...: it goes into adapter files and records")
        return
    if not base:
        yield Finding("note", "theory.level", f"data: {data}; the base's level of theory is not known")
        return
    ours, theirs = Theory.of(data), Theory.of(base)
    found = f"data: {data}; base: {base}"
    remedy = "fine-tune with reference energies fitted to the model's error (the default), and do not mix these labels with the base's own"
    if not ours.functionals or not theirs.functionals:
        yield Finding("note", "theory.level", f"{found}; not compared: no functional is named that is known here")
    elif not ours.functionals & theirs.functionals:
        remedy += _better_head(subject, ours)
        yield Finding("warning", "theory.level", found, f"{', '.join(sorted(theirs.functionals))}, as the base", remedy)
    elif ours.dispersion != theirs.dispersion:
        which = "the data have" if ours.dispersion else "the base has"
        yield Finding("warning", "theory.level", f"{found}; {which} a dispersion correction, the other not", "the same in both", remedy)
    elif ours.hubbard and not theirs.hubbard:
        yield Finding("warning", "theory.level", f"{found}; the data have a Hubbard U", "the same in both", remedy)
    else:
        yield Finding("note", "theory.level", found)


def _better_head(subject: Subject, ours: Theory) -> str:
    """A hint at the head of a multi-head base whose level of theory is that of the data."""
    card, head = subject.model.card, subject.model.backbone.head
    named = {} if card is None else card.level_of_theory_of_head
    fitting = [name for name, text in named.items() if name != head and Theory.of(text).functionals & ours.functionals]
    return f"; backbone.head={fitting[0]} is at the data's level of theory ({named[fitting[0]]})" if fitting else ""
