"""Beginning, resuming and closing a run: everything around the loop that touches data, folder and checkpoint."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from convoxel import models
from convoxel.data import DataSet, Sample
from convoxel.data.geometry import Geometry
from convoxel.data.set_survey import SetSurvey
from convoxel.data.split_file import write_split
from convoxel.errors import CheckpointError, ConfigError, DataError
from convoxel.files.atomic import is_unfinished, open_atomic, remove_unfinished, write_json, write_text
from convoxel.files.fault import plural
from convoxel.files.folder import check_new_folder, new_folder
from convoxel.files.lock import LOCK, Hold, hold_lock
from convoxel.inspect import Summary, describe
from convoxel.models.weights import WeightReport
from convoxel.predict.case_statistics import REPLICATES
from convoxel.predict.device import choose_device, has_device
from convoxel.predict.evaluation import Evaluation, Request, evaluate_split
from convoxel.predict.example_pictures import Examples
from convoxel.predict.inference import build_predictor, place_run
from convoxel.predict.loss_terms import plan_loss
from convoxel.predict.trained_run import DataFacts, TrainedRun
from convoxel.train.augment import Augmentation
from convoxel.train.batch_norm import slow_statistics
from convoxel.train.checkpoint import Store
from convoxel.train.config import TrainConfig
from convoxel.train.defaults import PlannedRun, Reasons, Scale, plan_computation, plan_run
from convoxel.train.geometry_plan import GeometryPlan, geometry_of, plan_geometry
from convoxel.train.intensity_plan import measure_normalisation
from convoxel.train.label_survey import LabelSurvey
from convoxel.train.mirroring import plan_mirroring
from convoxel.train.optimisation import build_optimiser, freeze, hold_constraints
from convoxel.train.pace import Pace, check_budget, measure_pace, now
from convoxel.train.process_group import ALONE, Processes
from convoxel.train.run_folder import load_data, load_model, read_facts
from convoxel.train.run_list import SPLIT
from convoxel.train.run_network import build_network, check_model, model_tensors
from convoxel.train.run_plan import RunPlan, describe_computation, describe_plan
from convoxel.train.run_record import RunRecord
from convoxel.train.step_budget import fit_budget
from convoxel.train.step_choice import choose_step
from convoxel.train.tracking import TRACKING, check_trackers
from convoxel.train.training_state import TrainingState
from convoxel.train.training_step import Forward, plan_step
from convoxel.train.watch import watch_classes
from convoxel.train.weight_mean import WeightMean

OnPlan = Callable[[RunPlan], None]


@dataclass
class TrainingRun:
    """A run that is being trained.

    Attributes:
        hold: the folder that it writes and holds.
        config: complete configuration.
        dataset: data that it trains on.
        facts: facts of these data, as checkpoints hold them.
        state: everything that changes.
        store: its checkpoints.
        record: its files for people; None in processes that are not the first.
        plan: everything that it chose, in words.
        pace: how long its parts take; zeros where nothing has to be planned by it.
        forward: the network as steps compute it.
        processes: the processes that train it together.
    """

    hold: Hold
    config: TrainConfig
    dataset: DataSet
    facts: DataFacts
    state: TrainingState
    store: Store
    record: RunRecord | None
    plan: RunPlan
    pace: Pace
    forward: Forward
    processes: Processes = ALONE

    @property
    def folder(self) -> Path:
        """The folder that it writes."""
        return self.hold.folder

    @property
    def model(self) -> nn.Module:
        """The network that is being trained."""
        return self.state.model

    def trained(self) -> TrainedRun[TrainConfig]:
        """Return the network as trained so far."""
        return TrainedRun(self.state.answering.eval(), self.config, self.facts, self.state.step, self.state.metric)

    def save(self) -> None:
        """Write a checkpoint of the state, into the folder in which the run began."""
        self.hold.check()
        self.store.save(self.state.tensors(), self.state.body(self.config, self.facts))

    def save_best(self) -> None:
        """Write the weights that answer now as the best ones so far, into that folder too."""
        self.hold.check()
        self.store.save_best(model_tensors(self.state.answering), self.state.body(self.config, self.facts))


def open_run(
    config: TrainConfig, stack: ExitStack, begun_s: float, on_plan: OnPlan, processes: Processes = ALONE
) -> TrainingRun:
    """Begin a run: check everything first, then make its folder with a checkpoint of step 0.

    Args:
        config: configuration as stated.
        stack: closes what the run holds.
        begun_s: when the run was asked for, by ``pace.now``.
        on_plan: called with the plan once everything is chosen.
        processes: the processes that train together, of which this is the first (default: one process).

    Raises:
        ConfigError: the folder exists and is not empty, the configuration does not fit the data, or the run is limited
            to less than its shortest time.
        DataError, CheckpointError: the file of weights cannot be used, or does not fit the network.
    """
    folder = Path(config.output)
    mend = "Give another --output"
    if (folder / "checkpoints").is_dir():
        mend += ", or --resume to go on with the run there"
    abandoned = is_abandoned(folder)
    if not abandoned:
        check_new_folder(folder, mend)
    planned = plan_training(config, stack, processes)
    config, dataset, facts, state, plan = planned.config, planned.dataset, planned.facts, planned.state, planned.plan
    on_plan(plan)
    pace = Pace()
    if config.minutes is not None:
        pace = measure_pace(processes.share(config), dataset, facts, state.model)
        check_budget(config, pace, now() - begun_s)
    if abandoned:
        _clear(folder)
    # Nothing is trained yet, so if this fails, no folder without a checkpoint stays in the way of a new try.
    with new_folder(folder, mend), ExitStack() as begun:
        hold = begun.enter_context(hold_lock(folder))
        run = _assemble(hold, config, dataset, facts, state, begun, plan, pace)
        write_json(folder / "describe.json", planned.summary.to_dict())
        write_split(folder / SPLIT, dataset)
        if planned.weights is not None:
            write_json(folder / "weights.json", {**planned.weights.to_dict(), "summary": str(planned.weights)})
        before_s = now()
        run.save()
        run.pace = run.pace._replace(save_s=now() - before_s)
        stack.push(begun.pop_all())
    return run


@dataclass(frozen=True)
class PlannedTraining:
    """A run before its first step, of which nothing is written yet.

    Attributes:
        stated: configuration as the user stated it, with the geometry of the data.
        config: complete configuration.
        reasons: why its entries are as they are, in words.
        dataset: data, on the network's grid.
        facts: facts of the data.
        state: network and optimiser.
        summary: what the network costs and sees.
        plan: all choices, in words.
        weights: what was taken from a file of weights; None without one.
    """

    stated: TrainConfig
    config: TrainConfig
    reasons: Reasons
    dataset: DataSet
    facts: DataFacts
    state: TrainingState
    summary: Summary
    plan: RunPlan
    weights: WeightReport | None


def plan_training(config: TrainConfig, stack: ExitStack, processes: Processes = ALONE) -> PlannedTraining:
    """Read the data and choose everything that ``config`` leaves open.

    Args:
        config: configuration as stated.
        stack: closes what the run holds of the device.
        processes: the processes that will train together (default: one process).

    Raises:
        ConfigError: the configuration does not fit the data.
        DataError, CheckpointError: data or the file of weights cannot be used.
    """
    check_model(config)
    check_trackers(config.track)
    if config.validation == "test":
        raise ConfigError(
            "validation: got 'test', but a part that chooses the checkpoint tests nothing; expected a count or a "
            "fraction of the training samples. Leave validation out to hold out 20 %."
        )
    loaded = _load(config)
    dataset, stated, geometry = loaded.dataset, loaded.config, loaded.geometry
    assert geometry is not None
    geometry.warn_of_unknown((entry.name, entry.affine, entry.spacing_mm) for entry in dataset.split("all").entries)
    mirroring = plan_mirroring(stated, loaded.labels, dataset.channels)

    def draft(scale: Scale) -> PlannedRun:
        return plan_run(
            stated,
            dims=dataset.dims,
            channels=dataset.channels,
            sizes=dataset.train.shapes,
            flip_axes=mirroring.axes,
            multi_label=dataset.multi_label,
            spacing_mm=dataset.spacing_mm,
            ranges=loaded.labels.ranges,
            scale=scale,
            processes=processes.count,
        )

    counts = loaded.labels.counts.tolist()[-len(dataset.outputs) :]
    plan_loss(draft(Scale()).config, dataset.outputs, counts)  # refuses weights of unknown classes before measuring
    config, reasons = fit_budget(draft, dataset, processes)
    reasons.update(dict.fromkeys(("spacing", "orientation"), loaded.reason), flip_axes=mirroring.reason)
    facts = DataFacts.from_data_set(dataset, measure_normalisation(config, dataset), geometry, counts)
    facts = replace(facts, painted=loaded.labels.painted)
    _hold_device(config, stack)
    state = _build_state(config, dataset)
    taken = None if config.weights is None else models.load_weights(state.model, config.weights)
    hold_constraints(config, state.model)
    summary = _describe(config, facts, state)
    config, measured = _settle_step(config, dataset, facts, state, processes)
    plan = _plan(config, dataset, facts, summary, reasons, measured)
    if processes.several:
        plan = plan.with_choice("processes", processes.describe(config))
    return PlannedTraining(stated, config, reasons, dataset, facts, state, summary, plan, taken)


def resume_run(
    config: TrainConfig, force: bool, stack: ExitStack, begun_s: float, on_plan: OnPlan, processes: Processes = ALONE
) -> TrainingRun:
    """Go on with the run in ``config.output``; arguments as of :func:`open_run`.

    Raises:
        CheckpointError: there is no run, no checkpoint is whole, or configuration or data differ and
            ``force`` is not given; the message lists the differences.
    """
    folder = Path(config.output)
    store = Store(folder)
    if is_abandoned(folder):
        path = folder / "config.yaml"
        config = config.merged(TrainConfig.from_yaml(path)) if path.exists() else config
        return open_run(config, stack, begun_s, on_plan, processes)
    if not store.folder.is_dir():
        raise CheckpointError(f"resume: {folder} holds no run. Leave --resume out to start one there.")
    hold = stack.enter_context(hold_lock(folder))
    store.settle()
    checkpoint = store.load()
    remove_unfinished(folder)
    stored, facts = read_facts(checkpoint.body, folder)
    written = _read_config(folder, stored)
    changes = config.difference(stored)
    told = {change.partition(":")[0] for change in changes}
    changes += [f"config.yaml: {edit}" for edit in written.edits(stored) if edit.partition(":")[0] not in told]
    config = _settle_device(config, config.merged(written), stored, facts.dims)
    loaded = _reload(config, folder, force)
    dataset, geometry = loaded.dataset, loaded.geometry
    if dataset.fingerprint != facts.fingerprint:
        changes.append(f"data: {facts.data_name} → {dataset.name} (its files differ)")
    if changes and not force:
        raise CheckpointError(
            f"resume: the run in {folder} was made otherwise: {'; '.join(changes)}. "
            "Leave these out (of config.yaml, too) to go on with it, give another --output, or --force to change it on "
            "the way."
        )
    _hold_device(config, stack)
    state = _build_state(config, dataset)
    counts = facts.class_counts or loaded.labels.counts.tolist()[-len(dataset.outputs) :]
    painted = facts.painted
    facts = DataFacts.from_data_set(dataset, facts.normalisation, geometry, counts)
    facts = replace(facts, painted=painted)
    share = processes.share(config)
    config, measured = _settle_step(config, dataset, facts, state, processes)
    state.restore(checkpoint, folder)
    if (config.minutes, config.epochs) != (stored.minutes, stored.epochs):
        state.fraction = 0.0  # measured anew against the new length
    plan = None if changes else RunPlan.read(folder)
    if plan is None:
        reasons = dict.fromkeys(("spacing", "flip_axes"), "as the run began")
        plan = _plan(config, dataset, facts, _describe(config, facts, state), reasons, measured)
    if config.device != stored.device:
        before = f"resumed; until step {state.step} on {stored.device}"
        plan = plan.with_choice("device", describe_computation(config, (*measured, before)))
    if processes.count != state.processes:
        before = f"{Processes(count=state.processes)} until step {state.step}, whose sums are rounded otherwise"
        plan = plan.with_choice("processes", f"{processes.describe(config)}; {before}")
        state.processes = processes.count
    on_plan(plan)
    limited = config.minutes is not None and state.fraction < 1.0
    pace = measure_pace(share, dataset, facts, state.model) if limited else Pace()
    run = _assemble(hold, config, dataset, facts, state, stack, plan, pace)
    if force:
        write_split(folder / SPLIT, dataset)
    if changes or any(getattr(config, name) != getattr(stored, name) for name in _COMPUTED):
        run.save()  # else a run that is killed now would differ from its config.yaml
    return run


def join_run(processes: Processes, config: TrainConfig, folder: Path, stack: ExitStack) -> TrainingRun:
    """Return the run that the first process has begun, in another one; nothing of its folder is written.

    Args:
        processes: the processes that train together.
        config: complete configuration, as the first process has it.
        folder: folder of the run, which holds a checkpoint.
        stack: closes what the run holds.

    Raises:
        CheckpointError: the folder is not the first process's.
        DataError: the data are others than the first process's.
    """
    store = Store(folder)
    checkpoint = store.load()
    _, stored = read_facts(checkpoint.body, folder)
    config, geometry = processes.place(config), geometry_of(config)
    read = load_data(config, run=folder)
    dataset = (geometry or Geometry()).training_data(read)
    if dataset.fingerprint != stored.fingerprint or len(dataset.train) != stored.parts.get("train", len(dataset.train)):
        raise DataError(
            f"data: {config.data} holds other files than it does for the first process. Give the same to all."
        )
    facts = DataFacts.from_data_set(dataset, stored.normalisation, geometry, stored.class_counts)
    facts = replace(facts, painted=stored.painted)
    _hold_device(config, stack)
    state = _build_state(config, dataset)
    plan_step(config).arrange(state.model, dataset.dims)
    if config.ema is not None:
        state.mean = WeightMean(state.model, config.ema)
    state.restore(checkpoint, folder)
    state.processes = processes.count
    hold = Hold(folder, None)  # the first process holds it
    return TrainingRun(hold, config, dataset, facts, state, store, None, RunPlan(()), Pace(), state.model, processes)


# What a run writes before its first checkpoint.
_BEGINNING = {
    LOCK,
    "config.yaml",
    "metrics.jsonl",
    "weights.json",
    "describe.json",
    "plan.json",
    SPLIT,
    "tensorboard",
    "wandb",
    TRACKING,
    "checkpoints",
}


def is_abandoned(folder: Path) -> bool:
    """Return whether a run began in a folder and was killed before its first checkpoint, so that nothing is lost.

    The lock file says that a run began; with any other file in it, the folder is somebody's.
    """
    try:
        names = {path.name for path in folder.iterdir() if not is_unfinished(path)}
    except OSError:
        return False
    return LOCK in names and names <= _BEGINNING and Store(folder).is_empty()


def _clear(folder: Path) -> None:
    """Remove what an abandoned run has left, unless it is only beginning in another process."""
    with hold_lock(folder):
        if not is_abandoned(folder):  # its first checkpoint came meanwhile
            raise CheckpointError(f"output: a run is in {folder}. Use --resume to go on with it.")
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()


def _read_config(folder: Path, stored: TrainConfig) -> TrainConfig:
    """Return the configuration that the run folder shows, which may have been edited; ``stored`` if it shows none."""
    path = folder / "config.yaml"
    if not path.exists():
        return stored
    try:
        found = TrainConfig.from_yaml(path)
    except ConfigError as error:
        raise CheckpointError(f"resume: {error} Correct it, or delete it: the checkpoint has the whole.") from None
    if stored.validation == "test" and found.validation is None:  # a run of an earlier version; see read_facts
        found = found.model_copy(update={"validation": "test"})
    return found


# Example pictures of the report: six of label maps, each drawn four times; a dozen of classified images.
_PICTURES = {"segment": 6, "classify": 12, "regress": 12}
# Images drawn in all by the bootstrap of the closing intervals, and its least number of resamples: about 3 seconds for
# ten thousand images of ten classes.
_RESAMPLED, _LEAST_REPLICATES = 2_000_000, 400


def finish_run(run: TrainingRun) -> Evaluation:
    """Measure the best weights on the validation part, write the closing files and return the metrics."""
    best = load_model(run.folder, "best")
    examples = Examples.of(len(run.dataset.validation), run.facts, _PICTURES[run.config.task])
    predictor = build_predictor(best, engine="torch", computation=place_run(best, "torch", run.config.device or "cpu"))
    # Thousands of images need fewer resamples for their narrow intervals, and a run keeps to its minutes.
    count = len(run.dataset.validation)
    request = Request(replicates=min(REPLICATES, max(_LEAST_REPLICATES, _RESAMPLED // max(1, count))))
    found = evaluate_split(predictor, run.dataset, "validation", examples.offer, request)
    watch_classes(run.state, found, run.facts.classes, done=True)
    write_json(run.folder / "evaluation.json", {**found, "warnings": list(run.state.warnings.values())})
    with open_atomic(run.folder / "examples.npz") as file:
        np.savez_compressed(file, **examples.arrays())  # type: ignore[arg-type]  # names of arrays are no options
    if not (run.folder / "describe.json").exists():  # runs of earlier versions write it last
        write_json(run.folder / "describe.json", describe(best.network, best.input_shape).to_dict())
    return found


@dataclass(frozen=True)
class _Loaded:
    """Data with training samples on the network's grid, facts of their labels, and where the geometry comes from."""

    dataset: DataSet
    labels: LabelSurvey
    config: TrainConfig
    geometry: Geometry | None
    reason: str


