"""Which jobs a study has: every section's, in an order that can be run, each once."""

from dataclasses import dataclass, replace
from itertools import product

import pytest
from helpers import small

from forgetlib.data import splits, views
from forgetlib.errors import InputError
from forgetlib.forgetting.base import Method
from forgetlib.measuring.base import Readout
from forgetlib.runs.grid import Study
from forgetlib.runs.records import Job
from forgetlib.runs.specs import Measurement
from forgetlib.studies import STUDIES, study


@dataclass(frozen=True)
class Nothing(Method, registered=False):
    """An edit that leaves the weights as they are."""

    name = "nothing"

    def edit(self, lm, context):
        pass


@pytest.mark.parametrize(
    ("name", "section"), [(n, section) for n in STUDIES for section in (None, *STUDIES[n].sections)]
)
def test_every_section_has_distinct_jobs_each_after_what_it_starts_from(name, section):
    jobs = STUDIES[name].jobs(section)
    keys = [key for job in jobs for key in job.keys]
    assert len({job.id for job in jobs}) == len(jobs)
    assert len(set(keys)) == len(keys)
    place = {job.checkpoint.id: i for i, job in reversed([*enumerate(jobs)])}
    for i, job in enumerate(jobs):
        if job.checkpoint.start:
            assert place[job.checkpoint.start.id] < i
    whole = {key for job in STUDIES[name].jobs() for key in job.keys}
    assert set(keys) <= whole


@pytest.mark.parametrize("protocol", ["pairwise", "shared"])
def test_of_each_task_the_base_model_comes_first_then_the_tuned_then_what_starts_from_it(protocol):
    chosen = small(protocol=protocol, methods=[Nothing()])
    jobs = chosen.jobs()
    of_task = [j for j in jobs if "tiny_city" in str(j).split(" > ")[0] and "+" not in str(j)]
    depths = [len(j.checkpoint.lineage) if j.checkpoint.method else 0 for j in of_task]
    assert depths[:3] == [0, 1, 2] and set(depths[3:]) == {2}
    assert [j.checkpoint.kind for j in chosen.jobs("methods")] == [
        *["base", "true", "random", "nothing"] * 2
    ]


@pytest.mark.parametrize(("name", "most"), [("embedded", 1), ("tiny", 1), ("paper", 1)])
def test_what_starts_from_one_model_stands_together_so_that_few_weights_are_kept(name, most):
    jobs = STUDIES[name].jobs()
    place = {job.checkpoint.id: i for i, job in enumerate(jobs)}
    last_child = {j.checkpoint.start.id: i for i, j in enumerate(jobs) if j.checkpoint.start}
    kept = [
        sum(place[start] <= i <= last for start, last in last_child.items())
        for i in range(len(jobs))
    ]
    assert max(kept) == most


def test_the_control_follows_the_seeds_of_a_variation():
    def seeds(chosen):
        return {j.seed for j in chosen.jobs("control")}

    assert seeds(STUDIES["embedded"]) == {0, 1, 2}
    assert seeds(study("embedded", seeds=[1])) == {1}
    assert seeds(STUDIES["quick"]) == {0}
    assert seeds(study("quick", seeds=[1])) == set()
    assert seeds(study("quick", seeds=[1], control_seeds=[1])) == {1}


def test_the_control_is_the_same_training_on_true_labels():
    chosen = STUDIES["embedded"]
    made = [j.checkpoint for j in chosen.jobs("control")]
    again = [c for c in made if c.kind == "true" and c.start]
    assert {c.task for c in again} == set(chosen.tasks)
    for checkpoint in again:
        own = chosen.own_jobs(checkpoint.task, checkpoint.seed, chosen.models[0])
        _, tuned, forgotten = (job.checkpoint for job in own)
        assert checkpoint.start == tuned
        labels = replace(checkpoint.method, labels="random")
        assert replace(checkpoint, method=labels) == forgotten


def pairs(chosen, kind):
    """(evaluated, forgotten) of the jobs of a cross-task section."""
    return {
        (m.task, job.checkpoint.task)
        for job in chosen.jobs({"random": "cross"}.get(kind, kind))
        if job.checkpoint.start and job.checkpoint.kind == kind
        for m in job.measurements
        if m.readout == "scores" and m.split == "test"
    }


@pytest.mark.parametrize("protocol", ["pairwise", "shared"])
@pytest.mark.parametrize("kind", ["random", "flipped"])
def test_cross_task_jobs_cover_every_pair(protocol, kind):
    chosen = study("tiny", protocol=protocol)
    assert pairs(chosen, kind) == set(product(chosen.tasks, repeat=2))
    for job in chosen.jobs("cross"):
        if job.checkpoint.start is None:
            continue
        evaluated = {m.task for m in job.measurements if m.split == "test"}
        started = job.checkpoint.start.tasks
        assert started == chosen.tasks if protocol == "shared" else set(started) == evaluated


