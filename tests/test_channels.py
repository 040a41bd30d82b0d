"""The channel plan: which channels go through which model."""

from dataclasses import dataclass

import pytest

from live_restore.channels import Assignment, plan_channels
from live_restore.errors import ImageError
from live_restore.models.facts import Architecture, Geometry, ModelFacts, Normalisation, Provenance


@dataclass(frozen=True)
class Model:
    """All that the plan asks of a restorer."""

    name: str
    facts: ModelFacts


def model(name="m", channels_in=1, channels_out=1, probabilistic=False):
    geometry = Geometry(halo=(1, 1), divisible_by=(1, 1), output_factor=(1, 1), bytes_per_pixel=8)
    provenance = Provenance(source_format="trained", source_name="x", source_sha256="0", imported_by="test")
    facts = ModelFacts(
        architecture=Architecture(kind="onnx"),
        geometry=geometry,
        channels_in=channels_in,
        channels_out=channels_out,
        normalisation=Normalisation(output="inverse" if channels_in == channels_out else "none"),
        probabilistic=probabilistic,
        provenance=provenance,
    )
    return Model(name, facts)


ONE, TWO = model(), model("two", channels_in=2, channels_out=2)
CASES = {
    "one model for all": (["DAPI", "GFP"], [(None, ONE)], {}, [((0,), "m", ("DAPI",)), ((1,), "m", ("GFP",))]),
    "others kept": (["DAPI", "GFP"], [(("GFP",), ONE)], {}, [((0,), None, ("DAPI (raw)",)), ((1,), "m", ("GFP",))]),
    "others left out": (["DAPI", "GFP"], [(("GFP",), ONE)], {"others": "leave-out"}, [((1,), "m", ("GFP",))]),
    "by number": (["DAPI", "GFP"], [(("1",), ONE)], {"others": "leave-out"}, [((1,), "m", ("GFP",))]),
    "two together": (["DAPI", "GFP"], [(None, TWO)], {}, [((0, 1), "two", ("DAPI", "GFP"))]),
    "two together, other order": (
        ["A", "B", "C"],
        [(("C", "A"), TWO)],
        {},
        [((1,), None, ("B (raw)",)), ((2, 0), "two", ("C", "A"))],
    ),
    "named first, rest by default": (
        ["A", "B", "C"],
        [(None, ONE), (("B",), model("special"))],
        {},
        [((0,), "m", ("A",)), ((1,), "special", ("B",)), ((2,), "m", ("C",))],
    ),
    "two into one": (["A", "B"], [(None, model("sum", channels_in=2))], {}, [((0, 1), "sum", ("A+B",))]),
    "widths": (["A"], [(None, model("p", probabilistic=True))], {"widths": True}, [((0,), "p", ("A", "A (Laplace scale)"))]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_plan(case):
    names, assigned, options, expected = case
    parts = plan_channels(names, [Assignment(channels, m) for channels, m in assigned], **options)
    assert [(p.channels, p.restorer.name if p.restorer else None, p.names) for p in parts] == expected


@pytest.mark.parametrize(
    ("names", "assigned", "message"),
    [
        (["DAPI"], [(("GFP",), ONE)], "no channel 'GFP' in this image; it has 'DAPI'"),
        (["DAPI", "GFP"], [(("GFP",), ONE), (("GFP",), ONE)], "channel 'GFP' is given to two models"),
        (["A", "B"], [(None, ONE), (None, TWO)], "two models are given for every channel"),
        (["A"], [(None, TWO)], r"takes 2 channels together, and this image offers 1 \('A'\)"),
        (["A", "B"], [(("A", "A"), TWO)], "channel 'A' is given to two models"),
    ],
    ids=["unknown", "twice", "two for all", "too few", "same twice in one"],
)
def test_a_plan_that_cannot_be(names, assigned, message):
    with pytest.raises(ImageError, match=message):
        plan_channels(names, [Assignment(channels, m) for channels, m in assigned])
