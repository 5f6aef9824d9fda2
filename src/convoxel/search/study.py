"""Training trials that several machines share: Optuna chooses them, exact arithmetic says which may be trained at all.

A study lives in a storage: a journal file, a data base, or this process's memory. Workers that name the same one take
turns at combinations of the same options. What a network costs is counted before a trial is trained: one outside the
budgets is told to the sampler as such and never trained, and no combination is trained twice. A worker gives signs of
life; when they end, another worker trains its trial again, from the last checkpoint where they share a folder.

Absent on purpose: the training itself, which is an argument.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convoxel.errors import ConfigError, ConvoxelError, UnsupportedError, check_choice
from convoxel.files.fault import brief
from convoxel.files.values import JsonObject
from convoxel.search.budget import Budget
from convoxel.search.candidate import Candidate
from convoxel.search.space import Choices, combination_number, combination_places, count_combinations

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("tpe", "nsga2")
# Seconds between signs of life, and after which a worker without one counts as dead; a restart of a file server is
# shorter.
_BEAT_S, _DEAD_S = 20.0, 180.0
_POLL_S = 1.0
_OPENINGS = 6  # tries to open a storage that others open too
# Combinations that are drawn in vain, outside the budgets or known already, before a new one is taken from all others.
_TRIES = 24
# Trials of workers that died are begun again so often.
_RETRIES = 3
# Networks that are counted to find one inside the budgets that was not drawn.
_MOST_COUNTED = 4096


class Pruned(Exception):
    """A trial's curve is worse than others' were at the same epoch."""


@dataclass(frozen=True)
class Trained:
    """One combination that a study trained.

    Attributes:
        number: number of the combination.
        quality: metric of the best checkpoint, or the last one of a curve that was stopped.
        stopped: whether its training was stopped early, since others' curves were better.
        figures: further figures, as the training returned them.
        retries: how often it was begun again because a worker died.
    """

    number: int
    quality: float
    stopped: bool
    figures: JsonObject = field(default_factory=dict)
    retries: int = 0


@dataclass(frozen=True)
class StudyResult:
    """The state of a study when this worker left it.

    Attributes:
        name: name of the study in its storage.
        trained: combinations that were trained, by all workers, in the order of the trials.
        outside: combinations that were drawn and lie outside the budgets.
        own: number of those that this worker trained.
        failed: why trainings failed, in words.
        complete: whether every combination inside the budgets was trained.
    """

    name: str
    trained: tuple[Trained, ...]
    outside: int
    own: int
    failed: tuple[str, ...]
    complete: bool


class Watch:
    """One trial, as its training sees it.

    Attributes:
        key: name of the trial in its study, which stays when another worker begins it again.
        retried: whether it does.
    """

    def __init__(self, trial: optuna.Trial, prunes: bool) -> None:
        self._trial, self._prunes, self._seen = trial, prunes, -1
        first = trial.user_attrs.get("first", trial.number)
        self.key, self.retried, self.last = f"trial-{first}", first != trial.number, 0.0

    def report(self, epoch: int, quality: float) -> None:
        """Tell the metric after an epoch; raises :class:`Pruned` where the study stops the trial."""
        self.last = quality
        if self._prunes and epoch > self._seen:
            self._seen = epoch
            self._trial.report(quality, epoch)
            if self._trial.should_prune():
                raise Pruned


Train = Callable[[int, Candidate, Watch], tuple[float, JsonObject]]
OnStudy = Callable[[int, int, str], None]


def run_study(
    vary: Choices,
    look: Callable[[int], Candidate | None],
    train: Train,
    *,
    name: str,
    budget: Budget | None = None,
    storage: str | None = None,
    sampler: str = "tpe",
    low: Sequence[Callable[[Candidate], float]] = (),
    trials: int | None = None,
    minutes: float | None = None,
    resume: bool = False,
    prune: bool = True,
    seed: int = 0,
    on_progress: OnStudy | None = None,
) -> StudyResult:
    """Train combinations of options until the study has enough, together with all workers that name the same storage.

    Args:
        vary: option → its values.
        look: returns the network of a combination by its number with exact costs, None where it is none.
        train: trains a combination; returns its quality and further figures. It may call ``watch.report`` after each
            epoch, and raises ConvoxelError where training fails.
        name: name of the study; workers of the same study give the same.
        budget: limits of what a network may cost (default: none).
        storage: ``journal:FILE``, or the address of a data base such as ``sqlite:///study.db`` (default: this process
            alone).
        sampler: "tpe" for the best quality, or "nsga2" for quality and ``low`` at once (default "tpe").
        low: costs that shall be low beside a high quality, with "nsga2".
        trials: trained combinations of the whole study (default: as many as there are).
        minutes: time after which this worker begins no further trial (default: none).
        resume: refuse to begin a new study (default False: what is there goes on, or begins).
        prune: stop trainings whose curve is below the median of the others (default True; never with "nsga2").
        seed: random seed of the sampler (default 0).
        on_progress: called with trials that are trained, of how many, and the options of the next one.

    Raises:
        UnsupportedError: Optuna is not installed. ConfigError: an argument is out of range, the storage cannot be
            opened, or no combination lies inside the budgets. ConvoxelError: every training failed.
    """
    check_choice("sampler", sampler, SAMPLERS)
    for word, value in (("trials", trials), ("minutes", minutes)):
        if value is not None and not value > 0:
            raise ConfigError(f"{word}: got {brief(value)}; expected a number above 0.")
    worker = _Worker(vary, look, budget or Budget(), low if sampler == "nsga2" else (), seed)
    worker.open(name, storage, sampler, resume, prune)
    return worker.run(train, trials, minutes, on_progress or (lambda done, total, what: None))


class _Worker:
    """One process at a study."""

    def __init__(
        self,
        vary: Choices,
        look: Callable[[int], Candidate | None],
        budget: Budget,
        low: Sequence[Callable[[Candidate], float]],
        seed: int,
    ) -> None:
        self._vary, self._look, self._budget, self._low, self._seed = vary, look, budget, low, seed
        self._size = count_combinations(vary)
        self._counted: dict[int, Candidate | None] = {}
        self._signs: dict[int, tuple[object, float]] = {}
        self._own, self._misses = 0, 0

    def open(self, name: str, storage: str | None, sampler: str, resume: bool, prune: bool) -> None:
        """Open the study, or begin it."""
        with _plain_optuna() as optuna:
            opened = _open_storage(optuna, storage)
            samplers = optuna.samplers
            # Workers draw otherwise than each other, and repeatably where there is one.
            seed = self._seed if storage is None else None
            common = {"seed": seed, "constraints_func": _excess}
            chosen = samplers.NSGAIISampler(**common) if sampler == "nsga2" else samplers.TPESampler(**common)
            directions = ["maximize", *["minimize"] * len(self._low)]
            self._prunes = prune and not self._low
            pruner = optuna.pruners.MedianPruner() if self._prunes else optuna.pruners.NopPruner()
            try:
                self._study = optuna.create_study(
                    storage=opened, study_name=name, sampler=chosen, pruner=pruner, directions=directions,
                    load_if_exists=True,
                )  # fmt: skip
            except Exception as error:  # of any data base
                raise ConfigError(f"storage: {brief(storage)} cannot be used ({brief(error)}). Give another.") from None
            self._states = optuna.trial.TrialState
            self._distributions = {
                option: optuna.distributions.IntDistribution(0, len(values) - 1)
                for option, values in self._vary.items()
            }
        if resume and not self._study.trials:
            raise ConfigError(f"resume: {storage or 'memory'} has no study {name!r}. Leave --resume out to begin it.")

    def run(self, train: Train, trials: int | None, minutes: float | None, tell: OnStudy) -> StudyResult:
        """Train until the study has enough, and return its state."""
        begun_s, longest_s, complete, last = time.monotonic(), 0.0, False, None
        total = min(trials or self._size, self._size)
        while True:
            self._revive()
            states = self._by_state()
            done = len(states["trained"]) + len(states["failed"])
            if done + len(states["running"]) >= total:
                if done >= total or not self._wait(states["running"]):
                    break
                continue
            if minutes is not None and time.monotonic() - begun_s + longest_s > 60 * minutes:
                break
            trial = self._ask(states)
            if trial is None:
                complete = not states["running"]
                if complete or not self._wait(states["running"]):
                    break
                continue
            number = combination_number(self._vary, [trial.params[option] for option in self._vary])
            candidate = self._count(number)
            assert candidate is not None  # else it was not drawn
            tell(done, total, candidate.name)
            trial_s = time.monotonic()
            last = self._train(trial, number, candidate, train) or last
            longest_s = max(longest_s, time.monotonic() - trial_s)
        states = self._by_state()
        trained = tuple(self._trained(trial) for trial in states["trained"])
        failed = tuple(str(trial.user_attrs["fault"]) for trial in states["failed"])
        if not trained and last is not None:
            raise last
        outside = len({str(trial.params) for trial in states["outside"]})
        if not trained and complete:
            raise ConfigError(f"budget: none of the combinations that were counted lies inside {self._budget.text()}.")
        return StudyResult(self._study.study_name, trained, outside, self._own, failed, complete)

    # ---- drawing ----

    def _ask(self, states: Mapping[str, Sequence[Any]]) -> optuna.Trial | None:
        """Return a trial of a combination inside the budgets that nobody has; None where there is no other."""
        while True:
            with _plain_optuna():
                trial: optuna.Trial = self._study.ask(self._distributions)
            number = combination_number(self._vary, [trial.params[option] for option in self._vary])
            candidate = self._count(number)
            excess = {"network": 1.0} if candidate is None else self._budget.excess(candidate)
            if excess:
                trial.set_user_attr("excess", sum(excess.values()))
                self._tell(trial, self._states.PRUNED)
            elif "first" in trial.user_attrs or not self._is_taken(trial):
                self._misses = 0
                return trial
            else:
                trial.set_user_attr("repeated", True)
                self._tell(trial, self._states.FAIL)  # which samplers leave out
            self._misses += 1
            if self._misses >= _TRIES:
                new = self._find_new()
                if new is None:
                    return None
                self._study.enqueue_trial(dict(zip(self._vary, combination_places(self._vary, new), strict=True)))

    def _is_taken(self, trial: optuna.Trial) -> bool:
        """Return whether an earlier trial has the same combination."""
        for _ in range(20):
            earlier = [each for each in self._study.get_trials(deepcopy=False) if each.number < trial.number]
            # Another worker's trial is there before its combination is.
            if all(each.state != self._states.RUNNING or len(each.params) == len(self._vary) for each in earlier):
                break
            time.sleep(0.05)
        return any(each.params == trial.params and _counts(each) for each in earlier)

    def _find_new(self) -> int | None:
        """Return a combination inside the budgets that no trial has, at random; None where none is found."""
        taken = {
            combination_number(self._vary, [each.params[option] for option in self._vary])
            for each in self._study.get_trials(deepcopy=False)
            if len(each.params) == len(self._vary) and (_counts(each) or "excess" in each.user_attrs)
        }
        order = random.Random(f"{self._seed} {len(taken)}")
        if self._size <= _MOST_COUNTED:
            left = [number for number in range(self._size) if number not in taken]
            order.shuffle(left)
        else:
            left = [number for number in order.sample(range(self._size), _MOST_COUNTED) if number not in taken]
        return next((number for number in left if self._is_inside(number)), None)

    def _is_inside(self, number: int) -> bool:
        candidate = self._count(number)
        return candidate is not None and not self._budget.excess(candidate)

    def _count(self, number: int) -> Candidate | None:
        if number not in self._counted:
            self._counted[number] = self._look(number)
        return self._counted[number]

    # ---- training ----

    def _train(self, trial: optuna.Trial, number: int, candidate: Candidate, train: Train) -> ConvoxelError | None:
        """Train a trial and tell the study; return the fault if it failed."""
        watch = Watch(trial, self._prunes)
        trial.set_user_attr("worker", _worker_name())
        with _signs_of_life(trial):
            try:
                quality, figures = train(number, candidate, watch)
            except Pruned:
                trial.set_user_attr("trained", {"quality": watch.last})
                self._tell(trial, self._states.PRUNED)
            except ConvoxelError as fault:
                trial.set_user_attr("fault", f"{candidate.name}: {fault}")
                self._tell(trial, self._states.FAIL)
                return fault
            except KeyboardInterrupt:
                self._begin_again(trial)
                raise
            else:
                trial.set_user_attr("trained", {"quality": quality, **figures})
                self._tell(trial, self._states.COMPLETE, [quality, *(cost(candidate) for cost in self._low)])
        self._own += 1
        return None

    def _tell(self, trial: optuna.Trial, state: optuna.trial.TrialState, values: list[float] | None = None) -> bool:
        """End a trial; False where another worker has ended it."""
        with _plain_optuna():
            try:
                self._study.tell(trial.number, values, state=state)
            except (ValueError, RuntimeError):  # it was finished meanwhile
                return False
        return True

    def _trained(self, trial: optuna.trial.FrozenTrial) -> Trained:
        figures = dict(trial.user_attrs["trained"])
        return Trained(
            combination_number(self._vary, [trial.params[option] for option in self._vary]),
            float(figures.pop("quality")),
            trial.state == self._states.PRUNED,
            figures,
            int(trial.user_attrs.get("retries", 0)),
        )

    # ---- other workers ----

    def _by_state(self) -> dict[str, list[optuna.trial.FrozenTrial]]:
        """Return the study's trials: trained, failed, running here or elsewhere, waiting, and outside the budgets."""
        found: dict[str, list[Any]] = {name: [] for name in ("trained", "failed", "running", "outside")}
        for trial in self._study.get_trials(deepcopy=False):
            attrs = trial.user_attrs
            if trial.state == self._states.RUNNING and "excess" not in attrs:
                found["running"].append(trial)
            else:
                name = next((word for word, key in _MARKS.items() if key in attrs), None)
                if name is not None and trial.state != self._states.RUNNING:
                    found[name].append(trial)
        return found

    def _revive(self) -> None:
        """Begin trials of dead workers again."""
        for trial in self._by_state()["running"]:
            if self._is_dead(trial):
                self._begin_again(trial)

    def _is_dead(self, trial: optuna.trial.FrozenTrial) -> bool:
        host, _, process = str(trial.user_attrs.get("worker", "")).partition(" ")
        if host == socket.gethostname() and process:
            return process != _process_name(int(process.partition(":")[0]))
        sign, now = (process, trial.user_attrs.get("sign")), time.monotonic()
        before = self._signs.get(trial.number)
        if before is None or before[0] != sign:
            self._signs[trial.number] = (sign, now)
            return False
        return now - before[1] > _DEAD_S

    def _begin_again(self, trial: Any) -> None:
        """End a trial whose worker is gone, and let the next worker begin its combination again."""
        retries, first = int(trial.user_attrs.get("retries", 0)) + 1, trial.user_attrs.get("first", trial.number)
        if len(trial.params) < len(self._vary):
            self._tell(trial, self._states.FAIL)
            return
        if self._tell(trial, self._states.FAIL):  # of several workers one comes first
            if retries <= _RETRIES:
                self._study.enqueue_trial(dict(trial.params), user_attrs={"first": first, "retries": retries})
                return
            with _plain_optuna() as optuna:
                failed = optuna.create_trial(
                    state=self._states.FAIL, params=dict(trial.params), distributions=self._distributions,
                    user_attrs={"fault": f"trial {first}: its worker died {retries} times"},
                )  # fmt: skip
                self._study.add_trial(failed)

    def _wait(self, running: Sequence[optuna.trial.FrozenTrial]) -> bool:
        """Wait for a change of trials that others train; False once all of these others are alive."""
        before = {trial.number: trial.user_attrs.get("sign") for trial in running}
        alive: set[int] = set()
        begun_s = time.monotonic()
        while time.monotonic() - begun_s <= _DEAD_S + _POLL_S:
            now = {trial.number: trial for trial in self._by_state()["running"]}
            if now.keys() != before.keys() or any(map(self._is_dead, now.values())):
                return True
            here = socket.gethostname()
            alive |= {number for number, trial in now.items()
                      if trial.user_attrs.get("sign") != before[number]
                      or str(trial.user_attrs.get("worker", "")).startswith(f"{here} ")}  # fmt: skip
            if alive >= before.keys():
                return False
            time.sleep(_POLL_S)
        return True


