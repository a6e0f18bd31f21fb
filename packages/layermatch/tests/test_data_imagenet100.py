"""The list of classes that ships, over a folder of ImageNet's form."""

from importlib.resources import as_file, files

from PIL import Image

from scarce_common_utils.image_folders import read_class_list
from scarce_common_utils.images import Selection, open_images

LIST = files("layermatch.data") / "imagenet100.txt"


def test_it_names_a_hundred_classes_in_the_order_of_folders():
    with as_file(LIST) as file:
        names = read_class_list(file)
    assert len(set(names)) == 100
    assert list(names) == sorted(names)
    assert all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in names)
    assert {"n02869837", "n01749939", "n02090622"} <= set(names)


def test_it_picks_its_classes_out_of_an_imagenet_folder(tmp_path):
    with as_file(LIST) as file:
        names = read_class_list(file)
    for part, count in (("train", 2), ("val", 1)):
        for name in [*names, "n00000001", "n99999999"]:
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (12, 9)).save(tmp_path / part / name / f"{name}_{number}.JPEG")
    train, val = open_images(str(tmp_path), image_size=8, selection=Selection(classes=names), in_memory=False)
    assert (len(train), len(val), train.class_names) == (200, 100, names)
    assert train.labels.tolist() == [number for number in range(100) for _ in range(2)]
    assert train.names[0] == f"train/{names[0]}/{names[0]}_0.JPEG"