def _load(config: TrainConfig, run: Path | None = None, *, resumed: bool = False) -> _Loaded:
    """Return the data, split as those of ``run`` were, after every sample was read once.

    A run that is ``resumed`` keeps the geometry that its configuration states; those of earlier versions have none.
    """
    dataset = load_data(config, run=run)
    planned = (
        GeometryPlan(config, geometry_of(config), "as the run began") if resumed else plan_geometry(config, dataset)
    )
    rule = planned.geometry or Geometry()
    turned = Geometry(rule.orientation)  # sides are looked for along the axes of the network's grid
    labels, survey = LabelSurvey(dataset.classes, dataset.dims, dataset.regions), SetSurvey(dataset)

    def add(part: str, sample: Sample) -> None:
        survey.add(part, sample)
        if part == "train":
            labels.add(turned.sample(sample))

    problems = dataset.problems(add)
    if problems:
        listed = " ".join(problem.message for problem in problems[:3])
        more = f" … and {len(problems) - 3} more." if len(problems) > 3 else ""
        raise DataError(
            f"data: {plural(len(problems), 'sample')} cannot be used: {listed}{more} `convoxel data check` "
            "lists all; --set on_bad_sample=skip leaves them out."
        )
    for problem in survey.faults():
        raise DataError(f"data: {problem.message}")
    for words in survey.warnings():
        warnings.warn(f"data: {words}", RuntimeWarning, stacklevel=4)
    return _Loaded(rule.training_data(dataset), labels, *planned)


