"""What holds for any valid input, each stated as a property and searched for counterexamples."""

import json
from dataclasses import fields, replace

import numpy as np
import oracle
import pytest
import torch
from helpers import same_values
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra import numpy as arrays

from forgetlib import metrics
from forgetlib.data import splits, tasks
from forgetlib.data.base import Example, Task, ask, binarise, normalised
from forgetlib.engine import kernels, packing
from forgetlib.figures import bootstrap, crossanalysis, fig5, intervals, statements
from forgetlib.forgetting import loop
from forgetlib.forgetting.base import OPTIMIZERS, Training
from forgetlib.forgetting.dose import Dose
from forgetlib.forgetting.labels import LABELS, Labels, training_labels
from forgetlib.measuring import scoring
from forgetlib.measuring.base import (
    Dynamics,
    HiddenVariance,
    LogitLens,
    Loss,
    Probe,
    PromptNats,
    Scores,
)
from forgetlib.models import forward
from forgetlib.models.catalogue import DTYPES, TUNINGS
from forgetlib.runs import rows
from forgetlib.runs.records import Job, Record
from forgetlib.runs.specs import PLAIN, SPLITS, Checkpoint, Data, Measurement


def holds_for(n_examples):
    """Search this many examples, the same at every call, however slow the machine."""
    return settings(max_examples=n_examples, deadline=None, derandomize=True)


# Any text that can be written as UTF-8: control characters and NUL, all scripts, emoji.
texts = st.text(min_size=1, max_size=6)
shares = st.floats(0, 1, allow_subnormal=False)
seeds = st.integers(0, 2**31)
reals = st.floats(-1e6, 1e6, allow_subnormal=False)

# --- checkpoints, measurements, records ----------------------------------------------------------

trainings = st.builds(
    Training,
    learning_rate=st.floats(1e-9, 0.99),
    epochs=st.integers(1, 50),
    batch_size=st.integers(1, 512),
    warmup=shares,
    weight_decay=st.floats(0, 1, allow_subnormal=False).map(abs),
    max_grad_norm=st.floats(1e-6, 1e9),
    optimizer=st.sampled_from(OPTIMIZERS),
    until=st.none() | st.builds(Dose, st.floats(0.5, 0.99)),
)
names = st.lists(texts, min_size=1, max_size=3, unique=True).map(tuple)
SHARED = ("model", "tuning", "dtype")  # by all of a lineage


@st.composite
def checkpoints(draw, start=2, like=None):
    """A checkpoint of any settings, with at most `start` ancestors."""
    like = like or {
        "model": draw(texts),
        "tuning": draw(st.sampled_from(TUNINGS)),
        "dtype": draw(st.sampled_from(DTYPES)),
        "split": draw(seeds),
    }
    condition = draw(st.sampled_from(("base", *LABELS)))
    if condition == "base":
        return Checkpoint(like["model"], dtype=like["dtype"])
    return Checkpoint(
        method=Labels(condition, draw(trainings)),
        start=draw(st.none() | checkpoints(start=start - 1, like=like)) if start else None,
        data=Data(draw(names), draw(st.integers(1, 10**9)), like["split"]),
        seed=draw(seeds),
        **{name: like[name] for name in SHARED},
    )


