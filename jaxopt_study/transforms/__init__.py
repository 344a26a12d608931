"""Gradient transformations: atoms, the combinators `chain` and `merge`, and the scaling rules composed from them."""

from jaxopt_study.transforms._adaptive import nadam_average, rectify, scale_by_update_rms
from jaxopt_study.transforms._averaging import average_iterates
from jaxopt_study.transforms._bias_correction import bias_correction
from jaxopt_study.transforms._clipping import (
    clip_by_global_norm,
    clip_by_leaf_norm,
    clip_by_percentile,
    clip_by_unit_norm,
    clip_by_value,
)
from jaxopt_study.transforms._composition import chain, merge
from jaxopt_study.transforms._constructors import atom, composite, from_optax, named_function
from jaxopt_study.transforms._dampening import dampen
from jaxopt_study.transforms._elementwise import elementwise, identity
from jaxopt_study.transforms._expression import Function, Transform
from jaxopt_study.transforms._expression import construct as construct
from jaxopt_study.transforms._expression import with_any_extra as with_any_extra
from jaxopt_study.transforms._factored import clip_by_leaf_rms, scale_by_factored_rms, scale_by_param_rms
from jaxopt_study.transforms._first_difference import Difference as Difference
from jaxopt_study.transforms._first_difference import explain_difference as explain_difference
from jaxopt_study.transforms._flax_containers import is_nnx as is_nnx
from jaxopt_study.transforms._flax_containers import refuse_holder as refuse_holder
from jaxopt_study.transforms._flax_containers import unwrapped as unwrapped
from jaxopt_study.transforms._from_json import from_json
from jaxopt_study.transforms._functions import (
    divide_by,
    divide_by_deviation,
    divide_by_root,
    interpolate,
    magnitude,
    root,
    weighted_sum,
)
from jaxopt_study.transforms._gradient_difference import gradient_difference
from jaxopt_study.transforms._gradient_point import LooksAhead, TrainsOtherParams, evaluation_params, gradient_point
from jaxopt_study.transforms._momentum import heavy_ball
from jaxopt_study.transforms._nesterov import nesterov, nesterov_lookahead
from jaxopt_study.transforms._newton import NewtonState, scale_by_newton, scale_by_saddle_free_newton
from jaxopt_study.transforms._noise import add_gradient_noise
from jaxopt_study.transforms._paths import children as children
from jaxopt_study.transforms._paths import match as match
from jaxopt_study.transforms._paths import neutral_values as neutral_values
from jaxopt_study.transforms._paths import rebuild as rebuild
from jaxopt_study.transforms._projections import clip_weights, project_to_max_norm
from jaxopt_study.transforms._pytree import register_expressions
from jaxopt_study.transforms._rprop import scale_by_rprop
from jaxopt_study.transforms._scalars import ScalarLike as ScalarLike
from jaxopt_study.transforms._scalars import ScalarOrSchedule as ScalarOrSchedule
from jaxopt_study.transforms._scalars import check_interval as check_interval
from jaxopt_study.transforms._scalars import complement as complement
from jaxopt_study.transforms._scalars import concrete as concrete
from jaxopt_study.transforms._scale_by_adam import (
    scale_by_adam,
    scale_by_adamax,
    scale_by_amsgrad,
    scale_by_nadam,
    scale_by_radam,
)
from jaxopt_study.transforms._scale_by_adan import scale_by_adan
from jaxopt_study.transforms._scale_by_lion import scale_by_lion
from jaxopt_study.transforms._scale_by_rms import scale_by_adadelta, scale_by_adagrad, scale_by_rms
from jaxopt_study.transforms._schedules import inverse_time_decay, regularised_decay, relative_step, schedule_product
from jaxopt_study.transforms._statistics import ema, running_max, total
from jaxopt_study.transforms._steps import add_decayed_weights, decay_proximally, negate, scale_by_learning_rate
from jaxopt_study.transforms._tap import TapMetrics, read_taps, tap

__all__ = [
    "Function",
    "LooksAhead",
    "NewtonState",
    "TapMetrics",
    "TrainsOtherParams",
    "Transform",
    "add_decayed_weights",
    "add_gradient_noise",
    "atom",
    "average_iterates",
    "bias_correction",
    "chain",
    "clip_by_global_norm",
    "clip_by_leaf_norm",
    "clip_by_leaf_rms",
    "clip_by_percentile",
    "clip_by_unit_norm",
    "clip_by_value",
    "clip_weights",
    "composite",
    "dampen",
    "decay_proximally",
    "divide_by",
    "divide_by_deviation",
    "divide_by_root",
    "elementwise",
    "ema",
    "evaluation_params",
    "from_json",
    "from_optax",
    "gradient_difference",
    "gradient_point",
    "heavy_ball",
    "identity",
    "interpolate",
    "inverse_time_decay",
    "magnitude",
    "merge",
    "nadam_average",
    "named_function",
    "negate",
    "nesterov",
    "nesterov_lookahead",
    "project_to_max_norm",
    "read_taps",
    "rectify",
    "regularised_decay",
    "relative_step",
    "root",
    "running_max",
    "scale_by_adadelta",
    "scale_by_adagrad",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_adan",
    "scale_by_amsgrad",
    "scale_by_factored_rms",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_nadam",
    "scale_by_newton",
    "scale_by_param_rms",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_saddle_free_newton",
    "scale_by_update_rms",
    "schedule_product",
    "tap",
    "total",
    "weighted_sum",
]

register_expressions()
