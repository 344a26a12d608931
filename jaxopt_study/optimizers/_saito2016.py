"""The optimizers of Saito (2016) at the settings of its two comparisons, figures 6-8 and 6-9."""

from jaxopt_study.optimizers._adadelta import adadelta
from jaxopt_study.optimizers._adagrad import adagrad
from jaxopt_study.optimizers._adam import adam
from jaxopt_study.optimizers._momentum import momentum
from jaxopt_study.optimizers._nesterov import nesterov_lookahead
from jaxopt_study.optimizers._rmsprop import rmsprop
from jaxopt_study.optimizers._sgd import sgd
from jaxopt_study.transforms import Transform


def plane_optimizers() -> dict[str, Transform]:
    """Return seven optimizers at the settings of figure 6-8, x²/20 + y² from (−7, 2).

    The settings of SGD, momentum, AdaGrad and Adam are those of Saito (2016). Nesterov takes momentum's numbers;
    RMSprop Adam's learning rate and a decay of .9. AdaDelta has ε = 1e-2 in place of 1e-6, which sets the length of its
    first steps: with 1e-6 it would hardly leave the start in 30 points.

    Returns:
        The optimizers by name.

    References:
        Saito (2016), Deep Learning from Scratch, figure 6-8 and its program.
    """
    return {
        "sgd": sgd(0.95),
        "momentum": momentum(0.1),
        "nesterov": nesterov_lookahead(0.1),
        "adagrad": adagrad(1.5, convention="saito2016"),
        "adadelta": adadelta(eps=1e-2),
        "rmsprop": rmsprop(0.3, decay=0.9, convention="saito2016"),
        "adam": adam(0.3, convention="saito2016"),
    }


def network_optimizers() -> dict[str, Transform]:
    """Return seven optimizers at the settings of figure 6-9, a comparison on MNIST.

    SGD, momentum, AdaGrad and RMSprop at .01, Adam at .001, all untuned; Nesterov with momentum's numbers, AdaDelta as
    in its paper.

    Returns:
        The optimizers by name.

    References:
        Saito (2016), Deep Learning from Scratch, figure 6-9 and its program.
    """
    return {
        "sgd": sgd(0.01),
        "momentum": momentum(0.01),
        "nesterov": nesterov_lookahead(0.01),
        "adagrad": adagrad(0.01, convention="saito2016"),
        "adadelta": adadelta(),
        "rmsprop": rmsprop(0.01, convention="saito2016"),
        "adam": adam(0.001, convention="saito2016"),
    }