# State of a trial → the attribute that tells it.
_MARKS = {"trained": "trained", "failed": "fault", "outside": "excess"}


def _counts(trial: optuna.trial.FrozenTrial) -> bool:
    """Return whether a trial's combination is trained, failed, or being trained or about to be."""
    return bool({"trained", "fault"} & trial.user_attrs.keys()) or not (
        trial.state.is_finished() or "repeated" in trial.user_attrs or "excess" in trial.user_attrs
    )


def _excess(trial: optuna.trial.FrozenTrial) -> Sequence[float]:
    return (float(trial.user_attrs.get("excess", 0.0)),)


@contextmanager
def _plain_optuna() -> Iterator[Any]:
    """Yield Optuna without its log and its remarks on what is experimental in it."""
    try:
        import optuna
    except ImportError:
        raise UnsupportedError(
            "search: a study of trials needs Optuna, which is not installed. Run: pip install 'convoxel[search]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield optuna


def _open_storage(optuna: Any, storage: str | None) -> Any:
    """Return what a word for a storage names; None is this process's memory.

    Of workers that begin at once, one makes the tables of a data base, and the others' first try may fail.
    """
    for left in reversed(range(_OPENINGS)):
        try:
            return None if storage is None else _storage_of(optuna, storage)
        except ConfigError:
            raise
        except Exception as error:  # of any data base or file system
            if not left:
                mend = "Give another."
                raise ConfigError(f"storage: {brief(storage)} cannot be opened ({brief(error)}). {mend}") from None
            time.sleep(random.uniform(0.1, 0.5))


def _storage_of(optuna: Any, storage: str) -> Any:
    kind, _, rest = storage.partition(":")
    if kind == "journal" and rest:
        Path(rest).absolute().parent.mkdir(parents=True, exist_ok=True)
        journal = optuna.storages.journal
        return optuna.storages.JournalStorage(journal.JournalFileBackend(rest))
    if "://" in storage and kind in ("redis", "rediss"):
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalRedisBackend(storage))
    if "://" in storage:
        return optuna.storages.RDBStorage(storage)
    raise ConfigError(
        f"storage: got {brief(storage)}; expected journal:FILE, sqlite:///FILE or the address of a data base. "
        "For example journal:study.log."
    )


def _process_name(process: int) -> str | None:
    """Return number and start of a process of this machine; None where there is none."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except (OSError, OverflowError):
        pass  # somebody else's
    try:  # the kernel's clock tick of its start, after the name in parentheses: another process may get the number
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return f"{process}:"
    return None if state[0] == "Z" else f"{process}:{state[19]}"


def _worker_name() -> str:
    return f"{socket.gethostname()} {_process_name(os.getpid())}"


@contextmanager
def _signs_of_life(trial: optuna.Trial) -> Iterator[None]:
    """Change an attribute of a trial again and again while the block runs."""
    done = threading.Event()

    def live() -> None:
        count = 0
        while not done.wait(_BEAT_S):
            count += 1
            try:
                trial.set_user_attr("sign", count)
            except Exception:  # of any data base; the next sign may come through
                continue

    thread = threading.Thread(target=live, daemon=True, name="convoxel-trial")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_BEAT_S)