def _reload(config: TrainConfig, folder: Path, force: bool) -> _Loaded:
    """Return the data of a run that goes on, in the parts that it had; with ``force``, as the configuration says."""
    try:
        return _load(config, None if force else folder, resumed=True)
    except DataError:
        # Other data than the run's do not fit its parts; that they are others is what has to be said.
        return _load(config, resumed=True)


def _build_state(config: TrainConfig, dataset: DataSet) -> TrainingState:
    torch.manual_seed(config.seed)
    network = build_network(config, dataset.dims, dataset.channels, len(dataset.outputs))
    computation = plan_step(config)
    model = computation.arrange(network, dataset.dims)
    slow_statistics(model)
    freeze(config, model)
    scaler = torch.amp.GradScaler(computation.device.type, enabled=config.precision == "float16")
    return TrainingState(model, build_optimiser(config, model), scaler)


def _hold_device(config: TrainConfig, stack: ExitStack) -> None:
    """Keep PyTorch's switches, current device and generator of a GPU as a run needs them until ``stack`` closes."""
    computation = plan_step(config)
    stack.enter_context(computation.settings(deterministic=config.deterministic, repeated=True))
    if computation.device.type == "cuda":
        stack.enter_context(torch.cuda.device(computation.device))
        stack.enter_context(torch.random.fork_rng(devices=[computation.device.index], device_type="cuda"))


