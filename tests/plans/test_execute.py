import numpy as np
import pytest

import plans
from plans.errors import CancelledError, ExecutionError, UnusableDataError

VECTORS = ("theta", "optimizer_state", "buffers")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((50, 6)).astype(np.float32), "label": rng.integers(0, 3, 50)}


def train(plan, data, **options):
    settings = {"batch_size": 8, "epochs": 2, "learning_rate": 0.1, "seed": b"seed"} | options
    return plans.Executor(plan).train(*(plan.initial(role) for role in VECTORS), data, **settings)


def test_training_is_the_same_for_the_same_seed_however_it_is_cut_into_calls(plan, data):
    whole, cut = train(plan, data), train(plan, data, steps_per_call=3)
    assert whole.theta.tobytes() == cut.theta.tobytes()
    assert whole.optimizer_state.tobytes() == cut.optimizer_state.tobytes()
    assert whole.metrics.examples == cut.metrics.examples == 100


def test_another_seed_gives_another_order(plan, data):
    assert train(plan, data).theta.tobytes() != train(plan, data, seed=b"other").theta.tobytes()


def test_training_lowers_the_loss(plan, data):
    executor = plans.Executor(plan)
    before = executor.evaluate(plan.initial("theta"), plan.initial("buffers"), data)
    after = executor.evaluate(train(plan, data, epochs=20).theta, plan.initial("buffers"), data)
    assert after.mean("loss") < before.mean("loss")


def test_the_vectors_given_are_left_as_they_were(plan, data):
    theta = plan.initial("theta")
    kept = theta.copy()
    plans.Executor(plan).train(
        theta,
        plan.initial("optimizer_state"),
        plan.initial("buffers"),
        data,
        batch_size=8,
        epochs=1,
        learning_rate=0.1,
        seed=b"s",
    )
    assert (theta == kept).all()


def test_progress_is_told_after_each_call(plan, data):
    told = []
    train(plan, data, steps_per_call=5, progress=told.append)
    assert [(p.steps_done, p.steps_total) for p in told] == [(5, 14), (7, 14), (12, 14), (14, 14)]
    assert [p.metrics.examples for p in told] == [40, 50, 90, 100]


def test_a_cancelled_training_stops_between_two_calls(plan, data):
    told = []
    with pytest.raises(CancelledError, match="after 4 of 14 steps"):
        train(plan, data, steps_per_call=2, progress=told.append, cancelled=lambda: len(told) == 2)
    assert len(told) == 2


def changed(data, **fields):
    return {name: value for name, value in (data | fields).items() if value is not None}


def with_value(array, value):
    copy = array.copy()
    copy.flat[0] = value
    return copy


BAD = {
    "missing field": (lambda d: changed(d, label=None), "reads field 'label'; the data has x"),
    "float64": (lambda d: changed(d, x=d["x"].astype(np.float64)), r"float32\[6\] per example; the data has float64"),
    "other width": (lambda d: changed(d, x=d["x"][:, :5]), r"the data has float32\[5\]"),
    "other rank": (lambda d: changed(d, label=d["label"][:, None]), r"the data has int64\[1\]"),
    "no axis": (lambda d: changed(d, label=np.int64(3)), "the data has int64"),
    "lengths": (lambda d: changed(d, label=d["label"][:-1]), "different numbers of examples"),
    "empty": (lambda d: {name: value[:0] for name, value in d.items()}, "no examples"),
    "nan": (lambda d: changed(d, x=with_value(d["x"], np.nan)), "1 values that are NaN or infinite"),
    "infinity": (lambda d: changed(d, x=with_value(d["x"], np.inf)), "1 values that are NaN or infinite"),
    "label too large": (lambda d: changed(d, label=with_value(d["label"], 3)), "outside 0 <= value < 3"),
    "negative label": (lambda d: changed(d, label=with_value(d["label"], -1)), "outside 0 <= value < 3"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_unusable_data_is_refused_before_anything_runs(plan, data, change, message):
    with pytest.raises(UnusableDataError, match=message):
        train(plan, change(data))
    with pytest.raises(UnusableDataError, match=message):
        plans.Executor(plan).evaluate(plan.initial("theta"), plan.initial("buffers"), change(data))


@pytest.mark.parametrize("option", ["batch_size", "epochs", "steps_per_call"])
def test_a_count_below_one_is_refused(plan, data, option):
    with pytest.raises(UnusableDataError, match=f"{option} is 0, expected at least 1"):
        train(plan, data, **{option: 0})


def test_a_learning_rate_that_is_no_number_is_refused(plan, data):
    with pytest.raises(UnusableDataError, match="learning_rate"):
        train(plan, data, learning_rate=float("nan"))


@pytest.mark.parametrize("theta", [np.zeros(3, np.float32), np.zeros(83), np.zeros((83, 1), np.float32)])
def test_a_vector_of_another_size_or_dtype_is_refused(plan, data, theta):
    with pytest.raises(UnusableDataError, match=r"expected float32\[83\]"):
        plans.Executor(plan).evaluate(theta, plan.initial("buffers"), data)


def test_a_theta_with_nan_is_refused(plan, data):
    with pytest.raises(UnusableDataError, match="theta holds 1 values that are NaN or infinite"):
        plans.Executor(plan).evaluate(with_value(plan.initial("theta"), np.nan), plan.initial("buffers"), data)


def test_prediction_reads_inputs_alone_in_any_number(plan, data):
    executor = plans.Executor(plan)
    whole = executor.predict(plan.initial("theta"), plan.initial("buffers"), {"x": data["x"]})
    cut = executor.predict(plan.initial("theta"), plan.initial("buffers"), {"x": data["x"]}, batch_size=7)
    assert whole.shape == (50, 3)
    assert np.allclose(whole, cut, atol=1e-6)


def test_big_endian_and_strided_arrays_are_read_rightly_or_refused(plan, data):
    strided = {"x": np.repeat(data["x"], 2, axis=0)[::2], "label": data["label"]}
    assert train(plan, strided).theta.tobytes() == train(plan, data).theta.tobytes()
    with pytest.raises(UnusableDataError, match=">f4"):
        train(plan, changed(data, x=data["x"].astype(">f4")))


def test_no_value_of_the_data_is_in_an_error(plan, data):
    with pytest.raises(UnusableDataError) as caught:
        train(plan, changed(data, label=with_value(data["label"], 987654)))
    assert "987654" not in str(caught.value)


def test_a_training_that_diverges_gives_an_error_and_no_parameters(plan, data):
    wild = {"x": data["x"] * np.float32(1e30), "label": data["label"]}
    with pytest.raises(ExecutionError, match="diverged"):
        train(plan, wild, learning_rate=1e3)
