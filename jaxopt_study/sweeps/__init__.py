"""Sweeps: hyperparameter search, optimizer comparison and ablation, with many trials in one compiled program."""

from jaxopt_study.sweeps._compare._ablate import ablate
from jaxopt_study.sweeps._compare._ablation import Ablation, Contribution
from jaxopt_study.sweeps._compare._ablation_variants import Variant as Variant
from jaxopt_study.sweeps._compare._ablation_variants import variants_of as variants_of
from jaxopt_study.sweeps._compare._candidates import Candidate
from jaxopt_study.sweeps._compare._compare import compare
from jaxopt_study.sweeps._compare._comparison import Comparison
from jaxopt_study.sweeps._compare._report import Report
from jaxopt_study.sweeps._compare._tune_and_report import ComparisonInterrupted
from jaxopt_study.sweeps._execution._journal import Journal
from jaxopt_study.sweeps._execution._journal_folder import JournalError
from jaxopt_study.sweeps._execution._keys import report_keys, search_keys
from jaxopt_study.sweeps._execution._layout import use_cpu_cores
from jaxopt_study.sweeps._search._halving import Halving
from jaxopt_study.sweeps._search._optuna_sampler import OptunaSampler
from jaxopt_study.sweeps._search._result import Choice, Search
from jaxopt_study.sweeps._search._samplers import Sampler, sample
from jaxopt_study.sweeps._search._search import SearchInterrupted, search
from jaxopt_study.sweeps._space._dimension import Dimension
from jaxopt_study.sweeps._space._options import Choices, Conditional, choices, conditional
from jaxopt_study.sweeps._space._ranges import Integers, LogUniform, Uniform, integers, log_uniform, uniform
from jaxopt_study.sweeps._space._space import Space
from jaxopt_study.sweeps._statistics._expected_best_of_k import best_of_k, chosen_of_k
from jaxopt_study.sweeps._statistics._intervals import Interval, mean_interval, median_interval, wilson
from jaxopt_study.sweeps._statistics._paired_tests import Differences as Differences
from jaxopt_study.sweeps._statistics._paired_tests import paired_differences as paired_differences
from jaxopt_study.sweeps._statistics._performance_profiles import Profile as Profile
from jaxopt_study.sweeps._statistics._scores import penalised

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
    "Sampler",
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
