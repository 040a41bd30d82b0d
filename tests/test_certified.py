"""Packages certified on this machine: with real images where they carry some, kept for the next start, made anew elsewhere."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import typer
from bare_clients import BareHook, image, status
from small_graphs import net_graph, single
from tiny_packages import smoothing_facts, write_smoothing_package
from typer.testing import CliRunner

from live_restore import cli
from live_restore.certified import _card_of, _real_probes, certifier_of, choose_for, offered_for
from live_restore.channels import Assignment
from live_restore.commands import certifying
from live_restore.config import Channel
from live_restore.configured import model_choices
from live_restore.engines.cache.engine_cache import EngineCache, EngineKey
from live_restore.engines.certificates.certificate import ANYTHING, Tolerance
from live_restore.engines.cuda.calls import CudaDevice
from live_restore.engines.engine import EngineSpec, what_is_offered
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.openvino.quantise import int8_key, quantise
from live_restore.engines.tensorrt import card as tensorrt_card
from live_restore.errors import EngineError, EngineUnavailable, ModelError, PairError
from live_restore.launch import start_restore_process, stop_restore_process
from live_restore.models.facts import FrozenRange, Normalisation
from live_restore.models.package import LEARNED_FROM, open_package
from live_restore.models.real_images import REAL_IMAGES, RealImages
from live_restore.models.registry import bundled_folder
from live_restore.offline import restore_files
from live_restore.records.pairs import file_sha256
from live_restore.records.restored import read_provenance
from live_restore.restorer import Restorer
from live_restore.serving.models import ModelChoice, Models, choice_of

SECRET, OTHER_SECRET = bytes(32), bytes([7] * 32)
# What bf16 costs networks that were never trained says nothing.
ANY = {"tolerance": ANYTHING}


@pytest.fixture(autouse=True)
def native_bf16():
    offer = what_is_offered("openvino")
    if "bf16" not in offer.precisions:
        pytest.skip(offer.why_not)


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "cache", SECRET)


def pairs(*shape, number=2, **said):
    """Low and high images of this shape; low is the dimmer and noisier one."""
    low, high = [], []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        bright = rng.gamma(3, 200, shape)
        high.append(bright.astype(np.uint16))
        low.append(rng.poisson(100 + bright / 8).astype(np.uint16))
    return RealImages(low, high, **said)


def tiny(path, n_dim=2, images=None, **facts):
    package = write_smoothing_package(path, n_dim, facts=smoothing_facts(n_dim, **facts))
    return package.with_real_images(images) if images else package


def test_real_images_are_taken_where_the_package_has_some(tmp_path, cache):
    package = tiny(tmp_path / "tiny", images=pairs(48, 48, read_noise=2.0))
    choice = choose_for(package, "openvino", "bf16", cache=cache, **ANY)
    found = choice.certificate
    assert (found.source, found.images, found.in_read_noise) == ("2 held-out pairs", 2, True)
    assert 0 < found.relative_error < 0.02 and found.psnr_loss_db is not None and not found.estimated


def test_the_test_image_is_taken_otherwise(tmp_path, cache):
    scored = tiny(tmp_path / "scored", scores={"psnr_db": 30.0})
    plain = tiny(tmp_path / "plain")
    found = [choose_for(package, "openvino", "bf16", cache=cache, **ANY).certificate for package in (scored, plain)]
    assert {each.source for each in found} == {"the package's test image"}
    assert found[0].estimated and found[0].psnr_loss_db > 0 and found[1].psnr_loss_db is None
    assert not any(each.in_read_noise for each in found)


UNFIT = {
    "too small": lambda path: tiny(path, images=pairs(3, 40)),
    "other axes": lambda path: tiny(path, images=pairs(4, 40, 40)),
    "finer planes": lambda path: tiny(path, 3, pairs(4, 40, 40), procedure="upsampling", z_factor=2.0),
    "two channels": lambda path: write_smoothing_package(path, channels=2).with_real_images(pairs(40, 40)),
}


@pytest.mark.parametrize("case", UNFIT)
def test_images_that_the_network_does_not_restore_are_left_aside(tmp_path, cache, case):
    assert certifier_of(UNFIT[case](tmp_path / "tiny"), cache=cache).source == "the package's test image"


def test_stacks_and_all_kinds_of_ranges(tmp_path, cache):
    counts = FrozenRange(low=(90.0,), high=(700.0,))
    rules = {
        "volume": Normalisation(),
        "frozen": Normalisation(mode="frozen", frozen=counts),
        "output": Normalisation(output="frozen", output_range=counts),
        "none": Normalisation(output="none"),
    }
    for name, rule in rules.items():
        package = tiny(tmp_path / name, 3, pairs(5, 30, 34, read_noise=2.0), normalisation=rule)
        found = choose_for(package, "openvino", "bf16", cache=cache, **ANY).certificate
        assert found.images == 2 and 0 < found.relative_error < 0.02, name
        assert found.in_read_noise == (rule.output == "inverse"), "a read noise in counts is one of counts"


def test_a_probabilistic_network_is_judged_by_its_means(tmp_path, cache):
    onnx, facts = net_graph("care", n_dim=2, first_filters=8, probabilistic=True), smoothing_facts(probabilistic=True)
    twice = np.repeat(tiny(tmp_path / "plain").test_output(), 2, axis=1)
    package = write_smoothing_package(tmp_path / "sure", facts=facts, onnx=onnx, test_output=twice)
    for each in (package, package.with_real_images(pairs(48, 48))):
        assert choose_for(each, "openvino", "bf16", cache=cache, **ANY).certificate.relative_error < 0.02


def test_large_networks_are_certified_on_fewer_images(tmp_path, cache):
    package = tiny(tmp_path / "tiny", images=pairs(64, 64, number=4))
    assert certifier_of(package, cache=cache).source == "4 held-out pairs"
    geometry = package.facts.geometry.model_copy(update={"flop_per_pixel": int(3e11 / 64**2)})
    heavy = replace(package, facts=package.facts.model_copy(update={"geometry": geometry}))
    assert certifier_of(heavy, cache=cache).source == "2 held-out pairs"


def test_what_was_certified_is_known_at_the_next_start(tmp_path, cache, caplog):
    package = tiny(tmp_path / "tiny", images=pairs(48, 48))
    first = choose_for(package, "openvino", "bf16", cache=cache, **ANY)
    (entry,) = cache.entries()
    assert (entry.engine_bytes, entry.name, entry.certificate) == (0, "certificate of 'smoothing 3x3'", replace(
        first.certificate, tolerance=Tolerance()))  # fmt: skip
    (package.path / "weights.onnx").rename(tmp_path / "away")  # nobody asks for the graph any more
    assert choose_for(package, "openvino", "bf16", cache=cache, **ANY) == first
    (tmp_path / "away").rename(package.path / "weights.onnx")
    choose_for(package.with_real_images(pairs(32, 32)), cache=cache, **ANY)
    assert len(list(cache.entries())) == 2 and not caplog.records, "other images, another certificate"


def test_a_certificate_of_another_machine_is_made_anew(tmp_path, caplog):
    package = tiny(tmp_path / "tiny")
    there = EngineCache(tmp_path / "cache", OTHER_SECRET)
    choose_for(package, "openvino", "bf16", cache=there, **ANY)
    here = EngineCache(tmp_path / "cache", SECRET)
    for _ in range(2):
        assert choose_for(package, "openvino", "bf16", cache=here, **ANY).certificate
    (said,) = caplog.messages
    assert said == (
        "'smoothing 3x3', bf16: its certificate was made on another machine, or changed since, so it is certified anew"
    )
    assert [entry.sealed_here for entry in here.entries()] == [True]


def for_another_device(package, cache, device="Abacus 9000"):
    """Certify here, and write down that it was on another device."""
    choose_for(package, "openvino", "bf16", cache=cache, **ANY)
    (entry,) = cache.entries()
    cache.store(replace(entry.key, device=device), b"", replace(entry.certificate, relative_error=1e-9), entry.name)
    entry.path.unlink()


def test_a_certificate_of_another_device_is_not_used(tmp_path, cache, caplog):
    package = tiny(tmp_path / "tiny")
    for_another_device(package, cache)
    found = choose_for(package, "openvino", "bf16", cache=cache, **ANY).certificate
    assert found.relative_error > 1e-9 and len(list(cache.entries())) == 2
    offer = what_is_offered("openvino")
    (said,) = caplog.messages
    assert said == (
        f"'smoothing 3x3', bf16: certified on Abacus 9000 with openvino {offer.version}; this is {offer.device} with openvino "
        f"{offer.version}, so it is certified anew"
    )


def test_damaged_images_do_not_stop_the_reference(tmp_path, cache, caplog):
    package = tiny(tmp_path / "tiny", images=pairs(48, 48))
    package.files.replace(REAL_IMAGES, b"no archive at all")
    for engine in ("auto", "openvino"):
        choice = choose_for(package, engine, "f32", cache=cache)
        assert (choice.kind, choice.precision, choice.certificate) == ("openvino", "f32", None)
    assert "real_images.npz holds no images to certify with" in caplog.text and "Going on in float32 on the CPU" in caplog.text
    for engine, precision in (("openvino", "bf16"), ("openvino", "auto"), ("torch", "f32")):
        with pytest.raises(ModelError, match="holds no images to certify with"):
            choose_for(package, engine, precision, cache=cache)


def test_a_certificate_knows_its_card(tmp_path, monkeypatch):
    device = CudaDevice("Abacus 9000", (8, 9), "13.0", 1, 2)
    card = SimpleNamespace(cuda=SimpleNamespace(device=lambda: device))
    monkeypatch.setattr(tensorrt_card, "this_card", lambda: card)
    assert _card_of(EngineSpec("tensorrt", "1", "Abacus 9000", "f16")) == ("8.9", "13.0")
    assert _card_of(EngineSpec("openvino", "1", "CPU", "bf16")) == ("", "")
    assert _card_of(EngineSpec("torch", "1", "CPU", "f32")) == ("", "")


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    cache = EngineCache(tmp_path / "file", SECRET)
    assert choose_for(tiny(tmp_path / "tiny"), "openvino", "bf16", cache=cache, **ANY).certificate
    assert caplog.messages[-1].startswith("the certificate of 'smoothing 3x3' is not kept: the certificate cannot be kept in")
    with pytest.raises(EngineError, match=r"the engine \(2e-06 MB\) cannot be kept in"):
        cache.store(EngineKey("0", "openvino", "1", "CPU", "", "", "f32", "", ""), b"12")


def test_all_that_is_offered(tmp_path, cache):
    offered = {(row.kind, row.precision): row for row in offered_for(tiny(tmp_path / "tiny"), cache)}
    assert not any(kind == "identity" for kind, _ in offered)
    assert offered["openvino", "f32"].certificate is None and not offered["openvino", "f32"].why_not
    assert offered["openvino", "bf16"].certificate.relative_error > offered["torch", "f32"].certificate.relative_error
    # an operation that only OpenVINO knows
    strange = write_smoothing_package(tmp_path / "strange", onnx=single("Mish"))
    (row,) = (row for row in offered_for(strange, cache) if (row.kind, row.precision) == ("torch", "f32"))
    assert row.certificate is None and "does not know" in row.why_not


def test_the_restorer_refuses_and_tolerates(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVE_RESTORE_CACHE", str(tmp_path / "cache"))
    package = tiny(tmp_path / "tiny", images=pairs(48, 48))
    strict = Tolerance(relative_error=1e-9, psnr_loss_db=-1)
    with pytest.raises(EngineError, match="is beyond the limit of -1 on 2 held-out pairs; use --precision f32"):
        Restorer(package, precision="bf16", tolerance=strict)
    with Restorer(package, precision="bf16", tolerance=ANYTHING) as restorer:
        assert restorer.engine.precision == "bf16" == restorer.choice.precision
        assert restorer.restore(image()[None, None]).pixels.shape == (1, 1, 32, 40)
    with Restorer(package, tolerance=strict) as restorer:
        assert restorer.engine.precision == "f32"


def test_files_say_what_their_precision_costs(tmp_path, monkeypatch):
    """Beside the fingerprint, not in it: figures that were measured anew do not make another job."""
    monkeypatch.setenv("LIVE_RESTORE_CACHE", str(tmp_path / "cache"))
    package = tiny(tmp_path / "tiny", images=pairs(48, 48))
    tifffile.imwrite(tmp_path / "noisy.tif", image())
    made = []
    for name in ("one", "other"):
        with Restorer(package, precision="bf16", tolerance=ANYTHING) as restorer:
            restore_files([tmp_path / "noisy.tif"], tmp_path / f"{name}.ome.tif", [Assignment(None, restorer)])
            figures = restorer.choice.figures
        made.append(read_provenance(tmp_path / f"{name}.ome.tif"))
        assert made[-1]["certificates"] == [figures] and figures.keys() == {"relative_error", "psnr_loss_db"}
        cache = EngineCache()
        (entry,) = cache.entries()
        cache.store(entry.key, b"", replace(entry.certificate, relative_error=0.5))
    assert made[0]["certificates"] != made[1]["certificates"] and made[0]["fingerprint"] == made[1]["fingerprint"]


def test_models_in_service_show_their_certificates(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVE_RESTORE_CACHE", str(tmp_path / "cache"))
    path = tiny(tmp_path / "tiny", images=pairs(48, 48, read_noise=2.0)).path
    models = Models([ModelChoice("*", path, "openvino", "bf16", tolerate=True), ModelChoice("GFP", path, "openvino", "f32")])
    fast, exact = models.described()
    served = models.of("*").provenance()
    models.close()
    assert fast["certified"].startswith("error ") and fast["certified"].endswith(" dB")
    assert dict(fast["certificate"])["measured on"] == "2 held-out pairs"
    assert dict(fast["certificate"])["worst pixel"].endswith("read noises")
    assert "against float32, on 2 held-out pairs" in fast["why"]
    assert "certificate" not in exact
    assert (served["precision"], served["relative_error"]) == ("bf16", fast["relative_error"])


def test_carried_to_another_machine_it_is_refused_made_anew_and_served(tmp_path, monkeypatch):
    """Package and cache come from another machine: nothing of theirs is taken, and a real restore process serves the volume."""
    monkeypatch.setenv("LIVE_RESTORE_CACHE", str(tmp_path / "cache"))
    carried = EngineCache(tmp_path / "cache" / "engines", OTHER_SECRET)
    package = open_package(bundled_folder() / "care2d_demo")
    choose_for(package, "openvino", "bf16", cache=carried)
    (entry,) = carried.entries()
    monkeypatch.setenv("LIVE_RESTORE_CONFIG", str(tmp_path / "config"))  # where this machine keeps its secret
    given = ["--engine", "openvino", "--precision", "bf16", "--records", str(tmp_path / "records")]
    with start_restore_process([str(package.path)], *given) as child, BareHook(child.where, results="float32") as hook:
        hook.frame(image(shape=(64, 64)))
        (back,) = hook.back(1)
        (model,) = status(child.where)["models"]
        hook.end()
        assert stop_restore_process(child)
        said = " ".join(child.said)
    assert "'CARE 2D demo', bf16: its certificate was made on another machine" in said and "certified anew" in said
    assert back.provenance["precision"] == model["precision"] == "bf16" and back.provenance["relative_error"] > 0
    assert model["certified"] and back.pixels.shape[-2:] == (64, 64)
    (anew,) = EngineCache(tmp_path / "cache" / "engines", OTHER_SECRET).entries()
    assert anew.key == entry.key and not anew.sealed_here, "it is this machine's own now"


@pytest.fixture
def certify(tmp_path, monkeypatch):
    """The command, with three pairs to give it."""
    monkeypatch.setenv("LIVE_RESTORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    folder, given = tmp_path / "pairs", pairs(40, 40, number=3)
    for side in ("low", "high"):
        (folder / side).mkdir(parents=True)
        for number, pixels in enumerate(getattr(given, side)):
            tifffile.imwrite(folder / side / f"{number}_a.tif", pixels)
    app = typer.Typer()
    certifying.add_to(app)
    app.command()(cli.engines)

    def run(*words):
        return CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False).output

    return lambda path, *more: run("certify", path, "--pairs", folder, *more), run, folder


def test_from_the_command_line(tmp_path, certify):
    """Real images of one's own into a package that has none; then the table of what every engine is worth."""
    given, run, _ = certify
    path = tiny(tmp_path / "tiny").path
    said = given(path)
    assert "carries 3 pairs given to certify with now" in said and "bf16" in said
    assert open_package(path).real_images().origin == "given"
    shown = run("engines", "--model", path)
    for word in ("relative error", "PSNR loss", "worst pixel", "bias dim", "reference"):
        assert word in shown
    assert "3 pairs given to certify with" in shown and "auto, for model 'smoothing 3x3'" in shown
    with pytest.raises(ModelError, match="has images to certify with already; replace them with --overwrite"):
        given(path)
    assert "3 pairs" in given(path, "--overwrite")


