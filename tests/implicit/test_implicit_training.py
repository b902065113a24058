"""The transformer, its training, and the whole experiment at the size of tests."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from forgetlib.errors import InputError, UnusableNumbers
from forgetlib.files import StoreError
from forgetlib.implicit import evaluate, muon, prompts, results, run, settings, train
from forgetlib.implicit.settings import named
from forgetlib.implicit.transformer import Regressor, as_tensor, predict

TINY = named("implicit-tiny")
BRIEF = replace(TINY, steps=12, tuning_steps=4, alone_steps=4, n_prompts=32)


def some_prompts(n=16):
    return prompts.draw(prompts.mixture(TINY), n, TINY.n_points, np.random.default_rng(0))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# --- the transformer


def test_a_prediction_depends_on_what_is_before_its_label_alone():
    model, drawn = Regressor(TINY), some_prompts()
    x, y = drawn.x, drawn.y[:, :-1]
    found = predict(model, x, y)
    assert found.shape == (16, TINY.n_points + 1)
    for k in range(TINY.n_points):
        changed_x, changed_y = x.copy(), y.copy()
        changed_y[:, k] += 1
        changed_x[:, k + 1] += 1
        other = predict(model, changed_x, changed_y)
        np.testing.assert_array_equal(other[:, : k + 1], found[:, : k + 1])
        assert (other[:, k + 1 :] != found[:, k + 1 :]).all()
        # a shorter prompt is the beginning of a longer one
        np.testing.assert_allclose(
            predict(model, x[:, : k + 1], y[:, :k]), found[:, : k + 1], atol=1e-6
        )


def test_tokens_are_x_and_y_in_turn():
    model = Regressor(TINY)
    seen = []
    model.read_in.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    drawn = some_prompts(3)
    predict(model, drawn.x, drawn.y[:, :-1])
    (tokens,) = seen
    assert tokens.shape == (3, 2 * TINY.n_points + 1, TINY.dimension)
    np.testing.assert_array_equal(tokens[:, ::2], drawn.x.astype(np.float32))
    np.testing.assert_array_equal(tokens[:, 1::2, 0], drawn.y[:, :-1].astype(np.float32))
    assert (tokens[:, 1::2, 1:] == 0).all()


def test_a_scale_scales_labels_and_divides_the_answer():
    model, drawn = Regressor(TINY), some_prompts()
    _, y = drawn.examples
    scaled = predict(model, drawn.x, y, gamma=2.0)
    np.testing.assert_allclose(scaled, predict(model, drawn.x, 2 * y) / 2)
    for gamma in (0, -1.0, float("nan")):
        with pytest.raises(InputError, match="gamma: expected a number above 0"):
            predict(model, drawn.x, y, gamma=gamma)


def test_prompts_that_do_not_fit_the_model_are_refused():
    model = Regressor(TINY)
    x, y = np.zeros((1, TINY.n_points + 2, 2)), np.zeros((1, TINY.n_points + 1))
    with pytest.raises(InputError, match=f"examples of a prompt: expected at most {TINY.n_points}"):
        predict(model, x, y)
    with pytest.raises(InputError, match="entries of x: expected 2"):
        predict(model, np.zeros((1, 3, 5)), np.zeros((1, 2)))


def test_weights_are_the_seeds_and_global_generators_stay():
    before = torch.get_rng_state()
    first, again, other = Regressor(TINY), Regressor(TINY), Regressor(replace(TINY, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))
    # every weight is drawn here, none is left as transformers drew it
    spread = {name: p.std().item() for name, p in first.named_parameters() if p.ndim > 1}
    width, layers = TINY.width, TINY.layers
    assert spread["backbone.h.0.attn.c_attn.weight"] == pytest.approx(width**-0.5, rel=0.1)
    down = (4 * width) ** -0.5 / (2 * layers) ** 0.5
    assert spread["backbone.h.0.mlp.c_proj.weight"] == pytest.approx(down, rel=0.1)
    assert all(p.ndim > 1 or set(p.tolist()) <= {0.0, 1.0} for p in first.parameters())


# --- training


def test_all_targets_have_the_same_gradient_on_average():
    """A target of another mean is told apart."""
    model, of = Regressor(TINY), prompts.mixture(TINY)
    drawn = prompts.draw(of, 20_000, 2, np.random.default_rng(1))

    def gradient(goal):
        loss = (model(as_tensor(drawn.x), as_tensor(drawn.y)) - as_tensor(goal)).square().mean()
        found = torch.autograd.grad(
            loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True
        )
        return torch.cat([g.flatten() for g in found if g is not None])

    expected = gradient(drawn.truth)

    def difference(goal):
        return torch.linalg.norm(gradient(goal) - expected) / torch.linalg.norm(expected)

    for name in settings.TARGETS:
        assert difference(train.target(of, drawn, name)) < 0.1
    assert difference(0.5 * drawn.truth) > 0.3


def test_the_rate_rises_and_falls():
    stage = train.pre_training(replace(TINY, steps=100, warm_up=9, rate=1.0))
    rates = [stage.rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert int(np.argmax(rates)) == 9
    assert rates[-1] < 0.001
    assert (
        train.fine_tuning(TINY).rate_at(0)
        == train.fine_tuning(TINY).rate_at(59)
        == TINY.tuning_rate
    )


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (8, 8)])
def test_muon_steps_along_the_nearest_orthogonal_matrix(shape):
    """Against the singular value decomposition; and its step is as large as one of AdamW's."""
    values = np.random.default_rng(0).standard_normal(shape)
    u, _, v = np.linalg.svd(values, full_matrices=False)
    found = muon.orthogonal(as_tensor(values)).numpy()
    assert np.linalg.norm(found) / 8**0.5 == pytest.approx(1, abs=0.3)
    assert np.square(np.linalg.svd(found)[1] - 1).max() < 0.35**2
    cosine = (found * (u @ v)).sum() / np.linalg.norm(found) / np.linalg.norm(u @ v)
    assert cosine > 0.95
    weight = torch.nn.Parameter(torch.zeros(shape))
    weight.grad = as_tensor(values)
    muon.Muon([weight], 1e-3).step()
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.2e-3, rel=0.3)
    assert (weight.detach().numpy() * values).sum() < 0


