"""Which values a configuration ends up with, and what is said about those that cannot be."""

import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import yaml

from res2net.config.load import differences, load_config, recipes, to_dict, to_yaml
from res2net.config.schema import Config
from res2net.errors import InputError


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "mine.yaml") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def problems_of(source: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_config(source, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- Order and typing ----------------------------------------------------------------------------


def test_defaults_below_yaml_below_arguments(write):
    source = write("optim:\n  lr: 0.2\n  momentum: 0.8\n")
    config = load_config(source, ["optim.lr=0.3", "optim.lr=0.4"])
    assert (config.optim.lr, config.optim.momentum) == (0.4, 0.8)
    assert config.optim.weight_decay == 1e-4
    with pytest.raises(FrozenInstanceError):
        config.optim.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "optim:\ndata:\n  # later\n"])
def test_an_empty_yaml_means_the_defaults(write, text):
    config = load_config(write(text), [])
    expected = to_dict(Config())
    expected["run"]["name"] = "mine"
    assert to_dict(config) == expected


def test_the_run_is_named_after_the_yaml_unless_given(write):
    assert load_config(write(""), []).run.name == "mine"
    assert load_config(write(""), ["run.name=other"]).run.name == "other"
    assert load_config("imagenet/paper", []).run.name == "imagenet_paper"


@pytest.mark.parametrize(
    "text", ["007", "on", "12:30", "2026_01", "null", "1e3", "a=b", "[x]", "~"]
)
def test_text_stays_text(write, text):
    quoted = f"'{text}'" if text.startswith("[") else text
    assert load_config(write(f"run:\n  name: {quoted}\n"), []).run.name == text
    assert load_config(write(""), [f"run.name={text}"]).run.name == text


VALUES = [
    ("optim.lr", "1e-4", 1e-4),
    ("optim.lr", "3", 3.0),
    ("optim.nesterov", "false", False),
    ("optim.nesterov", "Yes", True),
    ("optim.nesterov", "off", False),
    ("trainer.max_epochs", "007", 7),
    ("trainer.precision", "bf16-mixed", "bf16-mixed"),
    ("trainer.devices", "2", "2"),
    ("augment.area", "[0.25, 1]", (0.25, 1.0)),
    ("augment.area", "(0.25, 1)", (0.25, 1.0)),
    ("augment.area", "0.25,1", (0.25, 1.0)),
    ("data.mean", "[5e-1, .5, 0.5]", (0.5, 0.5, 0.5)),
]


@pytest.mark.parametrize(("key", "text", "value"), VALUES)
def test_yaml_and_arguments_are_typed_alike(write, key, text, value):
    group, leaf = key.split(".")
    for config in (
        load_config(write(f"{group}:\n  {leaf}: {text}\n"), []),
        load_config(write(""), [f"{key}={text}"]),
    ):
        found = getattr(getattr(config, group), leaf)
        assert found == value
        assert type(found) is type(value)


# --- What is said about a wrong value ------------------------------------------------------------