def test_pairs_that_tell_nothing_of_a_package_are_refused(tmp_path, certify):
    given, _, folder = certify
    learned = "".join(f"{file_sha256(path)}\n" for path in (folder / "low").iterdir()).encode()
    taught = write_smoothing_package(tmp_path / "taught", extras={LEARNED_FROM: learned})
    with pytest.raises(PairError, match="'smoothing 3x3' has learned from all 3 pairs; give some that it has not seen"):
        given(taught.path)
    with pytest.raises(ModelError, match="does not give one image of the same size for one"):
        given(write_smoothing_package(tmp_path / "two", channels=2).path)
    with pytest.raises(PairError, match="none of 3 pairs can be used for 'smoothing 3x3', a 3D network"):
        given(tiny(tmp_path / "stacks", 3).path)


def test_int8_is_certified_where_it_was_built_and_again_when_it_is_built_anew(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LIVE_RESTORE_CACHE", str(tmp_path / "cache"))
    if "int8" not in what_is_offered("openvino").precisions:
        pytest.skip("this CPU has no int8 arithmetic")
    package = write_smoothing_package(tmp_path / "care", onnx=net_graph("care", n_dim=2, first_filters=8, depth=1))
    package = package.with_real_images(pairs(48, 48))
    assert choose_for(package, **ANY).precision == "bf16", "nobody has built int8"
    with pytest.raises(EngineUnavailable, match="no int8 layers on this machine"):
        choose_for(package, "openvino", "int8")
    cache, graph = EngineCache(), from_counts(package.onnx())
    layers = quantise(graph, _real_probes(pairs(32, 32, number=1), package.facts))
    cache.store(int8_key(graph), layers)
    choice = choose_for(package, **ANY)
    assert choice.precision == "int8" and choice.certificate.relative_error > 1e-4
    (kept,) = (entry for entry in cache.entries() if entry.key.precision == "int8" and not entry.engine_bytes)
    assert kept.certificate == replace(choice.certificate, tolerance=Tolerance())
    cache.store(kept.key, b"", replace(choice.certificate, relative_error=0.123))
    found = choose_for(package, "openvino", "int8", cache=Later(cache), **ANY).certificate
    assert found.relative_error == 0.123, "known, as it was made after the layers"
    cache.store(int8_key(graph), layers)
    assert choose_for(package, "openvino", "int8", **ANY).certificate.relative_error == choice.certificate.relative_error
    assert not caplog.records


class Later:
    """A cache whose certificates are a day younger than they say."""

    def __init__(self, cache):
        self._cache = cache
        self.certificate, self.store = cache.certificate, cache.store

    def entries(self):
        for entry in self._cache.entries():
            yield entry if entry.engine_bytes else replace(entry, built="9" + entry.built)


def test_what_may_be_tolerated_travels(tmp_path, monkeypatch):
    """By the command line, the wire and the configuration; and what restored live is restored later without a question."""
    assert choice_of({"package": "p", "tolerate": True}).tolerance == ANYTHING
    assert choice_of({"package": "p", "tolerate": "yes"}).tolerance is None
    (choice,) = model_choices(None, ["care2d_demo"], "openvino", "bf16", None, tolerate=True)
    assert choice.tolerate
    channel = Channel(exposure_ms=1, model="care2d_demo", precision="bf16", tolerate=True)
    assert channel.tolerate and not Channel(exposure_ms=1).tolerate
    monkeypatch.setenv("LIVE_RESTORE_CACHE", str(tmp_path / "cache"))
    package = tiny(tmp_path / "tiny", images=pairs(48, 48))
    choose_for(package, "openvino", "bf16", **ANY)
    cache = EngineCache()
    (entry,) = cache.entries()
    cache.store(entry.key, b"", replace(entry.certificate, psnr_loss_db=0.5))
    tifffile.imwrite(tmp_path / "noisy.tif", image())
    words = ["restore", str(tmp_path / "noisy.tif"), "-o", str(tmp_path / "out.ome.tif"), "--model", str(package.path)]
    words += ["--engine", "openvino", "--precision", "bf16"]
    with pytest.raises(EngineError, match=r"PSNR loss in dB 0.5 is beyond the limit of 2e-2 .* with --tolerate"):
        CliRunner().invoke(cli.app, words, catch_exceptions=False)
    assert CliRunner().invoke(cli.app, [*words, "--tolerate"], catch_exceptions=False).exit_code == 0
