"""The statements of the notes that each experiment examines, by the notes' numbers, in English."""

from collections.abc import Mapping

NOTES: Mapping[str, str] = {
    "000": "000, optimizers",
    "001": "001, training techniques",
    "002": "002, optimizers in formulas",
    "003": "003, generalisation and regularisation",
    "004": "004, challenges in neural-network optimization",
}

STATEMENTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "activation_histograms": (
        (
            "001",
            "With std 1 activations saturate, with .01 they collapse; Xavier suits sigmoid and tanh, He suits ReLU.",
        ),
    ),
    "adam_epsilon": (("000", "When training with Adam is unstable, raise ε."),),
    "adaptive_edge_of_stability": (
        ("000", "When the loss spikes, the learning rate is too large; with Adam, raise ε."),
    ),
    "amsgrad_counterexample": (("000", "Adam is the method to use wherever possible."),),
    "bagging_boosting": (
        ("003", "Bagging averages models that are trained on samples of the data."),
        ("003", "Boosting fits each further model to the test data that are badly predicted. (To the training data.)"),
    ),
    "batch_norm": (("001", "Normalisation mostly helps training; the figure compares 16 initial scales."),),
    "bias_correction": (("000", "Adam divides its averages by 1 − βᵗ, since they start at 0."),),
    "bias_variance": (
        ("003", "The expected error is noise + bias² + variance; small bias comes with large variance."),
    ),
    "cliff": (
        (
            "004",
            "At cliffs a step can throw the parameters far away; weight clipping helps. (Gradient clipping is meant.)",
        ),
    ),
    "closed_form": (
        ("002", "Most regressions have no closed-form solution; where there is one, descent can still be cheaper."),
    ),
    "cross_validation": (
        ("003", "A model is judged on examples that it was not trained on; k folds divide them into k parts."),
    ),
    "early_stopping": (("000", "Stop when the validation accuracy falls."), ("003", "Early stopping regularises.")),
    "edge_of_stability": (("000", "A loss that spikes after a while means a learning rate that is too large."),),
    "ensemble": (("001", "An ensemble averages the outputs of separately trained models."),),
    "gradient_noise": (
        ("000", "SGD steps along the gradient of a few examples, which is the full gradient in expectation."),
        ("004", "The standard error of a mean is σ/√n; mini-batch gradients are biased. (They are not.)"),
    ),
    "ill_conditioning": (("004", "Ill-conditioning: ½ε²gᵀHg exceeds εgᵀg, so that even small steps raise the loss."),),
    "local_vs_global": (
        ("004", "Descent can fail without a minimum or a saddle: the local slope says little about the whole."),
    ),
    "long_term": (("004", "Wᵗ = V diag(λ)ᵗ V⁻¹: eigenvalues other than 1 vanish or explode over many steps."),),
    "mnist_optimizers": (
        ("000", "Use an adaptive method, Adam above all; avoid SGD and momentum."),
        ("001", "A figure compares SGD, momentum, AdaGrad and Adam on MNIST."),
    ),
    "noisy_quadratic": (("002", "Momentum lowers the variance of SGD and smooths its convergence."),),
    "outliers_and_classes": (("004", "The Hessian causes trouble in optimization. (It shows it.)"),),
    "quadratic_rates": (
        ("002", "Momentum carries a share γ of the last step on."),
        ("003", "Nesterov takes the gradient at the look-ahead point and converges faster than momentum."),
    ),
    "random_search": (
        (
            "001",
            "Hyperparameters are drawn at random: learning rates 10^U(−6, −2), weight decay 10^U(−8, −4), 100 trials.",
        ),
    ),
    "random_vs_grid": (("001", "Hyperparameters are drawn at random, not taken from a grid."),),
    "saddle_escape": (
        ("004", "Saddle points could endanger first-order methods, but in experience they are passed well."),
    ),
    "saddle_index": (
        ("004", "In many dimensions saddle points are more common than minima, and lie at higher losses."),
    ),
    "shuffling": (
        ("000", "Shuffle the training examples every epoch."),
        ("004", "Random batches matter; on large data one shuffle at the beginning is enough."),
    ),
    "trajectories": (
        ("001", "On x²/20 + y² SGD takes an inefficient path; momentum, AdaGrad and Adam search more efficiently."),
    ),
    "weight_symmetry": (
        ("004", "Weight-space symmetry: exchanging units gives equivalent minima, so there are many."),
    ),
}
