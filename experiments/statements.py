"""Statements of the notes, by number and in English, each with the experiments' findings about it."""

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
    "adagrad_decay": (
        (
            "003",
            "AdaGrad's sum of squares only grows, and training stops; AdaDelta and RMSprop take a moving average.",
        ),
        (
            "000",
            "AdaGrad's learning rate goes on falling, which RMSprop and AdaDelta repair.",
        ),
        (
            "001",
            "AdaGrad lowers the learning rate little by little, for each parameter on its own.",
        ),
    ),
    "adam_epsilon": (
        (
            "000",
            "When training with Adam is unstable, raise ε.",
        ),
    ),
    "adaptive_edge_of_stability": (
        (
            "000",
            "When the loss spikes, the learning rate is too large; with Adam, raise ε.",
        ),
    ),
    "amsgrad_counterexample": (
        (
            "000",
            "Adam is the method to use wherever possible.",
        ),
    ),
    "bagging_boosting": (
        (
            "003",
            "Bootstrap: train models on subsamples of the data, and see how far their predictions agree.",
        ),
        (
            "003",
            "Bagging averages models that are trained on samples of the data.",
        ),
        (
            "003",
            "Boosting fits each further model to the test data that are badly predicted. (To the training data.)",
        ),
    ),
    "batch_norm": (
        (
            "001",
            "Normalisation mostly helps training; the figure compares 16 initial scales.",
        ),
    ),
    "bias_correction": (
        (
            "000",
            "Adam divides its averages by 1 − βᵗ, since they start at 0.",
        ),
    ),
    "bias_variance": (
        (
            "003",
            "A model that is too simple underfits; one that fits the training data, but not the test data, overfits.",
        ),
        (
            "003",
            "The expected error is noise + bias² + variance; small bias comes with large variance.",
        ),
    ),
    "cliff": (
        (
            "004",
            "At cliffs a step can throw the parameters far away; weight clipping helps. (Gradient clipping is meant.)",
        ),
    ),
    "closed_form": (
        (
            "002",
            "Most regressions have no closed-form solution; where there is one, descent can still be cheaper.",
        ),
    ),
    "conventions": (
        (
            "001",
            "Momentum: v ← γv − η∇J, W ← W + v; AdaGrad divides by √h, with 1e-7 added outside the root.",
        ),
        (
            "002",
            "Momentum: v ← γv + η∇J; AdaGrad divides by √(G + ε).",
        ),
        (
            "003",
            "Momentum: a ← βa + g, which the learning rate multiplies afterwards; AdaDelta has no learning rate.",
        ),
        (
            "000",
            "Adam's factor √(1 − β₂ᵗ)/(1 − β₁ᵗ) makes its estimate unbiased; Nesterov moves, then takes the gradient.",
        ),
    ),
    "critical_batch_size": (
        (
            "004",
            "Larger batches are more accurate and less efficient; the error falls only as 1/√n.",
        ),
    ),
    "cross_validation": (
        (
            "003",
            "A model is judged on examples that it was not trained on; k folds divide them into k parts.",
        ),
    ),
    "curriculum": (
        (
            "000",
            "Curriculum learning: begin with easy examples, and make them harder little by little.",
        ),
    ),
    "dropout": (
        (
            "001",
            "Dropout .2 on 300 images: training and test accuracy come closer.",
        ),
        (
            "003",
            "Dropout sets weights to 0 at random. (Activations are set to 0.)",
        ),
    ),
    "early_stopping": (
        (
            "000",
            "Stop when the validation accuracy falls.",
        ),
        (
            "003",
            "Early stopping regularises.",
        ),
    ),
    "edge_of_stability": (
        (
            "000",
            "A loss that spikes after a while means a learning rate that is too large.",
        ),
    ),
    "ensemble": (
        (
            "001",
            "An ensemble averages the outputs of separately trained models.",
        ),
    ),
    "gradient_noise": (
        (
            "000",
            "Mini-batches are a middle way between all examples and a single one.",
        ),
        (
            "000",
            "SGD steps along the gradient of a few examples, which is the full gradient in expectation.",
        ),
        (
            "004",
            "The standard error of a mean is σ/√n; mini-batch gradients are biased. (They are not.)",
        ),
    ),
    "gradient_noise_injection": (
        (
            "000",
            "Gradient noise: a little noise added to the gradient makes training a little faster.",
        ),
    ),
    "ill_conditioning": (
        (
            "004",
            "Ill-conditioning: ½ε²gᵀHg exceeds εgᵀg, so that even small steps raise the loss.",
        ),
    ),
    "learning_rate_diagnosis": (
        (
            "000",
            "A learning rate that is too large does not learn, one that is too small takes long.",
        ),
        (
            "000",
            "A loss that falls in a straight line asks for a higher rate, one that rises or jumps for a lower one.",
        ),
    ),
    "local_vs_global": (
        (
            "004",
            "Descent can fail without a minimum or a saddle: the local slope says little about the whole.",
        ),
    ),
    "long_term": (
        (
            "004",
            "Wᵗ = V diag(λ)ᵗ V⁻¹: eigenvalues other than 1 vanish or explode over many steps.",
        ),
    ),
    "mnist_optimizers": (
        (
            "000",
            "Use an adaptive method, Adam above all; avoid SGD and momentum.",
        ),
        (
            "001",
            "A figure compares SGD, momentum, AdaGrad and Adam on MNIST.",
        ),
    ),
    "newton": (
        (
            "000",
            "Newton's method jumps to the minimum of a second-order model; 100 parameters need 100 × 100 numbers.",
        ),
        (
            "004",
            "Newton's method helps against ill-conditioning, but has to be changed for neural networks.",
        ),
    ),
    "noisy_quadratic": (
        (
            "004",
            "Inexact gradients: optimizers assume exact ones, but get those of mini-batches.",
        ),
        (
            "002",
            "Momentum lowers the variance of SGD and smooths its convergence.",
        ),
    ),
    "normalisations": (
        (
            "003",
            "Batch, layer, instance and group norm reduce different parts; group norm lies between the two before it.",
        ),
    ),
    "outliers_and_classes": (
        (
            "004",
            "The Hessian causes trouble in optimization. (It shows it.)",
        ),
    ),
    "quadratic_rates": (
        (
            "002",
            "Momentum carries a share γ of the last step on.",
        ),
        (
            "003",
            "Nesterov takes the gradient at the look-ahead point and converges faster than momentum.",
        ),
    ),
    "random_search": (
        (
            "001",
            "Hyperparameters are drawn at random: learning rates 10^U(−6, −2), weight decay 10^U(−8, −4), 100 trials.",
        ),
    ),
    "random_vs_grid": (
        (
            "001",
            "Hyperparameters are drawn at random, not taken from a grid.",
        ),
    ),
    "regression_race": (
        (
            "003",
            "On a regression, with the same batches, Adam fits fastest, then momentum, then SGD.",
        ),
        (
            "003",
            "Momentum gains since it has in effect seen more data; Adam, since it also adapts each rate.",
        ),
    ),
    "regularisers": (
        (
            "003",
            "Data augmentation: change the examples only as far as their label does not change.",
        ),
        (
            "003",
            "Label smoothing takes two examples and mixes them. (That is mixup; it softens the labels.)",
        ),
        (
            "003",
            "Mixup mixes two images and their labels; cutout removes a part, CutMix puts that of another image there.",
        ),
        (
            "003",
            "Such methods raise the performance a lot, CutMix and mixup above all.",
        ),
    ),
    "rnn_clipping": (
        (
            "004",
            "Recurrent networks have cliffs; weight clipping helps. (Gradient clipping is meant.)",
        ),
    ),
    "saddle_dimension": (
        (
            "004",
            "At a minimum all eigenvalues of the Hessian are positive, which many dimensions make improbable.",
        ),
        (
            "004",
            "In few dimensions local minima are more frequent than saddle points, in many dimensions the reverse.",
        ),
        (
            "004",
            "Local minima lie at low values of the loss, saddle points at higher ones.",
        ),
    ),
    "saddle_escape": (
        (
            "004",
            "Saddle points could endanger first-order methods, but in experience they are passed well.",
        ),
    ),
    "saddle_index": (
        (
            "004",
            "In many dimensions saddle points are more common than minima, and lie at higher losses.",
        ),
    ),
    "sharp_minima": (
        (
            "000",
            "The smaller the mini-batch, the better the result, but the longer it takes.",
        ),
        (
            "003",
            "Small batches do better: they end in flat minima, which generalise; sharp ones do not.",
        ),
    ),
    "shuffling": (
        (
            "000",
            "Shuffle the training examples every epoch.",
        ),
        (
            "004",
            "Random batches matter; on large data one shuffle at the beginning is enough.",
        ),
    ),
    "surrogate_loss": (
        (
            "004",
            "The mean training loss, in place of the risk, invites overfitting; the 0-1 loss has no gradient.",
        ),
        (
            "004",
            "The 0-1 loss is replaced by a surrogate such as the NLL, which goes on improving where the former is 0.",
        ),
    ),
    "trajectories": (
        (
            "001",
            "On x²/20 + y² SGD takes an inefficient path; momentum, AdaGrad and Adam search more efficiently.",
        ),
    ),
    "weight_decay": (
        (
            "003",
            "The generalisation gap is the difference between training and test error.",
        ),
        (
            "003",
            "Parameter norm penalty: the smaller the weights of a network, the better.",
        ),
        (
            "001",
            "Weight decay .1 on 300 images: training and test accuracy come closer.",
        ),
    ),
    "weight_init": (
        (
            "001",
            "From std .01 the network does not learn; from Xavier and He it does, fastest from He with ReLU.",
        ),
    ),
    "weight_noise_and_curvature": (
        (
            "003",
            "Noise robustness: noise is added to the inputs, and to the weights, too.",
        ),
    ),
    "weight_symmetry": (
        (
            "004",
            "Weight-space symmetry: exchanging units gives equivalent minima, so there are many.",
        ),
    ),
}