WRONG = [
    ("optim.lr", "abc", "optim.lr: 'abc' is not a number"),
    ("optim.lr", "", "optim.lr: '' is not a number"),
    ("optim.lr", "nan", "optim.lr: 'nan' is not a finite number"),
    ("optim.lr", "1e999", "optim.lr: '1e999' is not a finite number"),
    ("optim.lr", "0", "optim.lr: '0' is not between 1e-10 and 1,000"),
    ("optim.nesterov", "2", "optim.nesterov: '2' is not true or false"),
    ("trainer.max_epochs", "3.5", "trainer.max_epochs: '3.5' is not an integer"),
    ("trainer.max_epochs", "true", "trainer.max_epochs: 'true' is not an integer"),
    ("trainer.max_epochs", "0", "trainer.max_epochs: '0' is not between 1 and 1,000,000"),
    (
        "trainer.precision",
        "bf16",
        "trainer.precision: 'bf16' is not one of 32-true, bf16-mixed, 16-mixed",
    ),
    ("trainer.devices", "0", "trainer.devices: '0' is not auto or an integer between 1 and 1,024"),
    (
        "trainer.num_nodes",
        "two",
        "trainer.num_nodes: 'two' is not auto or an integer between 1 and",
    ),
    ("data.image_size", "7", "data.image_size: '7' is not between 8 and 4,096"),
    ("data.val_fraction", "1", "data.val_fraction: '1' is not at least 0 and less than 1"),
    ("data.crop_fraction", "0", "data.crop_fraction: '0' is not between 0.1 and 1"),
    ("data.mean", "[1, 2]", "data.mean: '[1, 2]' is not a list of 3 numbers"),
    ("data.mean", "[0, a, 0]", "data.mean: '[0, a, 0]' is not a list of 3 numbers"),
    ("data.mean", "[0, nan, 0]", "data.mean: '[0, nan, 0]' is not a list of 3 numbers"),
    ("data.mean", "[123, 116, 103]", "data.mean: '[123, 116, 103]' is not three numbers between"),
    ("data.std", "[0, 1, 1]", "data.std: '[0, 1, 1]' is not three numbers between 0.001"),
    ("augment.area", "[1, 0.5]", "augment.area: '[1, 0.5]' is not low and high with 0.001 <= low"),
    ("augment.flip", "-0.1", "augment.flip: '-0.1' is not between 0 and 1"),
    ("run.seed", "-1", "run.seed: '-1' is not between 0 and 4,294,967,295"),
    ("run.name", "a/b", "run.name: 'a/b' is not the plain name of a directory, without a slash"),
    ("run.name", "", "run.name: '' is not the plain name of a directory"),
    ("run.name", "..", "run.name: '..' is not the plain name of a directory"),
    ("run.name", "a" * 201, f"run.name: '{'a' * 60}'... (201 long) is not the plain name of a dir"),
    ("run.dir", "${HOME}/x", "run.dir: '${HOME}/x' is not plain text: ??? and ${...} are not"),
    ("run.dir", "???", "run.dir: '???' is not plain text"),
    ("optim.learning_rate", "1", "optim.learning_rate: no such key; did you mean optim.lr?"),
    ("optim.wd", "1", "optim.wd: no such key; did you mean optim.weight_decay?"),
    ("lr", "1", "lr: no such key; did you mean optim.lr?"),
    (
        "batch_size",
        "1",
        "batch_size: no such key; did you mean data.global_batch_size or data.eval_batch_size?",
    ),
    ("model.arch", "x", "model.arch: no such key; those of model are name, num_classes, weights"),
    ("zzz", "1", "zzz: no such key; the groups are run, model, data, augment, loss,"),
    ("checkpoint", "3", "checkpoint: '3' given to a group; its keys are every_steps, every_minu"),
    ("optim.lr.peak", "3", "optim.lr.peak: no such key; optim.lr takes one value"),
]


@pytest.mark.parametrize(("key", "text", "message"), WRONG)
def test_a_wrong_argument_is_told(write, key, text, message):
    assert problems_of(write(""), f"{key}={text}").startswith(message)


@pytest.mark.parametrize(
    ("key", "text", "message"), [case for case in WRONG if case[0].count(".") == 1]
)
def test_a_wrong_value_in_a_yaml_is_told_alike_with_its_line(write, key, text, message):
    group, leaf = key.split(".")
    source = write(f"{group}:\n  {leaf}: '{text}'\n")
    problem = problems_of(source)
    assert problem.startswith(message)
    assert problem.endswith(f" ({source}, line 2)")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("optim.lr", "'optim.lr' is not key=value, such as optim.lr=0.05"),
        ("=3", "'=3' is not key=value without blanks around =, such as optim.lr=0.05"),
        ("=", "'=' is not key=value without blanks around =, such as optim.lr=0.05"),
        (
            "optim.lr = 3",
            "'optim.lr = 3': no blanks around the key and its =, as in optim.lr=3",
        ),
        (" lr=3", "' lr=3': no blanks around the key and its =, as in lr=3"),
        ("", "'' is not key=value, such as optim.lr=0.05"),
    ],
)
def test_an_argument_that_is_no_pair_is_told(write, argument, message):
    assert problems_of(write(""), argument) == message