# Of numbers, whole ones: 1 and 1.0 are equal, and JSON tells them apart.
settings_of = st.recursive(
    st.none() | st.integers(2, 2**60) | texts,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@st.composite
def measurements(draw):
    asked = draw(st.booleans())
    return Measurement(
        readout=draw(texts),
        task=draw(texts) if asked else "",
        split=draw(st.sampled_from(SPLITS)) if asked else "",
        n=draw(st.integers(1 if asked else 0, 10**9)),
        seed=draw(seeds),
        view=draw(st.just(PLAIN) | texts),
        fit_on=draw(st.integers(0, 10**9)),
        settings=draw(st.dictionaries(texts, settings_of, max_size=3)),
    )


def with_settings(checkpoint, like):
    """The checkpoint with the settings that all of a lineage share."""
    start = None if checkpoint.start is None else with_settings(checkpoint.start, like)
    if checkpoint.method is None:
        return Checkpoint(**{k: v for k, v in like.items() if k in ("model", "dtype")})
    return replace(checkpoint, **like, start=start)


def values_of(spec):
    return {f.name: getattr(spec, f.name) for f in fields(spec)}


def shuffled(values, draw):
    """The same nested dictionary, in another order at every level."""
    if not isinstance(values, dict):
        return values
    return {key: shuffled(values[key], draw) for key in draw(st.permutations(sorted(values)))}


@holds_for(60)
@given(checkpoints() | measurements())
def test_a_checkpoint_and_a_measurement_come_back_from_json(one):
    again = type(one).from_dict(json.loads(json.dumps(one.to_dict())))
    assert again == one and hash(again) == hash(one)
    assert again.id == one.id
    assert getattr(again, "lineage", None) == getattr(one, "lineage", None)


@holds_for(40)
@given(checkpoints() | measurements(), st.data())
def test_an_id_does_not_depend_on_the_order_of_construction(one, data):
    again = type(one).from_dict(shuffled(one.to_dict(), data.draw))
    assert again.id == one.id
    reordered = shuffled(values_of(one), data.draw)
    assert type(one)(**reordered).id == one.id


@holds_for(40)
@given(checkpoints(), st.lists(measurements(), min_size=1, max_size=4, unique=True), st.data())
def test_the_id_of_a_job_does_not_depend_on_the_order_of_what_is_asked(one, asked, data):
    if one.data is not None:  # of one split
        asked = [replace(m, seed=one.data.seed) if m.task else m for m in asked]
        asked = list(dict.fromkeys(asked))
    job = Job(one, tuple(asked))
    assert Job(one, tuple(data.draw(st.permutations(asked)))).id == job.id
    if len(asked) > 1:
        assert Job(one, tuple(asked[1:])).id != job.id


OTHERS = {
    "n": lambda n: n + 1,
    "tasks": lambda names: (*names, "".join(names) + "x"),
}
OTHER_SETTINGS = {
    "learning_rate": lambda rate: np.nextafter(rate, 0),
    "warmup": lambda share: np.nextafter(share, 0.5 if share != 0.5 else 1),
    "weight_decay": lambda decay: np.nextafter(decay, 2),
    "max_grad_norm": lambda norm: np.nextafter(norm, 2e9),
    "epochs": lambda n: n + 1,
    "batch_size": lambda n: n + 1,
    "optimizer": lambda name: next(other for other in OPTIMIZERS if other != name),
    "until": lambda dose: Dose() if dose is None else Dose(np.nextafter(dose.most, 0.55)),
}


@holds_for(40)
@given(checkpoints())
def test_the_smallest_change_of_any_setting_changes_a_checkpoint_s_id(one):
    shared = {"model": one.model + "x"}
    for name, allowed in (("tuning", TUNINGS), ("dtype", DTYPES)):
        shared[name] = next(other for other in allowed if other != getattr(one, name))
    if one.method is None:
        del shared["tuning"]  # of what is not trained
    changed = [with_settings(one, {k: v}) for k, v in shared.items()]
    if one.method is not None:
        changed += [
            replace(one, data=replace(one.data, **{k: change(getattr(one.data, k))}))
            for k, change in OTHERS.items()
        ]
        changed += [replace(one, seed=one.seed + 1), replace(one, start=one)]
        assert set(OTHER_SETTINGS) == {f.name for f in fields(Training)}
        for name, change in OTHER_SETTINGS.items():
            value = getattr(one.method.training, name)
            other = change(value)
            other = other if isinstance(other, Dose) else type(value)(other)
            training = replace(one.method.training, **{name: other})
            changed.append(replace(one, method=replace(one.method, training=training)))
        for labels in set(LABELS) - {one.method.labels}:
            changed.append(replace(one, method=replace(one.method, labels=labels)))
    ids = [one.id, *(other.id for other in changed)]
    assert len(set(ids)) == len(ids)


@holds_for(40)
@given(measurements())
def test_the_smallest_change_of_any_setting_changes_a_measurement_s_id(one):
    others = {
        "readout": one.readout + "x",
        "task": one.task + "x",
        "split": next(s for s in SPLITS if s != one.split),
        "n": one.n + 1,
        "seed": one.seed + 1,
        "view": one.view + "x",
        "fit_on": one.fit_on + 1,
        "settings": (*one.settings, ("".join(k for k, _ in one.settings) + "x", 1)),
    }
    assert set(others) == {f.name for f in fields(Measurement)}
    if not one.task:
        del others["task"], others["split"]  # of what is asked about no questions
    ids = [one.id, *(replace(one, **{k: v}).id for k, v in others.items())]
    assert len(set(ids)) == len(ids)


@holds_for(60)
@given(
    st.lists(checkpoints(), min_size=2, max_size=2)
    | st.lists(measurements(), min_size=2, max_size=2)
    | (checkpoints() | measurements()).map(lambda s: [s, replace(s)])
)
def test_there_is_one_id_exactly_where_all_is_equal(pair):
    one, other = pair
    assert (one == other) == (one.id == other.id)


@holds_for(60)
@given(checkpoints())
def test_the_base_of_a_checkpoint_depends_on_its_model_and_dtype_alone(one):
    assert one.base == Checkpoint(one.model, dtype=one.dtype)
    assert {c.base.id for c in one.lineage} == {one.base.id}
    assert all(c.method is not None for c in one.lineage[:-1])


@pytest.mark.parametrize("decay", [0, -0.0])
def test_settings_that_are_equal_have_one_id(decay):
    training = Training(1e-4, weight_decay=0.0)
    one = Checkpoint("tiny", Labels("true", training), data=Data(("t",), 1))
    other = replace(one, method=Labels("true", replace(training, weight_decay=decay)))
    assert one == other
    assert one.id == other.id


def floats32(*shape, **limits):
    """float32, of which 0 is positive and none is too small for a processor to keep."""
    limits = {"allow_nan": False, "allow_infinity": False, "allow_subnormal": False} | limits
    elements = st.floats(width=32, **limits).map(lambda x: x + 0.0)
    return arrays.arrays(np.float32, shape, elements=elements)


def of_integers(dtype, shape, low, high):
    return arrays.arrays(dtype, shape, elements=st.integers(low, high))


@st.composite
def scores(draw, most_choices=4):
    n, c = draw(st.integers(1, 4)), draw(st.integers(2, most_choices))
    return Scores(
        tuple(draw(st.lists(texts, min_size=n, max_size=n, unique=True))),
        draw(floats32(n, c)),
        draw(of_integers(np.int32, (n, c), 1, 2**31 - 1)),
        draw(of_integers(np.int64, (n,), 0, c - 1)),
    )


@st.composite
def dynamics(draw):
    s, n = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return Dynamics(
        np.cumsum(draw(of_integers(np.int32, (s,), 1, 1000)), dtype=np.int32),
        tuple(draw(st.lists(texts, min_size=n, max_size=n, unique=True))),
        draw(floats32(s, n, min_value=0, max_value=1)),
    )


@st.composite
def probes(draw):
    p, n, c, k = (draw(st.integers(1, 3)) for _ in range(4))
    return Probe(
        np.arange(p, dtype=np.int16),
        draw(arrays.arrays(bool, (p, n, c))),
        draw(floats32(k, p, min_value=0, max_value=1)),
    )


@st.composite
def variances(draw):
    n = draw(st.integers(1, 4))
    return HiddenVariance(draw(st.integers(0, 100)), draw(floats32(n, min_value=0)))


@st.composite
def lenses(draw):
    p, n, c = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(2, 3))
    uids, labels = tuple(f"t/x/{i}" for i in range(n)), np.arange(n) % c
    return LogitLens(uids, labels, np.arange(p, dtype=np.int16), draw(floats32(p, n, c)))