# Entries that suit a device, and are chosen anew for another.
_COMPUTED = ("channels_last", "compile", "num_workers", "engine")


def _settle_device(stated: TrainConfig, config: TrainConfig, stored: TrainConfig, dims: int) -> TrainConfig:
    """Return ``config`` for the device of a resumed run: the one that is stated, else its own if that is here.

    What suits one device may not suit another, so on another the rest is chosen anew, unless it is stated.
    """
    wanted = config.device or "cpu"
    if stated.device is None and not has_device(wanted):
        wanted = "auto"
    device = str(choose_device(wanted))
    left_open = () if device == stored.device else (name for name in _COMPUTED if name not in stated.stated())
    config = config.model_copy(update={**dict.fromkeys(left_open), "device": device})
    return config.model_copy(update=plan_computation(config, dims))


def _settle_step(
    config: TrainConfig, dataset: DataSet, facts: DataFacts, state: TrainingState, processes: Processes
) -> tuple[TrainConfig, tuple[str, ...]]:
    """Choose what is left open of a step's computation, and lay out the network accordingly."""
    chosen, measured = choose_step(processes.share(config), dataset, facts, state.model)
    config = config.model_copy(update={"channels_last": chosen.channels_last, "compile": chosen.compile})
    state.processes = processes.count
    plan_step(config).arrange(state.model, dataset.dims)
    if config.ema is not None:
        state.mean = WeightMean(state.model, config.ema)
    return config, measured


