"""Validation of public arguments: type, range, finiteness and structure.

Every public function checks its arguments with these functions before anything is compiled. Each check returns the
value in canonical form, or raises TypeError for a value of the wrong kind and ValueError for one out of range. The
message names the called function, the expected and the received value, and the remedy. For traced values only the kind
is checked.
"""

from jaxopt_study._checks._arrays import (
    check_kept,
    check_key,
    check_numbers,
    check_params,
    check_structure,
    in_double,
    is_finite,
)
from jaxopt_study._checks._describe import describe_argument
from jaxopt_study._checks._kinds import (
    check_bool,
    check_callable,
    check_choice,
    check_mapping,
    check_static,
    check_text,
)
from jaxopt_study._checks._scalars import MAX_COUNT, check_integer, check_real, check_static_real, is_real_scalar

__all__ = [
    "MAX_COUNT",
    "check_bool",
    "check_callable",
    "check_choice",
    "check_integer",
    "check_kept",
    "check_key",
    "check_mapping",
    "check_numbers",
    "check_params",
    "check_real",
    "check_static",
    "check_static_real",
    "check_structure",
    "check_text",
    "describe_argument",
    "in_double",
    "is_finite",
    "is_real_scalar",
]