FOUND: Mapping[str, str] = {
    "activation_histograms": (
        "Under Xavier a ReLU halves the second moment from layer to layer; under He it stays, and so do gradients."
    ),
    "adagrad_decay": (
        "AdaGrad's learning rate falls as t^−½, that of RMSprop and AdaDelta does not; AdaGrad is ahead "
        "of tuned SGD on rare features only."
    ),
    "adam_epsilon": ("Adam with a large ε is momentum; with a tuned learning rate, ε = .01 is no better than 1e-8."),
    "adaptive_edge_of_stability": (
        "The preconditioned sharpness of Adam rises to its limit, 3.8 over a step's gain, and stays "
        "there, while the raw sharpness goes on growing."
    ),
    "amsgrad_counterexample": (
        "Adam with a short memory climbs to the worst point of a convex loss; AMSGrad does not."
    ),
    "bagging_boosting": ("Bagging lowers the variance and boosting the bias, both from training data alone."),
    "batch_norm": (
        "With batch norm, four times as many of the 16 initial scales train; it also wins when each "
        "network uses its best scale."
    ),
    "bias_correction": (
        "At Adam's defaults a network trains without it; at learning rate .01 and β₂ = .9999 it does not."
    ),
    "bias_variance": ("At every degree the error is noise + bias² + variance, to Monte Carlo error."),
    "cliff": ("Clipping the gradient saves the step at a cliff; clipping weights does not."),
    "closed_form": (
        "Gradient descent on linear regression follows its closed form; among many minima, the start chooses."
    ),
    "conventions": (
        "The forms of momentum agree at a constant rate and part under a schedule; Nesterov with or without look-ahead "
        "is one method. Where ε stands matters for tiny gradients or a large ε only. AdaDelta does not see the loss's "
        "scale."
    ),
    "critical_batch_size": (
        "The noise scale of the gradient predicts within a factor of three up to which batch size more "
        "examples save steps; that the smallest batches scale perfectly, and the largest not at all, is "
        "not resolved."
    ),
    "cross_validation": ("Features chosen outside the folds promise a small error on pure noise."),
    "curriculum": (
        "At the full budget and at a tenth of it easy examples first gain nothing, at the best of three paces; within "
        "the first few steps, and with 40 % wrong labels, they gain seven points."
    ),
    "dropout": (
        "After the book's 301 epochs dropout lowers the test accuracy, and whether it closes the gap is "
        "not resolved; after five times as many it is ahead. Activations are dropped, not weights, and "
        "one scaled pass gives the geometric mean of the thinned predictions."
    ),
    "early_stopping": (
        "On a quadratic, the learned share of each mode at step τ is within .21 of that under an L2 penalty of 1/(ητ)."
    ),
    "edge_of_stability": ("Under full-batch gradient descent the sharpness rises to 2/η and stays there."),
    "ensemble": ("Averaging predictions helps; averaging weights does not."),
    "gradient_noise": (
        "The error of a mini-batch gradient falls as 1/√n, faster without replacement, and it has no "
        "bias: the notes' word is wrong."
    ),
    "gradient_noise_injection": (
        "It rescues twenty ReLU layers from weights that are 0 or too small, since it is a random walk to larger "
        "weights; from a good start it only harms."
    ),
    "ill_conditioning": (
        "gᵀHg does not outgrow gᵀg on this network, although Goodfellow et al. (2016) say it often does."
    ),
    "learning_rate_diagnosis": (
        "Of the findings that name the learning rate as too low, good or too high, 88 % are right, and "
        "hardly any is the opposite of the truth; a curve alone names it in little more than half of "
        "the runs."
    ),
    "local_vs_global": (
        "Every optimizer of the notes fails from the wrong side of a mountain without a minimum or a "
        "saddle; restarts help."
    ),
    "long_term": (
        "The norm of Wᵗ grows as the spectral radius says in the long run, and a non-normal W grows "
        "before it forgets; gates carry a gradient 16 orders of magnitude farther than tanh through 200 "
        "steps."
    ),
    "mnist_optimizers": (
        "At the learning rates of Saito (2016) SGD is far behind; after 16 tuning trials each, no "
        "difference in test loss is detectable."
    ),
    "newton": (
        "Newton solves a quadratic in one step and goes to saddles, as Newton-MR does; saddle-free "
        "Newton leaves them. On a network SGD with small batches starts faster, and truncated Newton "
        "ends lower."
    ),
    "noisy_quadratic": (
        "Expected losses follow their exact recursion; averaging the iterates lowers the floor of the noise."
    ),
    "normalisations": (
        "Group norm contains layer and instance norm; weights before any of the four may be rescaled, "
        "and their gradient shrinks by the same factor. Batch norm trains from six more of 16 initial "
        "scales; layer and group norm from about three more."
    ),
    "outliers_and_classes": (
        "Every class adds one outlier to the Hessian's spectrum; the gradient's share in their span does not last."
    ),
    "quadratic_rates": ("Momentum and Nesterov converge and diverge as their spectral radii predict."),
    "random_search": (
        "The best learning rates in Saito (2016), .001 to .01, are at the end of the searched range: .1 is better."
    ),
    "random_vs_grid": ("Random search beats a grid if an axis does not matter, and only then."),
    "regression_race": (
        "The order holds at the notes' rate and with tuned rates. What momentum gains is its larger step: where SGD "
        "moves as far, both end at the same loss; but SGD cannot be given that step, since it diverges."
    ),
    "regularisers": (
        "Shifts by two pixels gain five points of test accuracy on a network that overfits 300 MNIST images. Mirrored "
        "digits cost five, mixup and CutMix two to three, label smoothing and cutout one, at untuned strengths; a norm "
        "penalty of .001 changes less than a tenth. Label smoothing mixes no examples: it asks for probability "
        "1 − ε + ε/K."
    ),
    "rnn_clipping": (
        "At T = 20 and 50 nine or ten of ten clipped runs survive, one and none without clipping; at T "
        "= 10 clipping is not needed, and at T = 20 a lower rate rescues most runs."
    ),
    "saddle_dimension": (
        "Minima among the critical points of random functions are a half in one dimension, a quarter in "
        "two, none of 145 in eight, as the Kac–Rice formula says; the index grows with the height."
    ),
    "saddle_escape": ("Escape is as fast as the negative eigenvalue predicts."),
    "saddle_index": (
        "All saddles of a linear network have the index given by the formula, which is no function of the loss."
    ),
    "sharp_minima": (
        "Whether batches of 200 end sharper than batches of 20 is not resolved at equal loss; with the "
        "rate scaled they end flatter. Rescaled ReLU layers are the same function at 162 times the "
        "sharpness, which a scale-invariant measure leaves as it is."
    ),
    "shuffling": (
        "With replacement the excess loss falls as 1/T, with one permutation as 1/T², reshuffled "
        "faster; sorted classes must be shuffled, and for independent examples the stream's order is as "
        "good."
    ),
    "surrogate_loss": (
        "The training NLL and the margins go on improving after the training error is 0; on these test "
        "images nothing more is gained."
    ),
    "trajectories": (
        "SGD's learning rate of .95 is nearly optimal on x²/20 + y², not a bad choice; a fixed step "
        "cannot do better than .952."
    ),
    "weight_decay": (
        "λ = .1 narrows the gap between training and test accuracy from above: the test accuracy falls. "
        "For SGD a penalty and decoupled decay are one step, for Adam not."
    ),
    "weight_init": (
        "From std .01 the network does not train, for its gradients are too small; He's scale trains "
        "faster than Xavier's, and with batch norm .01 trains as well."
    ),
    "weight_noise_and_curvature": (
        "Noise on the weights costs half its variance times the trace of the Hessian: it is a penalty on curvature."
    ),
    "weight_symmetry": ("Most of the barrier between two solutions is the order of their units."),
}
