"""A misspelt keyword is answered with the nearest one."""

import inspect

import pytest
import torch

import layermatch
from layermatch import METHODS, Corruption, FreeMatchWeighting, LayerMatch, build_method
from layermatch.keywords import spelt

CLASSIFIER = torch.nn.Linear(4, 3)
MISSPELT = [
    (lambda: LayerMatch(CLASSIFIER, treshold=0.5), "LayerMatch takes no treshold=. Did you mean threshold?"),
    (lambda: LayerMatch(CLASSIFIER, p_cutoff=0.5), "LayerMatch takes no p_cutoff=. Here it is called threshold."),
    (lambda: LayerMatch(CLASSIFIER, gradrelu=False), "Did you mean grad_relu?"),
    (lambda: LayerMatch(CLASSIFIER, xyz=1), "LayerMatch takes no xyz=. Choose from classifier, threshold, weighting,"),
    (lambda: FreeMatchWeighting(3, momentun=0.9), "FreeMatchWeighting takes no momentun=. Did you mean momentum?"),
    (lambda: layermatch.FlexMatchWeighting(3, 9, mappings="convex"), "Did you mean mapping?"),
    (lambda: layermatch.SoftMatchWeighting(3, nsigma=1), "Did you mean n_sigma?"),
    (lambda: layermatch.FixedThreshold(tau=0.9), "Here it is called threshold."),
    (lambda: layermatch.PseudoLabelWeighting(9, ramp_hight=3), "Did you mean ramp_height?"),
    (
        lambda: layermatch.ModelAverage(CLASSIFIER, ema_m=0.9),
        "ModelAverage takes no ema_m=. Here it is called momentum.",
    ),
    (lambda: Corruption("pair", 0.3, image=9, classes=3, seed=0), "Corruption takes no image=. Did you mean images?"),
    (lambda: METHODS["fixmatch"](CLASSIFIER, treshold=0.5), "fixmatch takes no treshold=. Did you mean threshold?"),
]


@pytest.mark.parametrize(("call", "sentence"), MISSPELT, ids=[sentence[:45] for _, sentence in MISSPELT])
def test_a_misspelt_keyword_names_the_nearest(call, sentence):
    with pytest.raises(TypeError) as caught:
        call()
    assert sentence in str(caught.value)


def test_a_setting_that_no_method_takes_is_refused_and_one_of_another_method_left_out():
    with pytest.raises(ValueError, match=r"No method takes the setting 'treshold'\. Did you mean threshold\?"):
        build_method("fixmatch", CLASSIFIER, settings={"treshold": 0.5})
    with pytest.raises(ValueError, match=r"'ulb_loss_ratio'\. Here it is called unlabelled_weight\."):
        build_method("supervised", CLASSIFIER, settings={"ulb_loss_ratio": 2.0})
    build_method("fixmatch", CLASSIFIER, settings={"variant": "usb", "images": 9})


def test_what_is_checked_keeps_its_signature_and_its_own_errors():
    assert list(inspect.signature(LayerMatch).parameters)[:3] == ["classifier", "threshold", "weighting"]
    assert LayerMatch.__init__.__qualname__ == "LayerMatch.__init__"

    def inner(number, *, share=1):
        return number * share

    assert spelt(inner)(3, share=2) == 6
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        spelt(inner)()
