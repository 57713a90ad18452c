"""What a backbone or an adapter method has to prove, for packages that bring their own, and for equizoo's own tests.

`check_adapter_method` and `check_backbone` ask everything; each claim is a function of its own beside them (`METHOD_CLAIMS`,
`BACKBONE_CLAIMS`), for a test apiece. A claim that does not hold raises `ContractError`, an ``AssertionError``, with what was found and
what was wanted. Any test runner will do, or none.
"""

from zoo.testing.claims import ContractError, Figure, Finding
from zoo.testing.conformance import (
    BACKBONE_CLAIMS,
    FAMILY_CLAIMS,
    METHOD_CLAIMS,
    backbone_findings,
    check_adapter_method,
    check_backbone,
    method_findings,
)
from zoo.testing.toys import Lender, Toy, activations_integrated_once, registered_toys
from zoo.testing.trial import attached

__all__ = [
    "BACKBONE_CLAIMS",
    "FAMILY_CLAIMS",
    "METHOD_CLAIMS",
    "ContractError",
    "Figure",
    "Finding",
    "Lender",
    "Toy",
    "activations_integrated_once",
    "attached",
    "backbone_findings",
    "check_adapter_method",
    "check_backbone",
    "method_findings",
    "registered_toys",
]