@st.composite
def prompt_nats(draw):
    return PromptNats(draw(floats32(draw(st.integers(1, 4)))))


@st.composite
def losses(draw):
    return Loss(draw(floats32(draw(st.integers(0, 3)))))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | reals | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)


@st.composite
def records(draw):
    """A record of any readout, whatever it is asked about."""
    value = draw(
        scores() | dynamics() | probes() | variances() | losses() | lenses() | prompt_nats()
    )
    asked = replace(draw(measurements()), readout=value.name)
    about = draw(st.dictionaries(texts, json_values, max_size=3))
    return Record(draw(checkpoints(start=1)), asked, value, about)


@holds_for(40)
@given(st.lists(records(), min_size=1, max_size=5, unique_by=lambda r: r.key))
def test_records_come_back_from_parquet_bit_for_bit_whatever_their_order(tmp_path_factory, some):
    folder = tmp_path_factory.getbasetemp()
    paths = [folder / f"{name}.parquet" for name in "ab"]
    for path, ordered in zip(paths, (some, some[::-1]), strict=True):
        rows.write_records(ordered, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    found = {r.key: r for r in rows.read_records(paths[0])}
    assert len(found) == len(some)
    for record in some:
        again = found[record.key]
        assert (again.checkpoint, again.measurement) == (record.checkpoint, record.measurement)
        assert again.provenance == record.provenance
        assert same_values(again.value, record.value)


# --- labels, distractors, splits -----------------------------------------------------------------


@st.composite
def examples(draw, most_choices=5):
    """Examples of one task with different uids, of two or more choices each."""
    rows = draw(st.lists(texts, min_size=1, max_size=12, unique=True))
    found = []
    for row in rows:
        c = draw(st.integers(2, most_choices))
        label = draw(st.integers(0, c - 1))
        found.append(Example(f"t/train/{row}", ("p",) * c, tuple("abcde"[:c]), label))
    return found


@holds_for(80)
@given(examples(), seeds, st.sampled_from(LABELS), st.data())
def test_a_label_does_not_depend_on_the_number_or_the_order_of_examples(
    batch, seed, condition, data
):
    whole = training_labels(batch, condition, seed).tolist()
    n = data.draw(st.integers(1, len(batch)))
    assert training_labels(batch[:n], condition, seed).tolist() == whole[:n]
    order = data.draw(st.permutations(range(len(batch))))
    again = training_labels([batch[i] for i in order], condition, seed)
    assert again.tolist() == [whole[i] for i in order]


@holds_for(80)
@given(examples(), seeds)
def test_flipped_is_a_wrong_choice_random_is_a_choice_and_true_is_the_truth(batch, seed):
    drawn = {c: training_labels(batch, c, seed) for c in LABELS}
    for example, true, random, flipped in zip(batch, *drawn.values(), strict=True):
        assert true == example.label
        assert 0 <= random < len(example.choices)
        assert 0 <= flipped < len(example.choices)
        assert flipped != example.label


@holds_for(60)
@given(examples(most_choices=2), seeds, st.data())
def test_a_random_label_does_not_depend_on_the_truth(batch, seed, data):
    others = data.draw(st.lists(st.integers(0, 1), min_size=len(batch), max_size=len(batch)))
    changed = [replace(e, label=label) for e, label in zip(batch, others, strict=True)]
    one, other = (training_labels(b, "random", seed).tolist() for b in (batch, changed))
    assert one == other


@st.composite
def questions(draw):
    """Any choices: equal ones, empty ones, white space, other scripts."""
    choice = st.sampled_from(["a", "b", "a b", "", " ", "\n"]) | st.text(max_size=4)
    choices = draw(st.lists(choice, min_size=1, max_size=6))
    same_prompt = draw(st.booleans())
    prompt = st.sampled_from(["p", "q", " ", ""])
    prompts = [draw(prompt)] * len(choices) if same_prompt else [draw(prompt) for _ in choices]
    gold = draw(st.integers(0, len(choices) - 1))
    return tasks.Question(tuple(prompts), tuple(choices), gold)


@holds_for(200)
@given(questions(), seeds, texts)
def test_a_binarised_question_has_its_true_response_and_another_or_there_is_none(
    question, seed, row
):
    pairs = list(zip(question.prompts, question.choices, strict=True))
    true = pairs[question.gold]
    others = {p for p in pairs if p != true and p[1].strip()}
    assume(all(p.strip() for p, _ in others))
    example = binarise(question, f"t/test/{row}", seed)
    if not others or not all(text.strip() for text in true):
        assert example is None
        return
    made = list(zip(example.prompts, example.choices, strict=True))
    assert made[example.label] == true
    assert made[1 - example.label] in others
    assert binarise(question, f"t/test/{row}", seed) == example


@holds_for(100)
@given(questions(), seeds, texts, st.data())
def test_the_order_in_which_a_source_lists_the_choices_does_not_matter(question, seed, row, data):
    assume(all(p.strip() for p in question.prompts))
    order = data.draw(st.permutations(range(len(question.choices))))
    moved = tasks.Question(
        tuple(question.prompts[i] for i in order),
        tuple(question.choices[i] for i in order),
        order.index(question.gold),
    )
    uid = f"t/test/{row}"
    assert binarise(moved, uid, seed) == binarise(question, uid, seed)


@pytest.fixture
def remake():
    """Gives one's own task, named "remade", other rows."""

    def remade(rows):
        choices = ["yes", "no"]
        rows = [(f"all/{number}", {"q": asked}) for number, asked in rows]
        tasks.add(Task("remade", "f", "text", lambda: rows, lambda r: ask(r["q"], choices, 0)))

    yield remade
    tasks._TASKS.pop("remade", None)


def test_a_split_is_a_partition_that_shares_no_question_and_no_order_of_rows_changes_it(remake):
    @holds_for(40)
    @given(
        st.lists(st.sampled_from(["Why ?", "why  ?", "Who", "How", "ſ", "ß"]), max_size=30),
        seeds,
        st.data(),
    )
    def holds(asked, seed, data):
        rows = list(enumerate(asked))
        remake(rows)
        found = splits.split("remade", seed)
        uids = [e.uid for e in (*found.train, *found.test)]
        assert len(set(uids)) == len(uids) == len(rows) - found.n_overlap
        train, test = ({normalised(e) for e in p} for p in (found.train, found.test))
        assert not train & test
        if found.train:
            n = data.draw(st.integers(1, len(found.train)))
            assert splits.load("remade", "train", n, seed) == list(found.train[:n])
        remake(data.draw(st.permutations(rows)))
        assert splits.split("remade", seed) == found

    holds()


# --- statistics ----------------------------------------------------------------------------------


@holds_for(150)
@given(shares, shares, shares)
def test_a_forget_ratio_is_missing_exactly_where_there_was_nothing_to_lose(tuned, forgotten, floor):
    ratio = metrics.forget_ratio(tuned, forgotten, floor)
    assert np.isnan(ratio) == (tuned <= floor)
    assert np.isnan(metrics.forget_ratio(tuned, forgotten)) == (tuned <= 0.5)
    assert np.isnan(metrics.flipped_forget_ratio(tuned, forgotten)) == (tuned <= 1 - tuned)


@holds_for(150)
@given(st.floats(0.51, 1), shares, shares)
def test_a_forget_ratio_falls_with_what_is_kept_from_one_at_the_floor_to_zero(tuned, a, b):
    for ratio, floor in ((metrics.forget_ratio, 0.5), (metrics.flipped_forget_ratio, 1 - tuned)):
        assert ratio(tuned, floor) == pytest.approx(1)
        assert ratio(tuned, tuned) == 0
        less, more = sorted((a, b))
        assert ratio(tuned, less) >= ratio(tuned, more)
        between = floor <= a <= tuned
        assert between == (-1e-9 <= ratio(tuned, a) <= 1 + 1e-9) or abs(a - floor) < 1e-9
    assert -0.5 <= metrics.forget_gap(a) <= 0.5
    assert (metrics.forget_gap(a) <= metrics.forget_gap(b)) == (a <= b) or abs(a - b) < 1e-15


@holds_for(50)
@given(arrays.arrays(float, (2, 3, 4), elements=shares), st.data())
def test_a_forget_ratio_of_arrays_is_a_loop_over_their_numbers(accuracies, data):
    tuned, forgotten = accuracies
    for ratio in (metrics.forget_ratio, metrics.flipped_forget_ratio):
        found = ratio(tuned, forgotten)
        assert found.shape == (3, 4)
        loop = [ratio(float(a), float(b)) for a, b in zip(tuned.flat, forgotten.flat, strict=True)]
        assert found.ravel() == pytest.approx(loop, nan_ok=True)


@holds_for(80)
@given(scores(most_choices=2), st.floats(-100, 100))
def test_confidence_is_a_probability_above_one_half_exactly_where_the_answer_is_right(found, shift):
    values = np.clip(found.log_likelihoods, -300, 0).round(3)
    found = replace(found, log_likelihoods=values)
    confidence = metrics.confidence(found)
    assert ((confidence >= 0) & (confidence <= 1)).all()
    assert metrics.choice_probs(found).sum(1) == pytest.approx(1)
    differ = values[:, 0] != values[:, 1]
    assert ((confidence > 0.5) == metrics.correct(found))[differ].all()
    assert confidence[~differ] == pytest.approx(0.5)
    shifted = replace(found, log_likelihoods=values.astype(float) + shift)
    assert metrics.confidence(shifted) == pytest.approx(confidence)
    swapped = replace(found, log_likelihoods=values[:, ::-1], labels=1 - found.labels)
    assert metrics.confidence(swapped) == pytest.approx(confidence)


thousandths = st.integers(0, 1000).map(lambda n: n / 1000)
samples = arrays.arrays(float, st.integers(2, 60), elements=thousandths)


def interval_of(values, **options):
    found = bootstrap.of_means([str(i) for i in range(len(values))], values[:, None])
    return bootstrap.resample([found], **options).interval(bootstrap.Measure(0))


@holds_for(40)
@given(samples, seeds)
def test_an_interval_of_a_mean_is_within_the_data_and_includes_that_of_symmetric_data(data, seed):
    symmetric = np.concatenate([data, 1 - data])
    for values in (data, symmetric):
        found = interval_of(values, seed=seed, n_resamples=500)
        assert values.min() - 1e-12 <= found.low <= found.high <= values.max() + 1e-12
    assert found.value == pytest.approx(0.5)
    assert found.low <= 0.5 + 1e-12
    assert found.high >= 0.5 - 1e-12


@holds_for(40)
@given(samples, st.data())
def test_the_order_of_examples_changes_no_value_and_no_interval_beyond_the_resamples_luck(
    data, draws
):
    order = draws.draw(st.permutations(range(len(data))))
    one, other = (interval_of(values, n_resamples=1000) for values in (data, data[list(order)]))
    assert one.value == pytest.approx(other.value)
    # An end is off by a few percent of a standard error, or by one step of few distinct means.
    allowed = 0.4 * data.std() / np.sqrt(len(data)) + 1.01 * np.ptp(data) / len(data)
    assert abs(one.low - other.low) <= allowed + 1e-12
    assert abs(one.high - other.high) <= allowed + 1e-12


@holds_for(40)
@given(samples, st.floats(0.1, 10), st.floats(-5, 5))
def test_an_interval_moves_and_stretches_with_the_data(data, scale, shift):
    one, other = (interval_of(values, n_resamples=200) for values in (data, scale * data + shift))
    for name in ("value", "low", "high"):
        moved = scale * getattr(one, name) + shift
        assert getattr(other, name) == pytest.approx(moved, abs=1e-9)


@st.composite
def paired(draw, least=2):
    """Two series of integers, with ties, as long as each other."""
    n = draw(st.integers(least, 12))
    return tuple(draw(of_integers(np.int64, (n,), -4, 4)) for _ in range(2))


@holds_for(80)
@given(paired(), st.data())
def test_rank_correlations_are_symmetric_within_one_and_unchanged_by_monotone_maps(pair, data):
    x, y = pair
    n = len(x)
    counts = data.draw(of_integers(np.int64, (5, n), 0, 3)).astype(float)
    found = intervals.rank_correlations(x, y, counts)
    constant = [len(set(x[c > 0])) < 2 or len(set(y[c > 0])) < 2 for c in counts]
    assert np.isnan(found).tolist() == constant
    assert (np.abs(found[np.isfinite(found)]) <= 1 + 1e-9).all()
    steps = data.draw(st.lists(st.integers(1, 1000), min_size=9, max_size=9))
    rising = np.cumsum(steps)[x + 4]
    for other, sign in (
        (intervals.rank_correlations(rising, y, counts), 1),
        (intervals.rank_correlations(x, y.astype(float) ** 3, counts), 1),
        (intervals.rank_correlations(y, x, counts), 1),
        (intervals.rank_correlations(-x, y, counts), -1),
    ):
        assert sign * other == pytest.approx(found, nan_ok=True)


@holds_for(80)
@given(paired(least=0))
def test_the_interval_of_a_rank_correlation_is_around_it_and_within_one(pair):
    x, y = pair
    found = intervals.rank_correlation(x, y)
    varied = len(set(x)) > 1 and len(set(y)) > 1
    assert np.isfinite(found.value) == varied
    assert np.isfinite(found.low) == np.isfinite(found.high) == (varied and len(x) >= 4)
    if np.isfinite(found.low):
        assert -1 - 1e-9 <= found.low <= found.value <= found.high <= 1 + 1e-9


@holds_for(100)
@given(
    st.sampled_from([statements.ABOVE, statements.BELOW, statements.WITHIN]),
    st.floats(0, 1),
    st.lists(st.floats(-2, 2), min_size=3, max_size=3).map(sorted),
)
def test_a_claim_and_its_opposite_never_both_hold_and_a_wider_interval_decides_no_more(
    statement, threshold, ends
):
    interval = intervals.Interval(ends[1], ends[0], ends[2])

    def judged(kind, interval):
        return statements.verdict(statements.Statement(kind, threshold, 0.0), interval, 0.9)

    found = judged(statement, interval)
    wider = intervals.Interval(ends[1], ends[0] - 0.5, ends[2] + 0.5)
    undecided = statements.UNDECIDED
    assert judged(statement, wider) in (found, undecided)
    above, below = statements.ABOVE, statements.BELOW
    if opposite := {above: below, below: above}.get(statement):
        holds, not_so = statements.HOLDS, statements.DOES_NOT_HOLD
        assert judged(opposite, interval) == {holds: not_so, not_so: holds}.get(found, found)
    missing = replace(interval, low=float("nan"))
    assert judged(statement, missing) == undecided


@holds_for(60)
@given(
    arrays.arrays(
        float,
        st.tuples(st.integers(0, 8), st.integers(1, 5)),
        elements=st.sampled_from([np.nan, 0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1),
    )
)
def test_the_leaves_of_a_tree_are_all_rows_once_with_the_empty_ones_last(matrix):
    order = crossanalysis.upgma(matrix)
    assert sorted(order) == list(range(len(matrix)))
    some = int(np.isfinite(matrix).any(1).sum())
    assert np.isfinite(matrix[order[:some]]).any(1).all()


@holds_for(80)
@given(dynamics(), shares)
def test_the_step_of_passing_is_the_first_of_a_loop(found, threshold):
    for direction in ("up", "down"):
        steps = fig5.passing_steps(found, threshold, direction)
        for i, values in enumerate(found.confidence.T):
            beyond = [(v >= threshold) == (direction == "up") for v in values]
            first = next((s for s, b in zip(found.steps, beyond, strict=True) if b), np.nan)
            expected = np.nan if beyond[0] else first
            assert steps[i] == pytest.approx(expected, nan_ok=True)


@holds_for(80)
@given(st.integers(1, 200), shares)
def test_the_learning_rate_rises_to_its_peak_then_falls_and_is_never_zero(n_steps, warmup):
    factors = [loop.learning_rate_factor(step, n_steps, warmup) for step in range(n_steps)]
    assert all(0 < f <= 1 for f in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert max(factors) == pytest.approx(1) or n_steps == 1


# --- packing and batching ------------------------------------------------------------------------

# Few different tokens, so that sequences share prompts, are prefixes of each other, or are equal.
sequences = st.lists(st.integers(1, 3), min_size=1, max_size=9).map(tuple)
some_families = st.lists(st.lists(sequences, min_size=1, max_size=4), min_size=1, max_size=6)
CPU = torch.device("cpu")


def visible(packed, row, column):
    """The columns that a token's attention reaches, by the layout's own rules."""
    start, mask = 0, None if packed.mask is None else packed.mask[row]
    for length, of_tree in packed.trees or ():
        mask = of_tree if of_tree is None else of_tree[0]
        if column < start + length:
            break
        start += length
    if mask is None:
        return set(range(start, column + 1))
    values = mask[0, column - start].tolist()
    assert set(values) <= {0, torch.finfo(mask.dtype).min}
    return {start + i for i, value in enumerate(values) if value == 0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", [*packing.WAYS, None])
def test_a_packed_token_is_at_its_place_and_sees_exactly_the_beginning_of_its_sequence(way, dtype):
    @holds_for(60)
    @given(some_families, st.integers(4, 40), st.sampled_from([1, 8]))
    def holds(families, row_tokens, multiple):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(packing.ROW_TOKENS, "cpu", row_tokens)
            patch.setitem(packing.ALIGNED, "cpu", multiple)
            packed = packing.pack(families, way, CPU, dtype)
        assert packed.mask is None or packed.mask.shape[-1] % multiple == 0
        every = [tokens for family in families for tokens in family]
        assert len(packed.places) == len(every)
        for tokens, (row, columns) in zip(every, packed.places, strict=True):
            assert len(columns) == len(tokens)
            for place, (token, column) in enumerate(zip(tokens, columns, strict=True)):
                assert packed.input_ids[row, column] == token
                assert packed.position_ids[row, column] == place
                assert visible(packed, row, column) == set(columns[: place + 1])

    holds()


@pytest.mark.parametrize("way", [*packing.WAYS, None])
def test_no_token_is_packed_that_is_not_needed(way):
    """Each different beginning stands once, and one row is as good as several equal ones."""

    @holds_for(60)
    @given(some_families, st.integers(4, 40))
    def holds(families, row_tokens):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(packing.ROW_TOKENS, "cpu", row_tokens)
            packed = packing.pack(families, way, CPU, torch.float32)
        used = {(row, column) for row, columns in packed.places for column in columns}
        if way is None:
            different = {tokens for family in families for tokens in family}
            assert len(packed.input_ids) == len(different)
            assert len(used) == sum(map(len, different))
            return
        sizes = [
            len({tokens[:n] for tokens in family for n in range(1, len(tokens) + 1)})
            for family in families
        ]
        assert len(used) == sum(sizes)
        n_rows, length = packed.input_ids.shape
        if way == "tree":
            assert (n_rows, length) == (1, sum(sizes))
        else:
            assert length <= max(row_tokens, *sizes)

    holds()


@st.composite
def encoded(draw):
    tokens = draw(st.lists(st.integers(1, 5), min_size=2, max_size=9))
    return forward.TokenSequence(tuple(tokens), draw(st.integers(1, len(tokens) - 1)))


@pytest.mark.parametrize("way", [*packing.WAYS, None])
def test_a_batch_asks_for_every_response_token_after_the_token_before_it(tiny, way):
    lm = replace(tiny, packs=way)

    @holds_for(40)
    @given(st.lists(st.lists(encoded(), min_size=1, max_size=3), min_size=1, max_size=4))
    def holds(families):
        batch = forward.collate(lm, families)
        every = [s for family in families for s in family]
        assert batch.n_sequences == len(every)
        asked = [[] for _ in every]
        for row, column, target, owner in zip(
            batch.rows, batch.columns, batch.targets, batch.owners, strict=True
        ):
            asked[owner].append((int(batch.packed.input_ids[row, column]), int(target)))
        for found, sequence in zip(asked, every, strict=True):
            pairs = list(zip(sequence.tokens, sequence.tokens[1:], strict=False))
            assert found == pairs[-sequence.n_response :]

    holds()


@pytest.mark.parametrize("way", [*packing.WAYS, None])
def test_any_examples_score_as_a_loop_of_single_sequences(tiny, way):
    """Prompts shared or not, choices that are prefixes of each other, any lengths and budget."""
    lm = replace(tiny, packs=way)
    words = sorted(tiny.tokenizer.get_vocab())[::40]
    phrase = st.lists(st.sampled_from(words), min_size=1, max_size=6).map(" ".join)
    two = st.lists(phrase, min_size=2, max_size=2)
    different = st.lists(phrase, min_size=2, max_size=2, unique=True)

    @holds_for(8)
    @given(
        st.lists(st.tuples(two, different), min_size=1, max_size=5),
        st.integers(1, 80),
    )
    def holds(drawn, budget):
        made = [
            Example(f"t/test/{i}", tuple(prompts if i % 2 else prompts[:1] * 2), tuple(choices), 0)
            for i, (prompts, choices) in enumerate(drawn)
        ]
        found = scoring.score(lm, made, token_budget=budget)
        assert found.log_likelihoods == pytest.approx(
            oracle.log_likelihoods(lm.model, lm.tokenizer, made), abs=1e-3
        )
        assert found.uids == tuple(e.uid for e in made)

    holds()


@holds_for(100)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=20),
    st.integers(-5, 120),
    st.booleans(),
    st.data(),
)
def test_groups_are_a_partition_in_order_and_each_is_as_large_as_the_budget_lets_it(
    lengths, budget, padded, data
):
    order = data.draw(st.permutations(range(len(lengths))))
    order = order[: data.draw(st.integers(0, len(order)))]
    groups = list(forward.by_token_budget(lengths, order, budget, padded=padded))
    assert [i for group in groups for i in group] == list(order)

    def size(group):
        chosen = [lengths[i] for i in group]
        return max(chosen) * len(chosen) if padded else sum(chosen)

    for number, group in enumerate(groups):
        assert len(group) == 1 or size(group) <= budget
        if number:
            assert size([*groups[number - 1], group[0]]) > budget


# --- kernels -------------------------------------------------------------------------------------


def normal(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@holds_for(15)
@given(
    st.integers(1, 30) | st.integers(600, 1310),
    st.integers(1, 24),
    st.integers(1, 30) | st.integers(510, 560),
    st.sampled_from([1, 2, 3]),
    seeds,
)
def test_a_product_of_any_shape_is_the_exact_one_rounded(rows, inner, columns, threads, seed):
    a, b = normal((rows, inner), seed), normal((inner, columns), seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads)
        found = kernels.product(a, b)
    exact = a.double() @ b.double()
    assert found.shape == exact.shape
    apart = (found.double() - exact).abs()
    assert (apart <= 2**-8 * exact.abs() + 2**-16 * inner).all()


@holds_for(60)
@given(st.integers(1, 70), st.integers(1, 140), seeds, st.booleans())
def test_a_transposed_copy_of_any_shape_is_the_transpose(rows, columns, seed, from_a_view):
    if kernels.library() is None:
        pytest.skip("no compiler")
    x = normal((columns, rows), seed).t() if from_a_view else normal((rows, columns), seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "widens", lambda: False)  # else it is a view, and copied later
        found = kernels._transposed(x)
    assert torch.equal(found, x.t())
    assert found.is_contiguous()
