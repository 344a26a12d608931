"""Mistakes that a maintainer might make outside of the atoms, each with the default tests that must notice it."""

from tests.oracles.mutations import Edit

TRACE = "curvature/test_trace.py::"
SPECTRAL_DENSITY = "curvature/test_spectral_density.py::"
CONDITION_NUMBER = "curvature/test_condition_number.py::"
STABILITY_THRESHOLD = "dynamics/test_stability_threshold.py::"
STABILITY = "dynamics/test_stability.py::"
STEP_ACCOUNTING = "dynamics/test_step_accounting.py::"
PAIRED_TESTS = "sweeps/test_paired_tests.py::"
INTERVALS = "sweeps/test_intervals.py::"
ENDINGS = "training/test_endings.py::"
TRAIN = "training/test_train.py::"
BATCH_ORDER = "training/test_batch_order.py::"
NEWTON = "transforms/test_newton.py::"


def _edit(module: str, original: str, changed: str, *tests: str) -> Edit:
    return Edit(module, original, changed, tests)


CURVATURE = [
    # Degrees of freedom, quantiles and bands of what random probes say.
    _edit(
        "curvature/spectrum/_deflation.py",
        "p * (p - 1)",
        "p * p",
        TRACE + "test_the_mean_square_of_the_standard_error_is_the_variance_of_the_estimate",
    ),
    _edit(
        "curvature/spectrum/_deflation.py",
        "jnp.sqrt(moments.count / count)",
        "moments.count / count",
        TRACE + "test_standard_errors_of_the_diagonal_have_the_closed_form_of_their_probes",
    ),
    _edit(
        "curvature/spectrum/_trace.py",
        "op.size <= max(",
        "op.size < max(",
        TRACE + "test_what_the_products_suffice_for_is_exact",
    ),
    _edit(
        "curvature/spectrum/_deflation.py",
        "q * (2 * z - qm)",
        "q * (z - qm)",
        TRACE + "test_standard_errors_of_the_diagonal_cover_it",
    ),
    _edit(
        "linalg/gram_schmidt.py",
        "for _ in range(2):",
        "for _ in range(1):",
        TRACE + "test_the_basis_of_the_sketch_is_orthonormal_though_its_rows_are_nearly_parallel",
    ),
    _edit(
        "linalg/coordinates.py",
        "here = jnp.arange(start,",
        "here = start + jnp.arange(start,",
        TRACE + "test_pytrees_restricted_operators_and_the_host_loop_are_exact_too",
    ),
    _edit(
        "curvature/spectrum/_estimate.py",
        "(p * (p - 1))",
        "(p * p)",
        SPECTRAL_DENSITY + "test_standard_errors_are_those_of_numpy_at_any_scale",
    ),
    _edit(
        "curvature/spectrum/_estimate.py",
        "(p * (size / 2 + 1) - 1)",
        "(p * (size + 1) - 1)",
        SPECTRAL_DENSITY + "test_the_share_of_one_eigenvalue_is_in_the_band_and_within_its_errors_as_often_as_they_say",
    ),
    _edit(
        "curvature/spectrum/_estimate.py",
        "ndtri(0.5 + confidence / 2)",
        "ndtri(confidence)",
        SPECTRAL_DENSITY + "test_the_band_covers_skewed_shares",
    ),
    _edit(
        "curvature/spectrum/_estimate.py",
        "num_probes * (size / 2 + 1)",
        "num_probes * (size + 1)",
        SPECTRAL_DENSITY + "test_the_band_covers_skewed_shares",
    ),
    # Quadrature, and what is read from it.
    _edit(
        "linalg/gauss_quadrature.py",
        "rotations[0] ** 2",
        "jnp.abs(rotations[0])",
        SPECTRAL_DENSITY + "test_exhausted_spaces_end_with_the_exact_measure",
    ),
    _edit(
        "linalg/gauss_quadrature.py",
        "rotations[taken - 1] * beta",
        "rotations[0] * beta",
        SPECTRAL_DENSITY + "test_converged_outliers_are_listed_with_their_errors_and_are_no_part_of_the_bulk",
    ),
    _edit(
        "linalg/lanczos_recurrence.py",
        "u, c = gram_schmidt.remove(chunk, u)",
        "_, c = gram_schmidt.remove(chunk, u)",
        SPECTRAL_DENSITY + "test_isolated_eigenvalues_have_no_ghosts_and_the_quadrature_is_that_of_the_dense_matrix",
    ),
    _edit(
        "curvature/spectrum/_spectral_density.py",
        "jnp.maximum(least - 1, 0)",
        "least",
        SPECTRAL_DENSITY + "test_the_band_of_the_shares_covers_the_truth_as_often_as_it_says",
    ),
    _edit(
        "curvature/spectrum/_spectral_density.py",
        'side="right"',
        'side="left"',
        SPECTRAL_DENSITY + "test_an_eigenvalue_at_a_grid_point_counts_as_below_it",
    ),
    _edit(
        "curvature/spectrum/_cross_check.py",
        "2 * twos -",
        "twos -",
        SPECTRAL_DENSITY + "test_chebyshev_moments_agree_and_object_to_a_wrong_quadrature",
    ),
    _edit(
        "curvature/spectrum/_log_det.py",
        "3 * nodes.shape[1] // 4",
        "nodes.shape[1]",
        "curvature/test_log_det.py::test_few_steps_overestimate_and_say_so",
    ),
    _edit(
        "curvature/spectrum/_log_det.py",
        "quadrature.residuals < smallest",
        "quadrature.residuals > smallest",
        "curvature/test_log_det.py::test_few_steps_overestimate_and_say_so",
    ),
    _edit(
        "curvature/spectrum/_outliers.py",
        "(converged & same &",
        "(same &",
        SPECTRAL_DENSITY + "test_a_node_that_every_probe_has_is_no_outlier_until_its_residual_is_small",
    ),
    # Condition numbers and the terms of a step.
    _edit(
        "curvature/spectrum/_condition_number.py",
        "2 * cauchy",
        "cauchy",
        CONDITION_NUMBER + "test_terms_and_steps_are_those_of_the_dense_matrix",
    ),
    _edit(
        "curvature/spectrum/_condition_number.py",
        "jnp.sum(inside**2)",
        "jnp.sqrt(jnp.sum(inside**2))",
        CONDITION_NUMBER + "test_terms_and_steps_are_those_of_the_dense_matrix",
    ),
    _edit(
        "curvature/spectrum/_condition_number.py",
        "smallest < -noise",
        "smallest < noise",
        CONDITION_NUMBER + "test_an_undetermined_condition_number_has_no_value_but_a_true_lower_bound",
    ),
    # Indices, brackets and eigenpairs.
    _edit(
        "curvature/points/_index_counts.py",
        "jnp.sum(values < -tau).astype(nan.dtype)",
        "jnp.sum(values < tau).astype(nan.dtype)",
        "curvature/test_morse_index.py::test_counts_of_small_operators_are_exact_and_say_so",
    ),
    _edit(
        "curvature/spectrum/_eigenvalue_counts.py",
        "jnp.sum(values < -tau - error),",
        "jnp.sum(values < -tau),",
        "curvature/test_morse_index.py::test_only_eigenvalues_beyond_tau_by_more_than_their_error_are_proved",
    ),
    _edit(
        "curvature/spectrum/_sharpness.py",
        "jnp.where(value > 0, 2 /",
        "jnp.where(value > 0, 1 /",
        "curvature/test_sharpness.py::test_agrees_with_the_dense_hessian_and_bounds_the_learning_rate",
    ),
    _edit(
        "linalg/lanczos_upper_bound.py",
        "0.5 * (1 - confidence)",
        "1 - confidence",
        "curvature/test_sharpness.py::test_overlap_quantile_agrees_with_sampling",
        "curvature/test_sharpness.py::test_the_share_that_misses_is_the_one_allowed",
    ),
    _edit(
        "linalg/block_lanczos.py",
        "_MAX_PASSES = 6",
        "_MAX_PASSES = 1",
        "linalg/test_block_lanczos.py::test_the_projected_matrix_is_the_compression_of_the_operator",
        "linalg/test_block_lanczos.py::test_a_hundred_steps_make_no_ghosts_where_the_plain_recurrence_does",
    ),
    _edit(
        "linalg/conjugate_gradients.py",
        "negative = bend <= 0",
        "negative = bend < 0",
        NEWTON + "test_flat_directions_without_damping_end_in_numbers",
    ),
    _edit(
        "linalg/conjugate_gradients.py",
        "_where(state.count == 0, b, state.x)",
        "state.x",
        NEWTON + "test_flat_directions_without_damping_end_in_numbers",
    ),
    _edit(
        "linalg/conjugate_gradients.py",
        "new / size, state.p, ",
        "size / new, state.p, ",
        NEWTON + "test_one_step_solves_a_quadratic",
    ),
    _edit(
        "transforms/_newton.py",
        "unit * jnp.maximum(",
        "jnp.maximum(",
        NEWTON + "test_directions_are_those_of_the_papers",
    ),
    _edit(
        "transforms/_newton.py",
        "state.num_matvecs + last.num_matvecs",
        "last.num_matvecs",
        NEWTON + "test_train_gives_the_loss_of_the_batch_and_products_add_up",
    ),
    _edit(
        "transforms/_newton.py",
        "jnp.sqrt(size)",
        "size",
        NEWTON + "test_directions_are_those_of_the_papers",
    ),
    _edit(
        "linalg/thick_restart_lanczos.py",
        "small & steady & explored",
        "small & explored",
        "curvature/test_eigenpairs.py::test_finds_every_copy_of_every_eigenvalue_in_the_zoo",
    ),
    _edit(
        "curvature/spectrum/_sharpness.py",
        "jnp.asarray(jnp.finfo(solver.layout.scalar).eps,",
        "jnp.asarray(100 * jnp.finfo(solver.layout.scalar).eps,",
        "curvature/test_sharpness.py::test_covers_in_its_stated_share_of_500_trials",
    ),
    _edit(
        "curvature/points/_descent_direction.py",
        "walk.seen & (walk.fall",
        "walk.seen | (walk.fall",
        "curvature/test_classify_point.py::test_a_way_down_a_valley_through_the_origin_is_seen_only_where_it_is",
    ),
    _edit(
        "linalg/thick_restart_lanczos.py",
        "(-values, state.block",
        "(values, state.block",
        "curvature/test_eigenpairs.py::test_a_small_basis_restarts_and_finds_the_same",
    ),
    _edit(
        "curvature/points/_tolerances.py",
        "jnp.where(norm > 0, norm, 1) * length",
        "jnp.where(norm > 0, norm, 1)",
        "curvature/test_classify_point.py::test_a_gradient_flat_point_is_neither_critical_nor_simply_not",
    ),
    _edit(
        "curvature/operators/_batches.py",
        "* (rest / total)",
        "* (size / total)",
        "curvature/test_hessian.py::test_they_are_the_dense_matrices_however_the_data_are_read",
    ),
    _edit(
        "curvature/operators/_operator.py",
        "wide / root",
        "wide / root**2",
        "curvature/test_operator.py::test_sums_multiples_blocks_and_preconditioning_are_those_of_matrices",
    ),
]

