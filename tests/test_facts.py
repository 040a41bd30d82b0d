"""The facts of a model: what contradicts itself is refused."""

import pytest
from pydantic import ValidationError
from tiny_packages import smoothing_facts

from live_restore.models.facts import FrozenRange, Geometry, Normalisation

THREE = FrozenRange(low=(1, 2, 3), high=(5, 6, 7))
REFUSED = {
    "unordered range": (lambda: FrozenRange(low=(5,), high=(5,)), "every high must exceed its low"),
    "empty range": (lambda: FrozenRange(low=(), high=()), "low has 0 entries"),
    "uneven range": (lambda: FrozenRange(low=(1,), high=(2, 3)), "low has 1 entries, high 2"),
    "geometry": (
        lambda: Geometry(halo=(1, 1), divisible_by=(1,), output_factor=(1, 1), bytes_per_pixel=1),
        r"2 or 3 entries each, alike; got \[1, 2\]",
    ),
    "percentiles": (lambda: Normalisation(low_percentile=90, high_percentile=10), "low_percentile 90.0 must be below"),
    "frozen without range": (lambda: Normalisation(mode="frozen"), "mode 'frozen' needs the field 'frozen'"),
    "output without range": (lambda: Normalisation(output="frozen"), "output 'frozen' needs the field 'output_range'"),
    "isotropic in 3D": (lambda: smoothing_facts(3, procedure="isotropic"), "'isotropic' needs a 2D network"),
    "inverse of other channels": (
        lambda: type(smoothing_facts()).model_validate({**smoothing_facts().model_dump(), "channels_in": 2}),
        "output 'inverse' needs as many channels out as in; the model has 2 in and 1 out",
    ),
    "isotropic that enlarges": (
        lambda: smoothing_facts(2, procedure="isotropic").model_validate(
            smoothing_facts(2, procedure="isotropic").model_dump()
            | {"geometry": {**smoothing_facts().geometry.model_dump(), "output_factor": (2, 2)}}
        ),
        r"keeps sizes; got \(2, 2\)",
    ),
    "upsampling in 2D": (lambda: smoothing_facts(2, procedure="upsampling"), "'upsampling' needs a 3D network"),
    "channels of the range": (
        lambda: smoothing_facts(2, 2, normalisation=Normalisation(mode="frozen", frozen=THREE)),
        "normalisation.frozen has 3 channels; give one, or the model's 2",
    ),
    "a typo": (lambda: Normalisation(percentile_low=2), "Extra inputs are not permitted"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_contradictions_are_refused(case):
    make, message = case
    with pytest.raises(ValidationError, match=message):
        make()


def test_facts_survive_being_written():
    facts = smoothing_facts(2, normalisation=Normalisation(mode="frozen", frozen=FrozenRange(low=(1,), high=(5,))))
    assert type(facts).model_validate_json(facts.model_dump_json()) == facts