def test_what_muon_has_not_is_adamws():
    model = Regressor(TINY)
    first, second = train._optimizers(model, train.pre_training(replace(TINY, optimizer="muon")))
    assert isinstance(first, muon.Muon)
    given = [[p for g in o.param_groups for p in g["params"]] for o in (first, second)]
    assert len(given[0]) == 4 * TINY.layers
    assert len(given[0]) + len(given[1]) == len(list(model.parameters()))
    (only,) = train._optimizers(model, train.fine_tuning(TINY))
    assert isinstance(only, torch.optim.AdamW)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("optimizer", settings.OPTIMIZERS)
@pytest.mark.parametrize("at", [1, 5, 11])
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, at, optimizer):
    stage = train.pre_training(replace(BRIEF, optimizer=optimizer))
    whole = Regressor(BRIEF)
    train.train(whole, BRIEF, stage)
    path, told = tmp_path / "model.safetensors", []

    def kill(name, n_done):
        if n_done == at:
            raise KilledError

    with pytest.raises(KilledError):
        train.train(Regressor(BRIEF), BRIEF, stage, path, every=5, progress=kill)
    assert path.exists() == (at >= 5)
    resumed = Regressor(BRIEF)
    train.train(resumed, BRIEF, stage, path, every=5, progress=lambda *now: told.append(now))
    assert torch.equal(weights(resumed), weights(whole))
    assert told[0] == ("pre-trained", 1 if at < 5 else at // 5 * 5)
    # what is done is not done again
    told.clear()
    again = Regressor(BRIEF)
    train.train(again, BRIEF, stage, path, progress=lambda *now: told.append(now))
    assert told == [("pre-trained", BRIEF.steps)]
    assert torch.equal(weights(again), weights(whole))


def test_training_leaves_global_state_as_it_is():
    before = torch.get_rng_state(), torch.get_num_threads()
    train.train(Regressor(BRIEF), BRIEF, train.pre_training(BRIEF))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


def test_a_damaged_checkpoint_is_told(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(StoreError, match="delete it, and training begins anew"):
        train.train(Regressor(BRIEF), BRIEF, train.pre_training(BRIEF), path)
    other = replace(BRIEF, width=16)
    path.unlink()
    train.train(Regressor(other), other, train.pre_training(other), path)
    with pytest.raises(StoreError, match="expected weights and optimiser of these settings"):
        train.train(Regressor(BRIEF), BRIEF, train.pre_training(BRIEF), path)


def test_a_training_that_runs_away_is_told():
    setting = replace(BRIEF, rate=1e30, warm_up=0)
    with pytest.raises(UnusableNumbers, match="loss of the pre-trained model"):
        train.train(Regressor(setting), setting, train.pre_training(setting))


# --- the whole experiment


@pytest.fixture(scope="module")
def tiny_results(tmp_path_factory):
    """What `implicit-tiny` gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGETLIB_ROOT", str(tmp_path_factory.mktemp("implicit")))
        run.run(TINY, quiet=True)
        yield results.read("implicit-tiny"), results.read("implicit-tiny", "shifts")


def errors_of(table, **chosen):
    """Errors by k."""
    chosen = {"gamma": 1.0, "quarter": 0} | chosen
    rows = table[np.logical_and.reduce([table[name] == value for name, value in chosen.items()])]
    return rows.sort_values("k").error.to_numpy()


def test_the_table_has_a_row_for_everything_asked(tiny_results):
    table, shifts = tiny_results
    assert list(table.columns) == ["key", *evaluate.COLUMNS]
    assert list(shifts.columns) == ["key", *evaluate.SHIFT_COLUMNS]
    models = {"pre-trained", "fine-tuned", "discrete-only", "bayes", "ridge", "discrete"}
    assert set(table.model) == models
    groups = 5 * TINY.n_points + 1  # without examples, prompts are not told apart
    assert len(table) == len(models) * 2 * len(TINY.gammas) * groups
    values = {"error", "standard_error", "n", "blocks"}
    assert not table.duplicated(list(set(table.columns) - values)).any()
    assert (table[table.quarter == 0].n == TINY.n_prompts).all()
    assert table[table.quarter > 0].n.between(TINY.n_prompts // 4, TINY.n_prompts // 4 + 1).all()
    assert (table.standard_error > 0).all()
    assert (table.blocks.map(len) == evaluate.N_BLOCKS).all()
    np.testing.assert_allclose(table.blocks.map(np.mean), table.error, rtol=1e-5)
    assert sorted(shifts.k) == [-1, *range(TINY.n_points + 1)]


def test_a_model_learns_and_fine_tuning_moves_it_to_the_discrete_set(tiny_results):
    table, shifts = tiny_results
    prior = TINY.dimension * TINY.tau**2
    before, after, alone = (
        errors_of(table, model=name, kind="continuous")[1:].mean()
        for name in ("pre-trained", "fine-tuned", "discrete-only")
    )
    assert before < 0.75 * prior
    assert before < after < alone
    tuned, untuned = (
        errors_of(table, model=name, kind="discrete").mean()
        for name in ("fine-tuned", "pre-trained")
    )
    assert tuned < untuned
    whole = shifts[shifts.k == -1].iloc[0]
    assert whole.after > whole.before


def test_ridge_does_not_change_with_the_scale(tiny_results):
    table, _ = tiny_results
    for kind in prompts.KINDS:
        plain = errors_of(table, model="ridge", kind=kind)
        for gamma in TINY.gammas:
            found = errors_of(table, model="ridge", kind=kind, gamma=gamma)
            np.testing.assert_allclose(found, plain)


def test_what_is_stored_is_not_computed_again_and_not_written_over(project, monkeypatch):
    run.run(BRIEF, quiet=True)
    path = results.path_of(BRIEF)
    content = path.read_bytes()
    setting, about = results.about(path)
    assert setting["steps"] == BRIEF.steps
    assert {"commit", "torch", "seconds", "date", "device"} <= set(about)
    monkeypatch.setattr(train, "train", None)  # would fail if it were called
    run.run(BRIEF, quiet=True)
    assert path.read_bytes() == content
    with pytest.raises(StoreError, match="What is stored stays"):
        results.write(BRIEF, None, None, {})


def test_a_killed_experiment_goes_on_to_the_same_numbers(project, monkeypatch):
    run.run(replace(BRIEF, name="whole"), quiet=True)
    own = train.train

    def kill(model, setting, stage, *rest, progress, **more):
        def killing(name, n_done):
            progress(name, n_done)
            if (name, n_done) == ("fine-tuned", 3):
                raise KilledError

        own(model, setting, stage, *rest, progress=killing, **more)

    monkeypatch.setattr(train, "train", kill)
    with pytest.raises(KilledError):
        run.run(BRIEF, quiet=True, every=2)
    assert not results.is_stored(BRIEF)
    monkeypatch.setattr(train, "train", own)
    run.run(BRIEF, quiet=True, every=2)
    for table in ("results", "shifts"):
        found, expected = results.read(BRIEF.name, table), results.read("whole", table)
        assert found.equals(expected)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_mixture_of_one_kind_has_no_shift(project, alpha):
    setting = replace(BRIEF, alpha=alpha)
    run.run(setting, quiet=True)
    assert len(results.read(setting.name))
    assert len(results.read(setting.name, "shifts")) == 0


# --- stored tables and the gate


def made_up(ratio, k=12):
    setting = replace(TINY, n_points=k, n_prompts=64)
    table = evaluate.ask(setting, {"pre-trained": lambda x, y, gamma: np.zeros((64, k + 1))})
    bayes = table.model == "bayes"
    own = table.model == "pre-trained"
    table.loc[own, "error"] = ratio * table.loc[bayes, "error"].to_numpy()
    return table


def test_the_gate_is_met_within_ten_per_cent_on_both_kinds():
    found = evaluate.gate(made_up(1.09))
    assert list(zip(found.kind, found.k, strict=True)) == [
        (kind, k) for kind in prompts.KINDS for k in (5, 10)
    ]
    np.testing.assert_allclose(found.ratio, 1.09)
    assert found.met.all()
    assert not evaluate.gate(made_up(1.11)).met.any()
    assert evaluate.gate(made_up(1.11), noise=1.0).met.any()
    table = made_up(1.0)
    worse = (table.model == "pre-trained") & (table.kind == "discrete") & (table.k == 10)
    table.loc[worse, "error"] *= 1.2
    assert evaluate.gate(table).met.tolist() == [True, True, True, False]


def test_a_gate_without_its_rows_is_refused():
    table = made_up(1.0)
    for lacking in (
        table[table.k < 10],
        table[table.model != "bayes"],
        table[table.kind == "discrete"],
    ):
        with pytest.raises(InputError, match="gate: expected errors of"):
            evaluate.gate(lacking)
    with pytest.raises(InputError, match="noise: expected a variance"):
        evaluate.gate(table, noise=-1.0)


def test_quarters_are_of_the_most_likely_prompts_last():
    """Where log-odds are wrong, they are wrong most for the prompts that look most discrete."""
    table = evaluate.ask(replace(TINY, n_prompts=2000), {})
    for k in (2, 4):
        errors = [
            table.query(f"model == 'bayes' and kind == 'continuous' and gamma == 1 and k == {k}")
            .set_index("quarter")
            .error[q]
            / table.query(f"model == 'ridge' and kind == 'continuous' and gamma == 1 and k == {k}")
            .set_index("quarter")
            .error[q]
            for q in (1, 4)
        ]
        assert errors[0] < errors[1]


def test_files_that_are_no_results_are_told(project):
    with pytest.raises(StoreError, match="Compute them: "):
        results.read()
    path = results.path_of(TINY)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"nothing")
    with pytest.raises(StoreError, match="delete it, and compute it again"):
        results.read(TINY.name)
    made_up(1.0).to_parquet(path)
    with pytest.raises(StoreError, match="found format none"):
        results.read(TINY.name)


def test_reading_needs_no_torch():
    code = (
        "import sys; from forgetlib.implicit import bayes, evaluate, results, settings, shift;"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers"} & set(done.stdout.split())