def test_all_problems_are_told_at_once(write):
    source = write("optim:\n  lr: abc\n  wd: 1\n")
    assert problems_of(source, "nonsense", "trainer.max_epochs=-1", "lr=3") == "; ".join(
        [
            "'nonsense' is not key=value, such as optim.lr=0.05",
            f"optim.lr: 'abc' is not a number ({source}, line 2)",
            "optim.wd: no such key; did you mean optim.weight_decay?" + f" ({source}, line 3)",
            "trainer.max_epochs: '-1' is not between 1 and 1,000,000",
            "lr: no such key; did you mean optim.lr?",
        ]
    )


# --- YAML files ----------------------------------------------------------------------------------

YAMLS = [
    ("optim: 3\n", "optim: '3' given to a group; its keys are name, lr, lr_batch"),
    ("optim: [1, 2]\n", "optim: [1, 2] given to a group; its keys are name, lr"),
    (
        "optim:\n  lr:\n    peak: 3\n",
        "optim.lr: takes one value, not keys of its own ({path}, line 2)",
    ),
    ("optim:\n  lr: [1, 2]\n", "optim.lr: [1, 2] is not one value ({path}, line 2)"),
    ("data:\n  mean: [[1], 2, 3]\n", "data.mean: [[...], 2, 3] is not a list of 3 numbers"),
    ("optim:\n  lr: 1\n  lr: 2\n", "optim.lr: given twice ({path}, lines 2 and 3)"),
    ("optim:\n  lr: 1\ndata:\noptim:\n  lr: 2\n", "optim: given twice ({path}, lines 1 and 4)"),
    ("? [a, b]\n: 1\n", "a list or mapping stands where a key should ({path}, line 1)"),
    ("- optim\n", "{path}: holds no groups of keys such as 'optim:' at its top"),
    ("just text\n", "{path}: holds no groups of keys such as 'optim:' at its top"),
    ("optim:\n  lr: [1\n", "{path}, line 3, column 1: broken YAML: "),
    ("optim:\n\tlr: 1\n", "{path}, line 2, column 1: broken YAML: found character '\\t'"),
    ("a: 1\n---\nb: 2\n", "{path}, line 2, column 1: broken YAML: a second document begins"),
    ("run:\n  name: \x07\n", "{path}: broken YAML: unacceptable character #x0007"),
    ("extends: [a, b]\n", "extends: [a, b] is not one file ({path}, line 1)"),
    ("extends:\n", "extends: '' is not one file ({path}, line 1)"),
    ("extends:\n  a: 1\n", "extends: takes one value, not keys of its own ({path}, line 1)"),
    ("optim:\n  extends: other\n", "optim.extends: no such key; did you mean optim.betas"),
]


@pytest.mark.parametrize(("text", "message"), YAMLS)
def test_a_wrong_yaml_is_told(write, text, message):
    source = write(text)
    assert problems_of(source).startswith(message.format(path=source))


def test_a_file_that_is_no_text_is_told(tmp_path):
    path = tmp_path / "weights.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert problems_of(str(path)).startswith(f"{path}: is no text in UTF-8")


def test_extends_starts_from_another_file(write):
    write("optim:\n  lr: 0.2\n  momentum: 0.5\n", "base/grand.yaml")
    write("extends: base/grand.yaml\noptim:\n  lr: 0.3\n", "parent.yaml")
    source = write("extends: parent\nrun:\n  seed: 5\n")
    config = load_config(source, ["optim.weight_decay=0"])
    assert (config.optim.lr, config.optim.momentum, config.run.seed) == (0.3, 0.5, 5)
    assert config.run.name == "mine"


def test_extends_may_name_a_shipped_recipe(write):
    config = load_config(write("extends: quickstart\n"), [])
    assert config.data.source == "digits"


def test_extends_in_a_circle_is_told(write, tmp_path):
    write("extends: mine\n", "other.yaml")
    source = write("extends: other\n")
    assert problems_of(source) == (
        f"extends goes round in a circle: {source} -> {tmp_path / 'other.yaml'} -> "
        f"{tmp_path / 'mine.yaml'}"
    )


def test_a_chain_of_files_has_an_end(tmp_path):
    for number in range(1200):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml")
    last = tmp_path / "20.yaml"
    assert problems_of(str(tmp_path / "0.yaml")) == f"{last}: more than 20 files extend each other"


def test_extends_of_a_missing_file_is_told(write):
    source = write("extends: othr\noptim:\n  lr: x\n")
    first, *_, last = problems_of(source).split("; ")
    assert first == "extends: 'othr': no such file or recipe (recipes: " + ", ".join(recipes()) + (
        f") ({source}, line 1)"
    )
    assert last == f"optim.lr: 'x' is not a number ({source}, line 3)"


