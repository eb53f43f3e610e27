from tests.plans.coverage import PAGE, measured, rows
from tests.plans.test_training_equals_pytorch import OPTIMIZERS


def listed():
    lines = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {(line[1].strip(), line[2].strip()): (float(line[3]), float(line[4])) for line in lines[1:]}


def test_the_page_has_every_layer_and_no_other():
    assert list(listed()) == rows()


def test_every_row_is_close_to_pytorch():
    """Adam's rows by their losses: see the page on gradients that are zero."""
    for (_, optimizer), (parameters, loss) in listed().items():
        assert loss < 1e-3 if optimizer == "adam" else parameters < 1e-4


def test_a_row_can_be_measured_again():
    difference, loss, faster = measured("layer norm", OPTIMIZERS["momentum"])
    assert max(difference, loss) < 1e-4
    assert faster > 0
