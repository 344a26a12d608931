"""Adaptive sampling with Optuna by batched ask and tell, for studies shared by many processes."""

import math
import threading
import time
import uuid
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from jaxopt_study._checks import check_choice, check_integer, check_real, describe_argument
from jaxopt_study.sweeps._search._optuna_storage import load_optuna, open_storage, quiet, reading
from jaxopt_study.sweeps._space._optuna_space import config_of, suggest
from jaxopt_study.sweeps._space._space import Space, as_space
from jaxopt_study.types import Mode

_SPACE = "jaxopt_study:space"  # attribute of a study: the search space
_WORKER = "jaxopt_study:worker"  # attribute of a trial: its worker; of a study, with its name: its heartbeats
_MISSED_BEATS = 4  # after which a worker is presumed dead


class OptunaSampler:
    """Sampler that lets Optuna suggest configurations in batches, for any number of processes and machines.

    Processes with the same storage and study share a search: each asks for trials, runs them and tells their scores. If
    a worker dies, only its open trials are lost; the others notice that its heartbeats have stopped, and run as many
    trials in their place.

    A diverged trial is told without a score. Optuna then marks it as pruned: it counts as finished, and samplers such
    as TPE learn to avoid its neighbourhood. Failed trials are those that were never finished; they do not count.

    Args:
        storage: Storage of the study: None for memory; the URL of a database, such as "sqlite:///study.db" or
            "postgresql://…"; or the path of a journal file, which also works on network file systems.
        study_name: Name of the study in the storage.
        sampler: One of `optuna.samplers`; None takes TPE. Processes that share a study must not share a seed.
        direction: "minimize" if smaller scores are better, "maximize" if larger ones are.
        heartbeat: Seconds between heartbeats; a worker without one for four times as long is presumed dead.

    Raises:
        ImportError: If Optuna is not installed; install the extra "optuna".
        TypeError: If an argument is of the wrong kind.
        ValueError: If the study exists with the other direction, `heartbeat` is not positive, the file is not a journal
            of Optuna, or the database cannot be opened.

    Example:
        >>> from jaxopt_study.sweeps import uniform
        >>> space = Space({"x": uniform(-1.0, 1.0)})
        >>> with OptunaSampler() as sampler:
        ...     while batch := sampler.ask(space, 4, num_trials=10):
        ...         counted = [sampler.tell(handle, config["x"] ** 2) for handle, config in batch]
        ...     len(sampler.finished(space))
        10

    References:
        Akiba et al. (2019), Optuna, KDD. Bergstra et al. (2011), Algorithms for Hyper-Parameter Optimization: TPE.
    """

    def __init__(
        self,
        storage: str | Path | None = None,
        study_name: str = "study",
        sampler: Any = None,
        direction: Literal["minimize", "maximize"] = "minimize",
        heartbeat: float = 15.0,
    ):
        optuna = load_optuna()
        check_choice("OptunaSampler", "direction", direction, ("minimize", "maximize"))
        check_real("OptunaSampler", "heartbeat", heartbeat, 0.0, closed="()", remedy="It is in seconds.")
        if storage is not None and not isinstance(storage, str | Path):
            raise TypeError(
                "OptunaSampler needs storage to be None, a database's URL or the path of a file; received "
                f"{describe_argument(storage)}."
            )
        if not isinstance(study_name, str):
            raise TypeError(f"OptunaSampler needs study_name to be text; received {describe_argument(study_name)}.")
        if sampler is not None and not isinstance(sampler, optuna.samplers.BaseSampler):
            raise TypeError(
                "OptunaSampler needs sampler to be one of optuna.samplers, TPESampler(), or None; received "
                f"{describe_argument(sampler)}."
            )
        self._states = optuna.trial.TrialState
        self._storage = open_storage(optuna, storage)
        self._name = study_name
        with quiet(optuna), reading(study_name):
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=study_name,
                sampler=optuna.samplers.TPESampler() if sampler is None else sampler,
                direction=direction,
                load_if_exists=True,
            )
        if self.direction != direction:
            raise ValueError(
                f"The existing study {study_name!r} has the direction {self.direction!r}; "
                f"received direction={direction!r}. Give the same direction, or choose another study_name."
            )
        self._worker = uuid.uuid4().hex
        self._heartbeat = heartbeat
        self._untold: set[int] = set()
        self._signs: dict[str, tuple[Any, float]] = {}  # other workers' last heartbeats, and when seen
        self._stop = weakref.finalize(self, _no_beats) if storage is None else self._beat()

    @property
    def direction(self) -> str:
        """The direction of the study, "minimize" or "maximize"."""
        with reading(self._name):
            return self._study.direction.name.lower()

    @property
    def mode(self) -> Mode:
        """The direction as a mode, "min" or "max"."""
        return "min" if self.direction == "minimize" else "max"

    def ask(self, space: Space, count: int, *, num_trials: int | None = None) -> list[tuple[int, dict[str, Any]]]:
        """Return new trials to run, or wait if other processes hold the remaining ones.

        Args:
            space: The search space, the same for all processes.
            count: The largest number of trials to return, ≥ 1.
            num_trials: The number of finished trials of the whole study, over all processes, which is reached exactly.
                None sets no limit.

        Returns:
            Pairs of a handle, which is the trial's number in the study, and a configuration. Empty if the study is
            finished, or if this process holds all remaining trials and must first tell them.

        Raises:
            ValueError: If `count` is not positive, or the study has another space.
        """
        space = as_space(space)
        count = check_integer("ask", "count", count, 1)
        if num_trials is not None:
            num_trials = check_integer("ask", "num_trials", num_trials, 0)
        self._check_space(space)
        while True:
            taken, finished = self._look()
            room = count if num_trials is None else min(count, num_trials - taken)
            batch = [] if room < 1 else self._create(space, room, num_trials)
            if batch or self._untold or (num_trials is not None and finished >= num_trials):
                return batch
            time.sleep(min(1.0, self._heartbeat))

    def tell(self, handle: int, score: float | None) -> bool:
        """Finish a trial.

        Args:
            handle: From `ask`.
            score: The score to minimise or maximise. None or a non-finite number means that the trial diverged.

        Returns:
            Whether the trial counts. It does not if this process was presumed dead in the meantime and its trial was
            given up.

        Raises:
            ValueError: If there is no such trial, or it has already been told.
        """
        handle = check_integer("tell", "handle", handle, 0)
        if score is not None:
            check_real("tell", "score", score if score == score else 0.0, closed="[]")  # NaN: it diverged
        self._untold.discard(handle)
        if score is None or not math.isfinite(score):
            return self._finish(handle, self._states.PRUNED)
        return self._finish(handle, self._states.COMPLETE, float(score))

    def finished(self, space: Space) -> list[tuple[int, dict[str, Any], float | None]]:
        """Return all finished trials of the study, including those of other processes.

        Args:
            space: The search space.

        Returns:
            Triples of handle, configuration and score (None if the trial diverged), in the order of the handles.

        Raises:
            ValueError: If the study has another space, or a trial does not belong to this space.
        """
        space = as_space(space)
        self._check_space(space)
        finished = (self._states.COMPLETE, self._states.PRUNED)
        return [(trial.number, *self._read(space, trial)) for trial in self._trials() if trial.state in finished]

    def _trials(self) -> list[Any]:
        with reading(self._name):
            return self._study.get_trials(deepcopy=False)

    def _read(self, space: Space, trial: Any) -> tuple[dict[str, Any], float | None]:
        """Return configuration and score of a stored trial, which may have been changed."""
        try:
            config, score = config_of(space, trial.params), trial.value
            space.unit([config])  # raises for a name or a value that the space has not
            if unknown := trial.params.keys() - config.keys():
                raise ValueError(f"it has no {', '.join(sorted(map(str, unknown)))}")
            if score is None and trial.state == self._states.COMPLETE:
                raise ValueError("the score is missing")
            if score is not None:
                check_real("finished", "a score", score if score == score else 0.0, closed="[]")
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"Trial {trial.number} of the study {self._name!r} does not belong to this space "
                f"({error}). Choose another study_name, or restore the storage."
            ) from error
        return config, score if score is None or math.isfinite(score) else None

    def close(self) -> None:
        """Give up all trials that were not told, and close the storage."""
        for number in sorted(self._untold):
            self._finish(number, self._states.FAIL)
        self._untold.clear()
        self._stop()
        self._storage.remove_session()
        if engine := getattr(self._storage, "engine", None):
            engine.dispose()

    def __enter__(self) -> "OptunaSampler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _create(self, space: Space, count: int, num_trials: int | None) -> list[tuple[int, dict[str, Any]]]:
        """Return new trials that are among the first `num_trials` trials not given up.

        Other processes may create trials at the same time. Trials are numbered consecutively, and each counts those
        before it: the last kept trial has therefore seen all others, and there are never too many.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        created = []
        for _ in range(count):
            trial = self._study.ask()
            with suppress(UpdateFinishedTrialError):  # other processes presumed this one dead and gave up its trial
                trial.set_user_attr(_WORKER, self._worker)
                created.append(trial)
        earlier = self._trials()
        kept = []
        for trial in created:
            before = sum(one.number < trial.number and one.state != self._states.FAIL for one in earlier)
            if num_trials is not None and before >= num_trials:
                self._finish(trial.number, self._states.FAIL)
            else:
                with suppress(UpdateFinishedTrialError):
                    kept.append((trial.number, suggest(space, trial)))
                    self._untold.add(trial.number)
        return kept

    def _finish(self, number: int, state: Any, value: float | None = None) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._study.tell(number, value, state=state)
        except (ValueError, UpdateFinishedTrialError):
            states = {trial.number: trial.state for trial in self._trials()}
            if states.get(number) != self._states.FAIL:
                raise
            return False
        return True

    def _look(self) -> tuple[int, int]:
        """Return the numbers of finished or running trials and of finished ones; give up the trials of dead workers.

        Heartbeats are compared with earlier ones instead of a clock, because the clocks of machines differ.
        """
        beats, now = self._attributes(), time.monotonic()
        trials = self._trials()
        running = [trial for trial in trials if trial.state == self._states.RUNNING]
        for trial in running:
            worker = str(trial.user_attrs.get(_WORKER, f"of trial {trial.number}"))
            beat = beats.get(f"{_WORKER}:{worker}")
            if worker not in self._signs or self._signs[worker][0] != beat:
                self._signs[worker] = beat, now
            if worker != self._worker and now - self._signs[worker][1] > _MISSED_BEATS * self._heartbeat:
                self._finish(trial.number, self._states.FAIL)
        finished = sum(trial.state in (self._states.COMPLETE, self._states.PRUNED) for trial in trials)
        return finished + len(running), finished

    def _attributes(self) -> dict[str, Any]:
        with reading(self._name):
            return self._study.user_attrs

    def _check_space(self, space: Space) -> None:
        stored = self._attributes().get(_SPACE)
        if stored is None:
            with reading(self._name):
                self._study.set_user_attr(_SPACE, space.describe())
        elif not isinstance(stored, dict):
            raise ValueError(
                f"The study {self._name!r} has no space, but {describe_argument(stored)} in its place. "
                "Choose another study_name, or restore the storage."
            )
        elif stored != space.describe():
            names = [name for name in stored | space.describe() if stored.get(name) != space.describe().get(name)]
            raise ValueError(
                f"The study {self._name!r} has another space, which differs in {', '.join(names)}. Use "
                "the same space, or choose another study_name."
            )

    def _beat(self) -> Any:
        """Return the event that stops the heartbeats, which it starts; they also stop when this object is deleted."""
        stopped = threading.Event()
        study, key, period = self._study, f"{_WORKER}:{self._worker}", self._heartbeat

        def beat() -> None:
            count = 0
            while not stopped.wait(period if count else 0.0):
                count += 1
                try:
                    study.set_user_attr(key, count)
                except Exception:  # the storage is busy or unavailable; `tell` raises if it matters
                    continue

        thread = threading.Thread(target=beat, name="heartbeat of an Optuna worker", daemon=True)
        thread.start()

        def stop() -> None:
            stopped.set()
            thread.join(period)

        return weakref.finalize(self, stop)


def _no_beats() -> None:
    """Do nothing: a study in memory has no other workers."""