def test_a_missing_file_names_the_nearest_recipe(tmp_path):
    names = ", ".join(recipes())
    for wrong in ("quikstart", "configs/quikstart.yaml"):
        assert problems_of(wrong) == f"{wrong!r}: no such file or recipe; did you mean quickstart?"
    assert problems_of(str(tmp_path)) == (
        f"{str(tmp_path)!r}: is a folder, not a YAML file (recipes: {names})"
    )


def test_a_file_comes_before_a_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("quickstart", []).data.source == "digits"
    Path("quickstart.yaml").write_text("data:\n  source: cifar10\n")
    assert load_config("quickstart", []).data.source == "cifar10"


# --- Back to YAML --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["007", "12:30", "on", "null", "#x", "a b: c", "ü", " x ", "1e-4"])
def test_a_written_config_is_read_back_equal(write, name):
    config = load_config(
        "quickstart", [f"run.name={name}", "optim.lr=1e-7", "augment.area=[0.1, 0.3]"]
    )
    text = to_yaml(config)
    assert "area: [0.1, 0.3]\n" in text
    assert load_config(write(text), []) == config


def test_to_dict_holds_plain_types_only():
    tree = to_dict(load_config("quickstart", []))
    assert tree["data"]["mean"] == [0.5, 0.5, 0.5]
    kinds = {type(value) for group in tree.values() for value in group.values()}
    assert kinds == {str, int, float, bool, list}


def test_differences_give_old_and_new():
    old = to_dict(load_config("quickstart", []))
    new = load_config("quickstart", ["optim.lr=0.5", "data.mean=[0.5, 0.5, 0.4]"])
    assert differences(old, load_config("quickstart", [])) == {}
    assert differences(old, new) == {
        "data.mean": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.4]),
        "optim.lr": (0.1, 0.5),
    }


def test_differences_of_keys_that_came_or_went():
    new = load_config("quickstart", ["optim.lr=0.5"])
    old = to_dict(new)
    del old["optim"]["lr"], old["optim"]["momentum"]
    old["optim"]["gone"] = 3
    assert differences(old, new) == {"optim.lr": (0.1, 0.5), "optim.gone": (3, None)}


# --- Shipped recipes -----------------------------------------------------------------------------


def test_the_recipes_are_those_of_the_checkout():
    folder = Path(__file__).parents[3] / "configs"
    assert set(recipes().values()) == set(folder.rglob("*.yaml"))
    assert {"quickstart", "imagenet/paper"} <= set(recipes())


def test_an_installed_package_carries_its_recipes(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "res2net"
    recipe = package / "configs" / "imagenet" / "mine.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.touch()
    monkeypatch.setattr("res2net.config.load.__file__", str(package / "config" / "load.py"))
    assert recipes() == {"imagenet/mine": recipe}


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_holds_differences_only_below_its_header(name):
    path = recipes()[name]
    load_config(name, [])
    tree = yaml.load(path.read_text(), yaml.BaseLoader)
    parent = tree.pop("extends", None)
    below = load_config(str(path.parent / parent), []) if parent else Config()
    changed = differences(to_dict(below), load_config(name, [])).keys() - {"run.name"}
    assert changed == {f"{group}.{leaf}" for group, leaves in tree.items() for leaf in leaves}

    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for entry in ("# Source: ", f"# Command:        res2net train {name}", "# Expected top-1: "):
        assert any(line.startswith(entry) for line in header), entry


def test_every_recipe_stands_in_the_readme():
    text = (Path(__file__).parents[3] / "configs" / "README.md").read_text()
    listed = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(listed) == sorted(recipes())


def test_loading_is_quick_and_without_torch():
    # of the processor: other tests run at the same time
    code = (
        "import sys, time; start = time.process_time()\n"
        "from res2net.config.load import load_config\n"
        "load_config('quickstart', ['optim.lr=1e-4'])\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)\n"
        "print(time.process_time() - start)"
    )
    tries = (
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
        for _ in range(3)
    )
    assert any(seconds < 0.6 for seconds in tries)  # 0.15 s on a quiet machine
