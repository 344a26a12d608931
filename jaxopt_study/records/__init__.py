"""Records: results on disk with their configuration and environment.

A record is one JSON file. Numbers are restored exactly; JSON has no NaN and no infinity, so these are written as the
strings "NaN", "Infinity" and "-Infinity".
"""

from jaxopt_study.records._environment import environment
from jaxopt_study.records._plain_values import MALFORMED as MALFORMED
from jaxopt_study.records._plain_values import RecordError, content_hash, plain
from jaxopt_study.records._record import Record
from jaxopt_study.records._record import Status as Status
from jaxopt_study.records._save_and_load import FORMAT as FORMAT
from jaxopt_study.records._save_and_load import load, save
from jaxopt_study.records._writing import write_atomically, write_csv

__all__ = [
    "Record",
    "RecordError",
    "content_hash",
    "environment",
    "load",
    "plain",
    "save",
    "write_atomically",
    "write_csv",
]
