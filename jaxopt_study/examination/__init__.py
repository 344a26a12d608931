"""Examination of a point: curvature, stability and what they mean together, in one call."""

from jaxopt_study.examination._examination import Examination as Examination
from jaxopt_study.examination._examine import examine as examine
from jaxopt_study.examination._rows import edge_and_rate as edge_and_rate
from jaxopt_study.examination._rows import eigenvalue_rows as eigenvalue_rows
from jaxopt_study.examination._rows import interval as interval
from jaxopt_study.examination._rows import table_rows as table_rows
from jaxopt_study.examination._stages import STAGES as STAGES
from jaxopt_study.examination._stages import Choices as Choices
from jaxopt_study.examination._stages import Stage as Stage
from jaxopt_study.examination._stages import Subject as Subject

__all__: list[str] = []  # public as `jaxopt_study.examine` and `jaxopt_study.Examination`