DYNAMICS = [
    _edit(
        "dynamics/_stability_threshold.py",
        "_PASSED = 1e-10",
        "_PASSED = 1e-2",
        STABILITY_THRESHOLD + "test_threshold_is_the_closed_form",
    ),
    _edit(
        "dynamics/_scalar_model.py",
        "step.to_gradient @ step.to_point",
        "step.to_gradient @ abs(step.to_point)",
        STABILITY_THRESHOLD + "test_threshold_is_the_closed_form",
    ),
    _edit(
        "dynamics/_scalar_model.py",
        "_LATE = 2**30",
        "_LATE = 2",
        STABILITY_THRESHOLD + "test_threshold_is_the_closed_form",
    ),
    _edit(
        "dynamics/_stability_limit.py",
        "abs(block.sensitivity) * threshold",
        "threshold / abs(block.sensitivity)",
        STABILITY_THRESHOLD + "test_the_limit_is_the_threshold_in_units_of_the_gain",
    ),
    _edit(
        "dynamics/_step_accounting.py",
        "0.5 * vectors.inner(curved, applied)",
        "vectors.inner(curved, applied)",
        STEP_ACCOUNTING + "test_quadratic_is_predicted_exactly",
    ),
    _edit(
        "dynamics/_step_accounting.py",
        "end - start",
        "start - end",
        STEP_ACCOUNTING + "test_quadratic_is_predicted_exactly",
    ),
    _edit(
        "dynamics/_step_accounting.py",
        "applied = vectors.subtract(after, before)",
        "applied = updates",
        STEP_ACCOUNTING + "test_an_update_below_rounding_did_not_happen",
    ),
    _edit(
        "dynamics/_preconditioning.py",
        "else own / threshold",
        "else threshold / own",
        "dynamics/test_preconditioning.py::test_groups_carry_the_ratio_of_their_thresholds",
    ),
    _edit(
        "dynamics/_preconditioning.py",
        "wide / sensitivity",
        "wide * sensitivity",
        "dynamics/test_preconditioning.py::test_adams_preconditioner_is_the_root_of_its_second_moment",
    ),
    _edit(
        "dynamics/_stability.py",
        "leading.real > 0",
        "leading.real < 0",
        STABILITY + "test_verdict_tells_oscillation_from_escape",
    ),
    _edit(
        "dynamics/_stability.py",
        "sizes > 1.0 + errors",
        "sizes > 1.0",
        STABILITY + "test_verdict_is_unknown_where_the_error_decides_nothing",
    ),
    _edit(
        "dynamics/_stability.py",
        "max(size, 0.0) ** (1 / num_steps)",
        "max(size, 0.0)",
        STABILITY + "test_more_steps_than_one_tell_oscillation_from_escape",
    ),
    _edit(
        "dynamics/_multi_step_jacobian.py",
        "vectors.inner(before[0], leading[0]) < 0",
        "vectors.inner(before[0], leading[0]) > 0",
        STABILITY + "test_more_steps_than_one_tell_oscillation_from_escape",
    ),
    _edit(
        "linalg/arnoldi.py",
        "[[real, imag], [-imag, real]]",
        "[[real, -imag], [imag, real]]",
        STABILITY + "test_complex_pair_beyond_the_circle_is_an_oscillation",
    ),
    _edit(
        "dynamics/_step_period.py",
        "math.lcm(*(",
        "max(1, *(",
        STABILITY_THRESHOLD + "test_counters_of_different_periods_stand_as_before_after_their_least_common_multiple",
    ),
]