def _describe(config: TrainConfig, facts: DataFacts, state: TrainingState) -> Summary:
    """Return what the network costs and sees on an input as training gives it."""
    model = state.model if plan_step(config).device.type == "cpu" else copy.deepcopy(state.model).cpu()
    return describe(model, TrainedRun(model, config, facts, 0).input_shape)


def _plan(
    config: TrainConfig,
    dataset: DataSet,
    facts: DataFacts,
    summary: Summary,
    reasons: Reasons,
    measured: tuple[str, ...] = (),
) -> RunPlan:
    changes = Augmentation(config, facts.spacing_mm).words if config.augment.changes else ()
    return describe_plan(config, dataset, facts, summary, changes, reasons, measured)


def _assemble(
    hold: Hold,
    config: TrainConfig,
    dataset: DataSet,
    facts: DataFacts,
    state: TrainingState,
    stack: ExitStack,
    plan: RunPlan,
    pace: Pace,
) -> TrainingRun:
    folder = hold.folder
    events = config.tensorboard or "tensorboard" in config.track
    record = RunRecord(folder, tensorboard=events, step=state.step, track=config.track, config=config.to_dict())
    stack.callback(record.close)
    write_text(folder / "config.yaml", config.to_yaml())
    plan.write(folder)
    record.write_metrics(state.history)
    return TrainingRun(hold, config, dataset, facts, state, Store(folder), record, plan, pace, state.model)
