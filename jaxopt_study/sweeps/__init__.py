"""Many trials at once: what is searched, how it is sampled, and what is kept on disk."""

from jaxopt_study.sweeps.ablate import Ablation, Contribution, ablate
from jaxopt_study.sweeps.best_of import best_of_k, chosen_of_k
from jaxopt_study.sweeps.candidates import Candidate
from jaxopt_study.sweeps.compare import compare
from jaxopt_study.sweeps.comparison import Comparison, Report
from jaxopt_study.sweeps.dimension import Dimension
from jaxopt_study.sweeps.halving import Halving
from jaxopt_study.sweeps.intervals import Interval, mean_interval, median_interval, wilson
from jaxopt_study.sweeps.journal import Journal, JournalError
from jaxopt_study.sweeps.keys import report_keys, search_keys
from jaxopt_study.sweeps.layout import use_cpu_cores
from jaxopt_study.sweeps.options import Choices, Conditional, choices, conditional
from jaxopt_study.sweeps.optuna_sampler import OptunaSampler
from jaxopt_study.sweeps.protocol import ComparisonInterrupted
from jaxopt_study.sweeps.ranges import Integers, LogUniform, Uniform, integers, log_uniform, uniform
from jaxopt_study.sweeps.result import Choice, Search
from jaxopt_study.sweeps.samplers import sample
from jaxopt_study.sweeps.scores import penalised
from jaxopt_study.sweeps.search import SearchInterrupted, search
from jaxopt_study.sweeps.space import Space

__all__ = [
    "Ablation",
    "Candidate",
    "Choice",
    "Choices",
    "Comparison",
    "ComparisonInterrupted",
    "Conditional",
    "Contribution",
    "Dimension",
    "Halving",
    "Integers",
    "Interval",
    "Journal",
    "JournalError",
    "LogUniform",
    "OptunaSampler",
    "Report",
    "Search",
    "SearchInterrupted",
    "Space",
    "Uniform",
    "ablate",
    "best_of_k",
    "choices",
    "chosen_of_k",
    "compare",
    "conditional",
    "integers",
    "log_uniform",
    "mean_interval",
    "median_interval",
    "penalised",
    "report_keys",
    "sample",
    "search",
    "search_keys",
    "uniform",
    "use_cpu_cores",
    "wilson",
]