SWEEPS = [
    _edit(
        "sweeps/_search/_halving.py",
        "-(-len(scores) // self.factor)",
        "len(scores) // self.factor",
        "sweeps/test_halving.py::test_a_rung_keeps_the_ceiling_of_its_share",
    ),
    _edit(
        "sweeps/_search/_halving.py",
        "-(-steps // every) * every",
        "steps // every * every",
        "sweeps/test_halving.py::test_rungs_end_at_evaluations_and_at_the_last_step",
    ),
    _edit(
        "sweeps/_search/_halving.py",
        "* every) < num_steps",
        "* every) <= num_steps",
        "sweeps/test_halving.py::test_rungs_end_at_evaluations_and_at_the_last_step",
    ),
    _edit(
        "sweeps/_statistics/_paired_tests.py",
        "1 - (1 - level) / len(rows)",
        "level",
        PAIRED_TESTS + "test_a_family_of_equals_has_rarely_a_winner",
        PAIRED_TESTS + "test_the_matrices_agree_with_the_pairs",
    ),
    _edit(
        "sweeps/_statistics/_paired_tests.py",
        "2 * scipy.stats.t.sf(",
        "scipy.stats.t.sf(",
        PAIRED_TESTS + "test_few_seeds_get_students_t_and_say_so",
    ),
    _edit(
        "sweeps/_statistics/_paired_tests.py",
        "scipy.stats.t.ppf((1 + level) / 2, n - 1)",
        "scipy.stats.t.ppf((1 + level) / 2, n)",
        PAIRED_TESTS + "test_few_seeds_get_students_t_and_say_so",
    ),
    _edit(
        "sweeps/_statistics/_paired_tests.py",
        ">= abs(2 * positive - total)",
        "> abs(2 * positive - total)",
        PAIRED_TESTS + "test_p_is_that_of_all_sign_flips",
    ),
    _edit(
        "sweeps/_statistics/_paired_tests.py",
        "averages[outside - 1], averages[count - outside]",
        "averages[outside], averages[count - outside - 1]",
        PAIRED_TESTS + "test_the_interval_leaves_out_exactly_the_shifts_that_the_test_rejects",
    ),
    _edit(
        "sweeps/_statistics/_intervals.py",
        "centre = (k + z**2 / 2)",
        "centre = (k + z**2)",
        INTERVALS + "test_wilson_is_scipys",
    ),
    _edit(
        "sweeps/_statistics/_intervals.py",
        "scipy.stats.t.ppf((1 + level) / 2, n - 1)",
        "scipy.stats.t.ppf(level, n - 1)",
        INTERVALS + "test_three_values_have_students_interval",
    ),
    _edit(
        "sweeps/_statistics/_intervals.py",
        "ordered[..., outside - 1], ordered[..., n - outside]",
        "ordered[..., outside], ordered[..., n - outside - 1]",
        INTERVALS + "test_the_median_lies_between_the_order_statistics_of_the_sign_test",
    ),
    _edit(
        "sweeps/_statistics/_expected_best_of_k.py",
        "n - np.arange(1, n + 1)",
        "n - np.arange(n)",
        "sweeps/test_expected_best_of_k.py::test_best_of_k_is_that_of_all_subsets",
    ),
    _edit(
        "sweeps/_statistics/_expected_best_of_k.py",
        "0.5 ** (1 / budgets)",
        "0.5**budgets",
        "sweeps/test_expected_best_of_k.py::test_the_median_is_covered_at_every_k_and_not_by_half_the_interval",
    ),
    _edit(
        "sweeps/_statistics/_indistinguishable.py",
        "(1 - level) / max(len(costs) - 1, 1)",
        "(1 - level)",
        "sweeps/test_indistinguishable.py::test_a_trial_leaves_the_set_where_students_t_rejects_it_and_no_earlier",
        "sweeps/test_indistinguishable.py::test_the_best_trial_is_in_the_set",
    ),
    _edit(
        "sweeps/_statistics/_indistinguishable.py",
        "axis=1, ddof=1) / num_seeds",
        "axis=1) / num_seeds",
        "sweeps/test_indistinguishable.py::test_a_trial_leaves_the_set_where_students_t_rejects_it_and_no_earlier",
        "sweeps/test_indistinguishable.py::test_the_best_trial_is_in_the_set",
    ),
    _edit(
        "sweeps/_execution/_keys.py",
        'jax.random.split(study_key("report_keys", key))[1]',
        'jax.random.split(study_key("report_keys", key))[0]',
        "sweeps/test_compare.py::test_reporting_seeds_are_paired_and_none_of_them_tuned",
    ),
    _edit(
        "sweeps/_statistics/_scores.py",
        "cost <= sign_of(mode) * target",
        "cost < sign_of(mode) * target",
        "sweeps/test_scores.py::test_the_first_step_at_the_target_is_that_of_a_loop",
    ),
    _edit(
        "sweeps/_statistics/_scores.py",
        "= sign * np.inf",
        "= np.inf",
        "sweeps/test_scores.py::test_nan_becomes_the_worst_score_and_the_argument_stays_as_it_was",
    ),
    _edit(
        "sweeps/_statistics/_performance_profiles.py",
        "<= (1 + rounding_of(table)) * factors",
        "<= (1 - rounding_of(table)) * factors",
        "sweeps/test_performance_profiles.py::test_shares_are_those_of_the_definition",
    ),
    _edit(
        "sweeps/_space/_ranges.py",
        "u * (high - low) + 0.5",
        "u * (high - low)",
        "sweeps/test_space.py::test_integers_own_equal_cells_and_on_a_log_scale_cells_of_equal_ratio",
    ),
    _edit(
        "sweeps/_space/_dimension.py",
        'return "low" if u <= margin else "high"',
        'return "high" if u <= margin else "low"',
        "sweeps/test_space.py::test_an_edge_is_told_with_its_side",
    ),
]

