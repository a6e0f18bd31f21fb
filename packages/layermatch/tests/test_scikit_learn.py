"""`LayerMatchClassifier`: scikit-learn's own checks, what it promises beside them, and every sentence that it refuses with."""

import pickle

import numpy
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.utils.estimator_checks import parametrize_with_checks

from layermatch import METHODS, FreeMatchWeighting, LayerMatchClassifier
from layermatch.data.batches import Batch
from layermatch.integrations import fitting
from layermatch.integrations.arrays import read_images
from layermatch.training.schedule import half_life_momentum
from layermatch.training.step import ViewSettings, batch_views
from layermatch.views.normalise import constants_on, measure

EXPECTED_FAILURES = {
    "check_classifiers_classes": "its binary labels are -1 and 1, and -1 in y says that a sample has no label, as in "
    "scikit-learn's own semi-supervised classifiers, which the check lets off by their names",
}


@parametrize_with_checks([LayerMatchClassifier(steps=25)], expected_failed_checks=lambda estimator: EXPECTED_FAILURES)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def few(y, count, missing=-1):
    """The first `count` labels of each class; `missing` elsewhere."""
    chosen = numpy.full(len(y), missing, dtype=object if isinstance(missing, str) else y.dtype)
    for label in numpy.unique(y):
        places = numpy.flatnonzero(y == label)[:count]
        chosen[places] = y[places]
    return chosen


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def fitted(iris):
    X, y = iris
    return LayerMatchClassifier(steps=60, random_state=0).fit(X, few(y, 5))


@pytest.fixture(scope="module")
def images():
    X, y = load_digits(return_X_y=True)
    return numpy.rint(X[:200].reshape(-1, 8, 8) * 255 / 16).astype(numpy.uint8), y[:200]


def test_few_labels_teach_it_and_what_it_found_is_there(fitted, iris):
    X, y = iris
    assert fitted.score(X, y) > 0.8
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert fitted.n_features_in_ == 4
    assert not hasattr(fitted, "image_shape_")
    shares = fitted.predict_proba(X)
    assert shares.dtype == numpy.float64
    numpy.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)
    assert fitted.predict(X).tolist() == shares.argmax(axis=1).tolist()
    assert [line["step"] for line in fitted.history_] == list(range(60))
    assert all("mask_rate" in line and "accuracy" not in line for line in fitted.history_)
    numpy.testing.assert_allclose(fitted.mean_, X.mean(axis=0))


def bits(classifier):
    return classifier.model_.state_dict()


def same_bits(first, second):
    return all(torch.equal(tensor, bits(second)[name]) for name, tensor in bits(first).items())


