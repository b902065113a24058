"""A method, a readout and a view of one's own: computed, stored, resumed, drawn, with no change
elsewhere.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import TEST_FOLDERS
from helpers import same_results, small

from forgetlib import metrics
from forgetlib.data import views
from forgetlib.figures import fig2, style
from forgetlib.figures.join import families
from forgetlib.forgetting.base import Method, Training
from forgetlib.measuring.base import Column, Readout
from forgetlib.models import forward
from forgetlib.runs import jobs, local
from forgetlib.runs.bench import Bench
from forgetlib.runs.grid import open_store
from forgetlib.runs.results import load_results, run

pytestmark = pytest.mark.usefixtures("brief_probes", "project")


BRIEF = Training(3e-3, epochs=4)


@dataclass(frozen=True)
class Toy(Method, registered=False):
    """Go up the loss of true responses, until the mean of `patience` losses is below `floor`."""

    training: Training = BRIEF
    floor: float = -5.5
    patience: int = 2

    def loss(self, lm, batch, context):
        return forward.response_log_likelihoods(lm, batch.inputs).sum() / batch.n_tokens

    def diverged(self, losses, worst):
        return None if np.isfinite(losses[-1]) else "a loss that is no number"

    def finished(self, step, losses, context):
        return step >= self.patience and losses[-self.patience :].mean() < self.floor


@dataclass(frozen=True)
class Noise(Method, registered=False):
    """Add noise to all weights: an edit, which trains nothing."""

    share: float = 0.5
    name = "toy_noise"

    def edit(self, lm, context):
        draw = context.generator("noise")
        lm.set_weights(
            {
                name: w + self.share * w.std() * torch.randn(w.shape, generator=draw)
                for name, w in sorted(lm.weights().items())
            }
        )


@pytest.fixture(autouse=True)
def _known(own_names):
    """Known while a test is running, as if their file had been imported."""
    from forgetlib.forgetting import base

    base._METHODS.update({cls.name: cls for cls in (Toy, Noise)})


def test_the_toy_is_as_short_as_promised():
    import inspect

    for cls in (Toy, Noise):
        assert len(inspect.getsource(cls).splitlines()) <= 40


@pytest.mark.parametrize("method", [Toy(), Toy(floor=-100.0), Noise()], ids=["toy", "on", "noise"])
def test_a_method_is_computed_stored_scored_and_drawn_by_its_name(method, tmp_path):
    chosen = small(methods=[method])
    found = run(chosen, "methods", progress=False)
    assert same_results(load_results(chosen, "methods"), found)
    made = [r for r in found if r.checkpoint.method == method]
    assert [r.checkpoint.task for r in made] == list(chosen.tasks)
    for result in made:
        losses = result.loss
        if isinstance(method, Noise):
            assert losses is None
        elif method.floor == -100:
            assert len(losses.loss) == 4 * 3  # all epochs
        else:  # by its own rule, and not a step later
            assert losses.loss[-2:].mean() < -5.5 <= losses.loss[-3:-1].mean()
            assert 2 <= len(losses.loss) < 4 * 3
        before = families(found, "random")["tiny", result.checkpoint.task, 24][0]["tuned"]
        where = f"{result.checkpoint.task}/train"
        then, now = (metrics.confidence(r.scores[where]).mean() for r in (before, result))
        assert now < then
    table = fig2.table(found, method.describe())
    assert table["eval_task"].tolist() == sorted(chosen.tasks)
    assert np.isfinite(table[["tuned", "forgotten", "forget_gap"]].to_numpy(float)).all()
    figure = fig2.draw(table)
    assert style.save(figure, table, "fig2_toy", chosen)
    told = figure.subfigs[0] if figure.subfigs else figure
    assert told is not None


def test_a_method_s_settings_tell_its_results_apart():
    chosen = small(tasks=["tiny_city"], methods=[Noise(), Noise(0.1), Noise(0.0)])
    found = run(chosen, "methods", progress=False)
    kinds = [r.checkpoint.kind for r in found[3:]]
    assert kinds == ["toy_noise", "toy_noise(share=0.1)", "toy_noise(share=0.0)"]
    _, tuned, _, half, tenth, none = (r.scores["tiny_city/test"].log_likelihoods for r in found)
    assert (none == tuned).all()
    apart = [np.abs(x - tuned).mean() for x in (tenth, half)]
    assert 0 < apart[0] < apart[1]


KILLED = """if True:
    import os, signal, sys
    sys.path[:0] = {folders}
    import test_extensions as t
    from functools import partial
    from forgetlib.forgetting import base
    from forgetlib.measuring import probing
    from forgetlib.runs import local
    probing.fit = partial(probing.fit, max_steps=3)
    base._METHODS.update({{cls.name: cls for cls in (t.Toy, t.Noise)}})
    done, do = [], local.run

    def counted(job, *rest):
        if len(done) == {n}:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(job)
        return do(job, *rest)

    local.run = counted
    t.run(t.of_both(), "methods", progress=False)
