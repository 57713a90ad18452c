"""What is wrong with a model, a data set and a configuration before anything is trained: ``zoo doctor``.

>>> from zoo.doctor import examine
>>> report = examine(["backbone=sevennet-0", "data=my.extxyz"])
>>> print(report.text())

A check is one function in one of this package's modules, registered by `zoo.doctor.registry.check`.
"""

from __future__ import annotations

from zoo.doctor.examination import examine
from zoo.doctor.report import Distribution, Finding, Report

__all__ = ["Distribution", "Finding", "Report", "examine"]