def test_the_same_random_state_gives_the_same_bits_whatever_was_drawn_before(fitted, iris):
    X, y = iris
    torch.rand(3)
    state, drawn = torch.get_rng_state(), numpy.random.get_state()[1].tolist()  # noqa: NPY002 (the global one is meant)
    again = clone(fitted).fit(X, few(y, 5))
    assert same_bits(fitted, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert numpy.random.get_state()[1].tolist() == drawn  # noqa: NPY002 (the same)
    again.fit(X, few(y, 5))
    assert same_bits(fitted, again)
    assert not same_bits(fitted, clone(fitted).set_params(random_state=1).fit(X, few(y, 5)))


def test_none_and_a_generator_draw_on(iris):
    X, y = iris
    generator = numpy.random.RandomState(0)
    for random_state in (None, generator):
        one = LayerMatchClassifier(steps=1, random_state=random_state)
        first = pickle.loads(pickle.dumps(bits(one.fit(X, y))["classifier.weight"]))
        assert not torch.equal(first, bits(one.fit(X, y))["classifier.weight"])


def test_it_pickles_small_and_predicts_the_same(fitted, iris):
    X, _ = iris
    packed = pickle.dumps(fitted)
    numbers = sum(tensor.numel() * tensor.element_size() for tensor in bits(fitted).values())
    assert len(packed) < 1.5 * numbers + 50_000
    assert numpy.array_equal(pickle.loads(packed).predict_proba(X), fitted.predict_proba(X))


def test_the_averaged_model_is_kept_and_torchs_threads_are_as_before(iris, monkeypatch):
    X, y = iris
    seen = []
    monkeypatch.setattr(fitting, "train", lambda state, plan, **_: seen.append((state, torch.get_num_threads())))
    torch.set_num_threads(2)
    try:
        one = LayerMatchClassifier(ema_momentum=0.9).fit(X, few(y, 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    (state, count), *_ = seen
    assert count == 1
    assert state.average.momentum == 0.9
    assert torch.equal(one.model_.classifier.weight, state.teacher.classifier.weight.double())
    assert one.model_.classifier.weight.data_ptr() != state.teacher.classifier.weight.data_ptr()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_fits(method, iris):
    X, y = iris
    one = LayerMatchClassifier(method=method, steps=5, batch_size=4, random_state=0).fit(X, few(y, 2))
    assert one.predict_proba(X).shape == (150, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"weighting": "flexmatch"},
        {"weighting": FreeMatchWeighting(3), "grad_relu": "agreement"},
        {"avg_clustering": "temporal"},
        {"avg_clustering": "teacher", "grad_relu": False},
        {"momentum": 0.5, "threshold": 0.2, "unlabelled_ratio": 1},
    ],
    ids=str,
)
def test_the_parts_of_layermatch_can_be_chosen_and_a_rule_of_ones_own_stays_as_it_was(options, iris):
    X, y = iris
    rule = options.get("weighting")
    before = {name: value.clone() for name, value in rule.state_dict().items()} if hasattr(rule, "state_dict") else {}
    one = LayerMatchClassifier(**options, steps=3, random_state=0).fit(X, few(y, 2))
    assert one.score(X, y) > 0
    assert all(torch.equal(value, rule.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("kind", [str, object])
def test_labels_may_be_strings(kind, iris, fitted):
    X, y = iris
    names = numpy.array(["setosa", "versicolor", "virginica"])
    labels = few(names[y], 5, missing="-1").astype(kind)
    if kind is object:
        labels[labels == "-1"] = -1
    one = clone(fitted).fit(X, labels)
    assert one.classes_.tolist() == names.tolist()
    assert one.predict(X).tolist() == names[fitted.predict(X)].tolist()


def test_what_it_says_of_a_row_hangs_on_no_other_row(fitted, iris):
    X, _ = iris
    alone = numpy.concatenate([fitted.predict_proba(row[None]) for row in X[:20]])
    numpy.testing.assert_allclose(alone, fitted.predict_proba(X)[:20], rtol=1e-12, atol=1e-14)


def test_standardised_by_itself_units_of_the_features_change_next_to_nothing(fitted, iris):
    X, y = iris
    factors, shifts = numpy.array([1e-6, 1.0, 1e6, 3.0]), numpy.array([0.0, 5.0, -1e6, 0.0])
    other = clone(fitted).fit(X * factors + shifts, few(y, 5))
    numpy.testing.assert_allclose(other.predict_proba(X * factors + shifts), fitted.predict_proba(X), atol=1e-3)


def test_a_constant_feature_says_nothing_and_harms_nothing(iris):
    X, y = iris
    wider = numpy.concatenate([X, numpy.full((150, 1), 7.0)], axis=1)
    one = LayerMatchClassifier(steps=5, random_state=0).fit(wider, few(y, 5))
    assert one.scale_[-1] == 1.0
    assert numpy.isfinite(one.predict_proba(wider)).all()


def test_settings_left_out_hang_on_steps_and_method(iris, monkeypatch):
    X, y = iris
    seen = []
    monkeypatch.setattr(fitting, "train", lambda state, plan, *, batches, **_: seen.append((state, batches(0))))
    for method in ("layermatch", "pseudolabel"):
        LayerMatchClassifier(method=method, steps=40, batch_size=4).fit(X, few(y, 2))
    (state, batch), (_, of_one_view) = seen
    assert state.criterion.centres.momentum == state.average.momentum == half_life_momentum(40)
    assert (len(batch.unlabelled), len(of_one_view.unlabelled)) == (28, 4)


def test_floats_become_the_nearest_pixel():
    assert read_images(numpy.array([[[0.0, 0.001], [0.999, 0.5]]])).flatten().tolist() == [0, 0, 255, 128]


@pytest.mark.parametrize("model", ["small", "cnn"])
def test_images_of_every_form_give_the_same_bits(model, images):
    X, y = images
    one = LayerMatchClassifier(model=model, steps=4, batch_size=4, random_state=0)
    grey = clone(one).fit(X, few(y, 2))
    assert grey.image_shape_ == (8, 8, 1)
    assert grey.n_features_in_ == 64
    for other in (X[..., None], X / 255, X.astype(numpy.int64), (X / 255).astype(numpy.float32)):
        again = clone(one).fit(other, few(y, 2))
        assert same_bits(grey, again)
        assert numpy.array_equal(grey.predict_proba(X[:9]), again.predict_proba(other[:9]))
    colour = clone(one).fit(numpy.stack([X, 255 - X, X // 2], axis=-1), few(y, 2))
    assert colour.image_shape_ == (8, 8, 3)
    memory = {tensor.untyped_storage().data_ptr() for tensor in bits(colour).values()}
    assert len(memory) == len(bits(colour))  # none shared, which safetensors would take for tied weights
    assert pickle.loads(pickle.dumps(colour)).predict(numpy.zeros((2, 8, 8, 3))).shape == (2,)


def test_a_fit_on_vectors_after_one_on_images_forgets_the_images(images, iris):
    X, y = images
    one = LayerMatchClassifier(steps=1, random_state=0).fit(X, y)
    one.fit(*iris)
    assert one.n_features_in_ == 4
    assert one.predict(iris[0]).shape == (150,)


def test_views_of_images_are_those_of_the_command(images):
    X, y = images
    one, samples = LayerMatchClassifier(steps=1).fit(X, y), read_images(X)
    settings = ViewSettings(
        seed=3, shift=1, mirror=False, constants=constants_on(measure(samples), torch.device("cpu")), channels=1
    )
    labels = torch.tensor(y)
    batch = Batch(samples[:4], labels[:4], samples[4:20], torch.arange(4, 20), labels[4:20])
    views = fitting.build_views(one, samples, seed=3, strong=True)
    assert torch.equal(views(batch, 5), batch_views(batch, 5, settings=settings))


@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_views_of_ones_own_take_the_place_of_ours(kind, images, iris):
    X, y = iris if kind == "vectors" else images
    seen = []

    def view(name):
        def looked(samples, *, generator):
            seen.append((name, tuple(samples.shape), samples.dtype, generator.initial_seed()))
            return samples

        return looked

    LayerMatchClassifier(
        steps=2, batch_size=4, unlabelled_ratio=2, weak_view=view("weak"), strong_view=view("strong"), random_state=0
    ).fit(X, few(y, 2))
    size, dtype = ((4,), torch.float32) if kind == "vectors" else ((1, 8, 8), torch.uint8)
    assert [(name, shape[0]) for name, shape, *_ in seen] == [("weak", 4), ("weak", 8), ("strong", 8)] * 2
    assert {shape[1:] for _, shape, *_ in seen} == {size}
    assert {found for *_, found, _ in seen} == {dtype}
    assert len({seed for *_, seed in seen}) == 6


def test_the_numbers_of_the_views_of_vectors_are_looked_at(iris, monkeypatch):
    X, y = iris
    seen = []
    whole = fitting.noisy_views
    monkeypatch.setattr(fitting, "noisy_views", lambda samples, **given: seen.append(given) or whole(samples, **given))
    LayerMatchClassifier(steps=1, weak_noise=0.25, strong_noise=0.5, feature_dropout=0.75).fit(X, few(y, 2))
    given = [{name: value for name, value in one.items() if name != "generator"} for one in seen]
    assert given == [{"noise": 0.25}] * 2 + [{"noise": 0.5, "dropout": 0.75}]


BAD_ARGUMENTS = [
    ({"method": "fixmtach"}, "The method is 'fixmtach'"),
    ({"steps": 0}, "steps is 0. Choose a whole number from 1 on"),
    ({"steps": 2.5}, "steps is 2.5"),
    ({"batch_size": True}, "batch_size is True"),
    ({"shift": -1}, "shift is -1. Choose a whole number from 0 on"),
    ({"learning_rate": float("nan")}, "learning_rate is nan. Choose a number from 0 to inf"),
    ({"ema_momentum": 1.5}, "ema_momentum is 1.5. Choose a number from 0 to 1"),
    ({"feature_dropout": "much"}, "feature_dropout is 'much'"),
    ({"weak_noise": -0.1}, "weak_noise is -0.1"),
    (
        {"method": "fixmatch", "weighting": "freematch"},
        "weighting is 'freematch', which changes nothing with method='fix",
    ),
    ({"method": "freematch", "threshold": 0.9}, "threshold is 0.9, which changes nothing with method='freematch'"),
    ({"method": "supervised", "momentum": 0.9}, "momentum is 0.9, which changes nothing with method='supervised'"),
    ({"weighting": "freemtach"}, "weighting is 'freemtach'. Choose one of 'fixed', 'flexmatch'"),
    ({"weighting": "softmatch", "threshold": 0.9}, "threshold is 0.9, and weighting='softmatch' learns its own"),
    ({"model": "small"}, "model is 'small', and X holds vectors. Choose 'mlp', or None"),
    ({"learning_rate": 1e30}, "not finite at step .*Lower learning_rate, which is 1e.30"),
]


@pytest.mark.parametrize(("options", "message"), BAD_ARGUMENTS, ids=[str(options) for options, _ in BAD_ARGUMENTS])
def test_arguments_that_cannot_be_are_named(options, message, iris):
    X, y = iris
    with pytest.raises(ValueError, match=message):
        LayerMatchClassifier(**({"steps": 20, "random_state": 0} | options)).fit(X, few(y, 2))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-1] * 4, "y holds no label: all 4 entries are -1"),
        ([3, 3, -1, -1], "y names one class, 3"),
        (["a", "-1", "a", "-1"], "y names one class, 'a'"),
        ([0.5, 1.25, -1, 2], "Unknown label type"),
        (numpy.array(["a", 2, -1, "b"], dtype=object), "y holds labels of several kinds"),
        ([0, 1, 1], "inconsistent numbers of samples"),
    ],
)
@pytest.mark.parametrize("size", [(4, 3), (4, 8, 8)])
def test_labels_that_cannot_be_are_named(size, labels, message):
    with pytest.raises(ValueError, match=message):
        LayerMatchClassifier(steps=1).fit(numpy.zeros(size), labels)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (
            numpy.full((4, 8, 8), 16.0),
            "X holds float64 from 16 to 16. Images are whole numbers from 0 to 255 or floats",
        ),
        (numpy.full((4, 8, 8), -1), "X holds int64 from -1 to -1"),
        (numpy.full((4, 8, 8), numpy.nan), "X holds float64 from nan to nan"),
        (numpy.zeros((4, 3, 8, 8)), r"X has shape \(4, 3, 8, 8\).*the channels last"),
        (numpy.full((4, 8, 8), "a"), "X holds <U1. Images are numbers"),
    ],
)
def test_images_that_cannot_be_are_named(X, message):
    with pytest.raises(ValueError, match=message):
        LayerMatchClassifier(steps=1).fit(X, [0, 1, -1, -1])


def test_images_of_another_size_and_vectors_are_refused_by_a_model_of_images(images):
    X, y = images
    one = LayerMatchClassifier(steps=1).fit(X, few(y, 2))
    with pytest.raises(
        ValueError, match="X holds images of 6x8x1, but LayerMatchClassifier was fitted on images of 8x8x1"
    ):
        one.predict(X[:, :6])
    with pytest.raises(ValueError, match="X holds no images, but LayerMatchClassifier was fitted on images of 8x8x1"):
        one.predict(X.reshape(200, 64))
    with pytest.raises(ValueError, match=r"model is .mlp., and X holds images\. Choose .small. or .cnn."):
        LayerMatchClassifier(model="mlp").fit(X, y)


def test_progress_is_shown_where_asked(iris, capsys):
    X, y = iris
    LayerMatchClassifier(steps=1).fit(X, y)
    assert capsys.readouterr() == ("", "")
    LayerMatchClassifier(steps=1, verbose=True).fit(X, y)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "layermatch" in printed.err