"""


def of_both():
    return small(tasks=("tiny_city",), methods=[Toy(), Noise()])


@pytest.mark.parametrize("n", [3, 4])
def test_a_study_of_own_methods_that_was_killed_goes_on_where_it_was(tmp_path, monkeypatch, n):
    code = KILLED.format(folders=TEST_FOLDERS, n=n)
    environment = os.environ | {"PYTHONPATH": str(Path(local.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    chosen, asked, do = of_both(), [], jobs.run
    assert sum(map(open_store(chosen).has, chosen.jobs("methods"))) == n
    monkeypatch.setattr(local, "run", lambda job, *a: asked.append(job) or do(job, *a))
    found = run(chosen, "methods", progress=False)
    assert asked == list(chosen.jobs("methods")[n:])
    monkeypatch.setenv("FORGETLIB_ROOT", str(tmp_path / "undisturbed"))
    assert same_results(run(of_both(), "methods", progress=False)[3:], found[3:])


@pytest.mark.parametrize("method", [Toy(), Noise()], ids=["toy", "noise"])
def test_a_part_of_a_job_that_is_stored_is_kept_and_the_rest_is_added(method):
    """As where a job was stored by a version that asked less."""
    chosen = small(tasks=("tiny_city",), methods=[method])
    whole = run(chosen, "methods", progress=False)[3]
    store = open_store(chosen)
    kept = [r for r in whole.records if r.value and r.measurement.where == "tiny_city/test"]
    for path in (store.work / "results").glob(f"{whole.checkpoint.id}*"):
        path.unlink()
    store.write(kept)
    again = run(chosen, "methods", progress=False)[3]
    assert same_results([again], [whole])
    dates = {r.measurement.where: r.provenance for r in again.records}
    assert dates["tiny_city/test"] == kept[0].provenance


def test_an_edited_method_is_computed_anew(monkeypatch):
    """Its source is on record: not only what its fields say decides what it does."""
    chosen = small(tasks=("tiny_city",), methods=[Noise()])
    run(chosen, "methods", progress=False)
    from forgetlib.runs import code

    of_class = code.of_class
    monkeypatch.setattr(code, "of_class", lambda c: "other" if c is Noise else of_class(c))
    made, make = [], Bench.make
    monkeypatch.setattr(Bench, "make", lambda b, c, *a, **k: made.append(c) or make(b, c, *a, **k))
    with pytest.warns(UserWarning, match=r"1 stored jobs are computed.*: the code of method toy_n"):
        run(chosen, "methods", progress=False)
    assert [c.kind for c in made] == ["true", "toy_noise"]  # with its start


def test_a_readout_and_a_view_of_one_s_own_are_measured_and_stored():
    @dataclass(frozen=True)
    class Lengths(Readout, name="toy_lengths"):
        """Count the tokens of each prompt."""

        columns = {"tokens": Column(pa.list_(pa.int32()), "(N,) tokens of each prompt")}  # noqa: RUF012
        tokens: np.ndarray

        @classmethod
        def measure(cls, asked):
            prompts = [e.prompts[0] for e in asked.questions()]
            return cls(np.array([len(asked.lm.tokens(p)) for p in prompts], np.int32))

    class Shouted(views.View, name="toy_shouted"):
        """Show a question in words that the model does not know."""

        def shown(self, example):
            return views.with_texts(example, str.upper, choices=False)

    chosen = small(tasks=("tiny_city",), readouts=["toy_lengths"], views=["toy_shouted"])
    found = run(chosen, "own", progress=False)
    assert same_results(load_results(chosen, "own"), found)
    for result in found:
        (lengths,) = (r.value for r in result.records if r.measurement.readout == "toy_lengths")
        assert lengths.tokens.tolist() == [6] * 24
        plain, shouted = result.scores["tiny_city/test"], result.seen("toy_shouted")
        assert list(shouted) == ["tiny_city/test"]
        assert shouted["tiny_city/test"].uids == plain.uids
        assert (shouted["tiny_city/test"].log_likelihoods != plain.log_likelihoods).any()
    assert re.search(r"toy_shouted", str(found[0].records[-2].measurement))