TRAINING = [
    _edit(
        "training/_observe.py",
        "failures >= rule.patience",
        "failures > rule.patience",
        ENDINGS + "test_early_stopping_restores_the_best_parameters",
    ),
    _edit(
        "training/_observe.py",
        "_keep(better, carry.params, best.params)",
        "carry.params",
        ENDINGS + "test_early_stopping_restores_the_best_parameters",
    ),
    _edit(
        "training/_observe.py",
        "gain > rule.min_delta",
        "gain > 0",
        ENDINGS + "test_improvements_below_min_delta_do_not_count",
    ),
    _edit(
        "training/_observe.py",
        'best.value - value if rule.mode == "min"',
        'best.value - value if rule.mode == "max"',
        ENDINGS + "test_early_stopping_restores_the_best_parameters",
    ),
    _edit(
        "training/_train.py",
        "params if best is None else best.params",
        "params",
        ENDINGS + "test_early_stopping_restores_the_best_parameters",
    ),
    _edit(
        "training/_step.py",
        "jax.random.fold_in(constants.step_key, t)",
        "constants.step_key",
        TRAIN + "test_model_state_and_randomness_reach_the_step",
    ),
    _edit(
        "training/_step.py",
        "point = differentiated(gradient_point(carry.params, carry.opt_state))",
        "point = differentiated(carry.params)",
        TRAIN + "test_the_gradient_is_taken_at_the_look_ahead_point",
    ),
    _edit(
        "training/_compiled_loop.py",
        "(first + every - 1) // every",
        "first // every",
        TRAIN + "test_long_runs_of_many_parts_are_seamless",
    ),
    _edit(
        "training/_curriculum.py",
        "jnp.ceil(_share(self.pace, step)",
        "jnp.floor(_share(self.pace, step)",
        BATCH_ORDER + "test_a_curriculum_rounds_the_number_of_examples_up",
    ),
    _edit(
        "training/_curriculum.py",
        "(1.0 - self.start) * jnp.asarray(step, float)",
        "jnp.asarray(step, float)",
        BATCH_ORDER + "test_a_curriculum_admits_the_easiest_examples_first",
    ),
    _edit(
        "training/_batch_order.py",
        "wrapped = position >= num_examples",
        "wrapped = position > num_examples",
        BATCH_ORDER + "test_every_epoch_holds_every_example_exactly_once_at_any_batch_size",
    ),
    _edit(
        "training/_batch_order.py",
        "else epoch + wrapped.astype(jnp.uint32)",
        "else epoch",
        BATCH_ORDER + "test_every_epoch_holds_every_example_exactly_once_at_any_batch_size",
    ),
    _edit(
        "training/_batch_order.py",
        "jax.random.randint(jax.random.fold_in(state, step)",
        "jax.random.randint(state",
        BATCH_ORDER + "test_with_replacement_every_draw_is_uniform_and_independent",
    ),
    _edit(
        "training/_batch_order.py",
        "jnp.uint32(0) if same",
        "epoch if same",
        BATCH_ORDER + "test_once_repeats_the_first_order",
    ),
    _edit(
        "training/_evaluate.py",
        "v.sum(0, dtype=accumulator(v.dtype)) * batch_size",
        "v.sum(0, dtype=accumulator(v.dtype))",
        TRAIN + "test_evaluation_counts_every_example_once_whatever_the_batch_size",
    ),
    _edit(
        "training/_evaluate.py",
        "v.astype(accumulator(v.dtype)) * rest",
        "v.astype(accumulator(v.dtype)) * batch_size",
        TRAIN + "test_evaluation_counts_every_example_once_whatever_the_batch_size",
    ),
]

EDITS = CURVATURE + DYNAMICS + SWEEPS + TRAINING