@pytest.mark.parametrize("protocol", ["pairwise", "shared"])
@pytest.mark.parametrize("section", ["cross", "flipped"])
def test_cross_jobs_score_no_forgetting_set_but_the_evaluated_task_s_own(protocol, section):
    chosen = small(protocol=protocol)
    forgotten = [j for j in chosen.jobs(section) if j.checkpoint.start]
    assert len(forgotten) == len(chosen.tasks) ** (2 if protocol == "pairwise" else 1)
    for job in forgotten:
        trained_on = {m.task for m in job.measurements if m.split == "train"}
        evaluated = {m.task for m in job.measurements if m.split == "test"}
        assert trained_on == {job.checkpoint.task} & evaluated
    if protocol == "shared":  # nor do they what all start from was trained on
        (start,) = (j for j in chosen.jobs(section) if not j.checkpoint.start)
        assert all(m.split == "test" for m in start.measurements if m.task)


def test_a_task_s_own_job_is_the_diagonal_and_is_not_done_twice():
    chosen = study("tiny", protocol="pairwise")
    cross = [j for j in chosen.jobs("cross") if j.checkpoint.start]
    own = {j.id for j in chosen.jobs("own")}
    assert {j.id for j in cross if j.checkpoint.start.tasks == j.checkpoint.tasks} <= own
    n = len(chosen.tasks)
    assert len(chosen.jobs("cross")) == n + n + n * n  # base, fine-tuned, forgotten


def test_what_two_sections_ask_of_one_checkpoint_is_one_job():
    """Flipped labels in a section of their own and as a method: one training."""
    chosen = small(tasks=["tiny_city"])
    (flipped,) = (j for j in chosen.jobs("flipped") if j.checkpoint.kind == "flipped")
    both = replace(chosen, methods=(flipped.checkpoint.method,), views=("plain",))
    made = [j for j in both.jobs() if j.checkpoint == flipped.checkpoint]
    assert len(made) == 1
    assert set(made[0].keys) >= set(flipped.keys)


@pytest.mark.parametrize("protocol", ["pairwise", "shared"])
def test_pairs_of_some_tasks_are_those_of_a_study_of_these_alone(protocol):
    two = ("tiny_city", "tiny_praise")
    some = study("tiny", protocol=protocol, cross_tasks=two)
    assert some.jobs("own") == study("tiny").jobs("own")
    for section in ("cross", "flipped", "models"):
        alone = study("tiny", protocol=protocol, tasks=two)
        assert some.jobs(section) == alone.jobs(section)


def test_a_smaller_forgetting_set_starts_from_the_same_model_and_is_a_part_of_the_larger():
    chosen = study("tiny")
    smaller = [j.checkpoint for j in chosen.jobs("sizes") if j.checkpoint.n == 30]
    assert [c.task for c in smaller] == list(chosen.tasks)
    for checkpoint in smaller:
        own = [j.checkpoint for j in chosen.jobs("own")]
        full = next(c for c in own if c.start == checkpoint.start and c.start)
        one, other = (splits.load(c.task, "train", c.n, 0) for c in (checkpoint, full))
        assert other[:30] == one


def test_further_methods_views_and_readouts_are_asked_of_own_jobs(own_names):
    class Lengths(Readout, name="lengths"):
        """Nothing is measured here."""

    class Shown(views.View, name="nothing"):
        """Show an example as it is."""

        def shown(self, example):
            return example

    plain, more = small(), small(methods=[Nothing()], readouts=["lengths"], views=["nothing"])
    assert plain.jobs("methods") == ()
    edits = [j for j in more.jobs("methods") if j.checkpoint.kind == "nothing"]
    assert [(j.checkpoint.task, j.checkpoint.start.kind) for j in edits] == [
        ("tiny_city", "true"),
        ("tiny_review", "true"),
    ]
    for job in edits:  # what trains nothing has no loss
        assert {m.readout for m in job.measurements} == {"scores"}
    for before, job in zip(plain.jobs("own"), more.jobs("own"), strict=True):
        assert job.checkpoint == before.checkpoint
        asked = set(job.measurements) - set(before.measurements)
        assert {(m.readout, m.view, m.where) for m in asked} == {
            ("lengths", "plain", before.measurements[-1].where),
            ("scores", "nothing", before.measurements[-1].where),
        }


def test_the_settings_of_a_view_are_written_in_one_way(own_names):
    @dataclass(frozen=True)
    class Said(views.View, name="said"):
        """Show an example some times."""

        times: int

        def shown(self, example):
            return views.with_texts(example, lambda text: text * self.times)

    one, other = small(views=["said( 2 )"]), small(views=["said(2)"])
    assert one.views == ("said(2)",)
    assert one == other


def test_what_is_asked_for_twice_is_measured_once():
    again = small(readouts=["scores", "probe", "hidden_variance"], views=["plain"])
    assert again.jobs("own") == small().jobs("own")


