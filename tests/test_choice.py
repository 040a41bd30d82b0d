"""Which engine and precision are chosen, and what is said about it."""

import numpy as np
import pytest
from small_graphs import graph, image, net_graph, node, single

from live_restore.engines.certificates.certificate import ANYTHING, Probe, Tolerance
from live_restore.engines.certificates.certifier import Certifier
from live_restore.engines.choice import choose
from live_restore.engines.engine import open_engine, what_is_offered
from live_restore.errors import EngineError, EngineUnavailable

CARE = net_graph("care", n_dim=2, first_filters=8)
SOURCE = "the model's test image"
# A small difference of large numbers, of which bf16 keeps 8 bits.
ILL = graph([node("Add", ["x", "w"], ["a"]), node("Conv", ["a", "k"], ["b"]), node("Sub", ["b", "w"])],
            {"w": np.full((1, 1, 1, 1), 100, np.float32), "k": np.ones((1, 1, 1, 1), np.float32)})  # fmt: skip


@pytest.fixture(scope="module")
def native_bf16():
    offer = what_is_offered("openvino")
    if "bf16" not in offer.precisions:
        pytest.skip(offer.why_not)


def certifier(onnx=CARE, pixels=None, **options):
    pixels = image(1, 1, 64, 64) if pixels is None else pixels
    return Certifier(lambda: onnx, lambda: [Probe((pixels,))], SOURCE, **options)


class Kept:
    """Remembers certificates, and counts."""

    def __init__(self):
        self.by_spec, self.found = {}, 0

    def find(self, spec):
        self.found += spec in self.by_spec
        return self.by_spec.get(spec)

    def keep(self, spec, certificate):
        self.by_spec[spec] = certificate


def test_auto_takes_bf16_where_it_is_close_enough(native_bf16):
    choice = choose(certifier())
    assert (choice.kind, choice.precision) == ("openvino", "bf16")
    with open_engine(choice.kind, CARE, choice.precision) as engine:
        assert engine.spec == choice.spec
    assert 0 < choice.certificate.relative_error <= 2e-3
    assert choice.why.startswith(f"bf16: against float32, on {SOURCE}: relative error ")
    assert "PSNR loss unknown" in choice.why
    assert choice.figures == {"relative_error": pytest.approx(choice.certificate.relative_error, rel=1e-2)}


def test_auto_takes_f32_where_bf16_is_too_far_off(native_bf16):
    choice = choose(certifier(ILL, image(1, 1, 32, 32)))
    assert (choice.precision, choice.certificate, choice.figures) == ("f32", None, {})
    assert choice.why.startswith("f32: openvino") and f"is beyond the limit of 2e-3 on {SOURCE}" in choice.why


def test_auto_takes_f32_where_the_images_are_flat(native_bf16):
    flat = np.zeros((1, 1, 16, 16), np.float32)
    choice = choose(certifier(single("Relu"), flat))
    assert choice.precision == "f32" and f"cannot be judged on {SOURCE}: flat" in choice.why
    assert choose(certifier(single("Relu"), flat), "torch").precision == "f32", "also where it is not the reference"


def test_a_tolerance_decides(native_bf16):
    strict = Tolerance(relative_error_alone=1e-7)
    assert choose(certifier(), tolerance=strict).precision == "f32"
    assert choose(certifier(ILL, image(1, 1, 32, 32)), tolerance=ANYTHING).precision == "bf16"


def test_what_is_asked_for_is_certified_too(native_bf16):
    choice = choose(certifier(threads=1), "openvino", "bf16")
    assert choice.why.startswith("bf16: as asked for; against float32") and choice.certificate.passes


def test_what_is_asked_for_and_too_far_off_is_refused_with_a_cure(native_bf16):
    ill = certifier(ILL, image(1, 1, 32, 32))
    with pytest.raises(
        EngineError, match=r"bf16, .* is beyond .*; use --precision f32, or take it all the same with --tolerate"
    ):
        choose(ill, "openvino", "bf16")
    taken = choose(ill, "openvino", "bf16", ANYTHING)
    assert taken.why.startswith("bf16: as asked for, although openvino") and not taken.certificate.refusal
    with pytest.raises(EngineError, match=r"torch .*, f32, .*; use another --engine"):
        choose(ill, "torch", "f32", Tolerance(relative_error_alone=-1))
    with pytest.raises(EngineError, match=r"no precision of torch can be taken: torch .* is beyond the limit of -1 on"):
        choose(ill, "torch", tolerance=Tolerance(relative_error_alone=-1))


def test_an_engine_that_does_not_know_the_network_is_passed_over():
    with pytest.raises(EngineError, match="no precision of torch can be taken: torch, bf16: the torch engine does not know"):
        choose(certifier(single("Mish")), "torch")


def test_nothing_is_measured_where_there_is_nothing_to_certify():
    def never():
        raise AssertionError("measured")

    untouched = Certifier(never, never, SOURCE)
    for kind, precision in (("openvino", "f32"), ("identity", "f32"), ("identity", "bf16")):
        choice = choose(untouched, kind, precision)
        assert (choice.kind, choice.precision, choice.certificate) == (kind, precision, None)
        assert choice.why == f"{precision}: as asked for"
    assert choose(untouched, "identity").why == "f32: the identity computes nothing"


def test_a_known_certificate_is_not_measured_again(native_bf16):
    known = Kept()
    first = choose(certifier(known=known))
    again = choose(Certifier(lambda: CARE, lambda: [], SOURCE, known=known))
    assert again == first and known.found == 1
    assert [spec.precision for spec in known.by_spec] == ["bf16"]


def test_the_float32_results_are_made_once(native_bf16):
    made = []

    def probes():
        made.append(1)
        return [Probe((image(1, 1, 32, 32),))]

    one = Certifier(lambda: CARE, probes, SOURCE)
    found = [one.certificate(kind, "bf16") for kind in ("openvino", "torch")]
    assert len(made) == 1 and all(each.passes for each in found)


REFUSED = [
    ("engine", {"kind": "abacus"}, EngineUnavailable, "there is no engine 'abacus'"),
    ("precision", {"precision": "f64"}, EngineUnavailable, "does not compute in 'f64'"),
    ("both", {"kind": "torch", "precision": "int8"}, EngineUnavailable, "'torch' does not compute in 'int8'"),
    ("nothing computed", {"kind": "identity", "precision": "f64"}, EngineUnavailable, "'identity' does not compute in 'f64'"),
]


@pytest.mark.parametrize(("asked", "error", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_not_to_be_had_is_refused(asked, error, words):
    with pytest.raises(error, match=words):
        choose(certifier(), **asked)


def test_a_damaged_graph_is_refused(native_bf16):
    with pytest.raises(EngineError, match="openvino cannot read this graph"):
        choose(certifier(CARE[:-50], image(1, 1, 32, 32)))
