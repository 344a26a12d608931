"""How a gradient becomes an update: atoms, what combines them, and the rules composed from them."""

from jaxopt_study.transforms.adaptive import nadam_average, rectify, scale_by_update_rms
from jaxopt_study.transforms.averaging import average_iterates
from jaxopt_study.transforms.bias_correction import bias_correction
from jaxopt_study.transforms.clipping import (
    clip_by_global_norm,
    clip_by_leaf_norm,
    clip_by_percentile,
    clip_by_unit_norm,
    clip_by_value,
)
from jaxopt_study.transforms.combine import chain, merge
from jaxopt_study.transforms.constructors import atom, composite, from_optax, named_function
from jaxopt_study.transforms.dampening import dampen
from jaxopt_study.transforms.differences import Difference, explain_difference
from jaxopt_study.transforms.factored import clip_by_leaf_rms, scale_by_factored_rms, scale_by_param_rms
from jaxopt_study.transforms.functions import (
    divide_by,
    divide_by_deviation,
    divide_by_root,
    elementwise,
    identity,
    interpolate,
    magnitude,
    root,
    weighted_sum,
)
from jaxopt_study.transforms.lookahead import LooksAhead, TrainsOtherParams, evaluation_params, gradient_point
from jaxopt_study.transforms.momentum import heavy_ball, nesterov, nesterov_lookahead
from jaxopt_study.transforms.noise import add_gradient_noise
from jaxopt_study.transforms.projections import clip_weights, project_to_max_norm
from jaxopt_study.transforms.pytree import register_expressions
from jaxopt_study.transforms.resilient import scale_by_rprop
from jaxopt_study.transforms.scaling import (
    scale_by_adadelta,
    scale_by_adagrad,
    scale_by_adam,
    scale_by_adamax,
    scale_by_adan,
    scale_by_amsgrad,
    scale_by_lion,
    scale_by_nadam,
    scale_by_radam,
    scale_by_rms,
)
from jaxopt_study.transforms.schedules import inverse_time_decay, regularised_decay, relative_step, schedule_product
from jaxopt_study.transforms.serialise import from_json
from jaxopt_study.transforms.spec import Function, Transform
from jaxopt_study.transforms.statistics import ema, gradient_difference, running_max, total
from jaxopt_study.transforms.steps import add_decayed_weights, decay_proximally, negate, scale_by_learning_rate
from jaxopt_study.transforms.tap import TapMetrics, read_taps, tap

__all__ = [
    "Difference",
    "Function",
    "LooksAhead",
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
    "explain_difference",
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
    "scale_by_param_rms",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_update_rms",
    "schedule_product",
    "tap",
    "total",
    "weighted_sum",
]

register_expressions()