@pytest.mark.parametrize("name", ["loss", "dynamics"])
def test_what_is_taken_in_training_is_no_further_readout(name):
    with pytest.raises(InputError, match=f"found '{name}', which is taken while a model is tr"):
        small(readouts=[name])


def test_nothing_is_recorded_where_a_study_says_so():
    def recorded(chosen):
        return [m for j in chosen.jobs("own") for m in j.measurements if m.readout == "dynamics"]

    assert recorded(small(records=0)) == []
    assert {m.n for m in recorded(small())} == {24}
    few = recorded(small(n_recorded=5))
    assert {(m.n, m.setting("records")) for m in few} == {(5, 2)}


@pytest.mark.parametrize("name", STUDIES)
def test_every_job_is_packed_in_one_block_with_what_it_is_compared_with(name):
    chosen = STUDIES[name]
    blocks = chosen.blocks()
    assert [j for of in blocks.values() for j in of] == sorted(
        chosen.jobs(), key=lambda j: list(blocks).index(chosen.block(j))
    )
    for jobs in blocks.values():
        assert len({j.seed for j in jobs}) == 1
        assert len({j.checkpoint.model for j in jobs}) == 1


def test_some_tasks_have_further_seeds_with_their_controls():
    chosen = small(control_seeds=[0], more_seeds=[1], more_seeds_tasks=["tiny_review"])
    for section, kinds in (("own", 3), ("control", 4)):
        jobs = chosen.jobs(section)
        seeds = [(j.seed, j.measurements[-1].task) for j in jobs]
        assert seeds.count((0, "tiny_city")) == kinds == seeds.count((0, "tiny_review"))
        assert seeds.count((1, "tiny_review")) == kinds and (1, "tiny_city") not in seeds
    assert {j.seed for j in study(chosen, seeds=[1]).jobs("own")} == {1}  # its own seeds alone
    assert study(chosen, tasks=["tiny_city"]).more_seeds_tasks == ()
    with pytest.raises(InputError, match=r"more_seeds of .* not among its seeds, found \[0\]"):
        replace(chosen, more_seeds=(0,))
    with pytest.raises(InputError, match=r"more_seeds_tasks of .* found 'tiny_praise'"):
        replace(chosen, more_seeds_tasks=("tiny_praise",))


def test_harm_elsewhere_is_asked_of_trained_models_with_the_control_in_full():
    chosen = small(control_seeds=[0], elsewhere=["tiny_colour", "tiny_city"], n_elsewhere=9)
    jobs = {(j.checkpoint.kind, *j.checkpoint.tasks): j for j in chosen.jobs("control")}
    base, tuned, random = chosen.own_jobs("tiny_city", 0, "tiny")
    expected = [Measurement("scores", "tiny_colour", "test", 9, 0)]
    for job in (tuned, random):
        assert [m for m in job.measurements if m.task == "tiny_colour"] == expected
        assert chosen.block(job) == "tiny_city-0"
    assert not [m for m in base.measurements if m.task == "tiny_colour"]
    again = [j for j in jobs.values() if len(j.checkpoint.lineage) == 2]
    assert len({j.measurements for j in again if j.checkpoint.task == "tiny_city"}) == 1
    with pytest.raises(InputError, match="task: expected one of"):
        replace(chosen, elsewhere=("tiny_cty",))


@pytest.mark.parametrize("protocol", ["pairwise", "shared"])
def test_pairs_have_a_control_by_true_labels(protocol):
    assert not small(protocol=protocol).jobs("cross_control")
    chosen = small(protocol=protocol, cross_control=True)
    kinds = {
        section: {
            (j.checkpoint.start.task, j.checkpoint.task, j.checkpoint.kind)
            for j in chosen.jobs(section)
            if j.checkpoint.start
        }
        for section in ("cross", "cross_control")
    }
    random, true = ({(a, b) for a, b, _ in kinds[s]} for s in ("cross", "cross_control"))
    assert random <= true
    assert ("tiny_city" if protocol == "pairwise" else "tiny_city+tiny_review") in {
        a for a, _, kind in kinds["cross_control"] if kind == "true"
    }


def test_a_block_s_name_is_a_file_s():
    """Also that of a model in a folder or on the hub, and of a task of the harness's."""
    chosen = replace(small(), models=("/a folder/of mine", "owner/model", "tiny"))
    assert {b.rsplit("-", 2)[0] for b in chosen.blocks()} == {"of-mine", "model", "tiny"}
    job = chosen.jobs()[0]
    asked = Job(job.checkpoint, (Measurement("scores", "harness:winogrande", "test", 1),))
    assert replace(chosen, models=("tiny",)).block(asked) == "harness-winogrande-0"


@pytest.mark.parametrize("name", ["Quick", "a b", "../up", "", "-x", "ä", 3])
def test_a_study_s_name_has_to_be_a_folder_s(name):
    like = STUDIES["tiny"]
    with pytest.raises(ValueError, match=r"name of a study: expected a-z, 0-9 and -"):
        Study(name, "", like.tasks, (0,), 8, 8, like.tuned, like.forgetting)
